package sealbook.tls;

import java.security.GeneralSecurityException;
import java.security.SecureRandom;
import java.util.function.Supplier;
import javax.net.ssl.KeyManager;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLContextSpi;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLServerSocketFactory;
import javax.net.ssl.SSLSessionContext;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManager;

/** Makes engines for one identity; ignores the key and trust managers that it is given. */
final class AttestedContext extends SSLContextSpi {
  private final Supplier<OwnKey> keys;
  private final Supplier<PeerCheck> checks;

  AttestedContext(Supplier<OwnKey> keys, Supplier<PeerCheck> checks) {
    this.keys = keys;
    this.checks = checks;
  }

  @Override
  protected void engineInit(KeyManager[] given, TrustManager[] trusted, SecureRandom random) {
    // Spark's stores are public dummies: what counts came from the broker. Nothing to take from here.
  }

  @Override
  protected SSLEngine engineCreateSSLEngine() {
    PeerCheck check = checks.get();
    return new AttestedEngine(fresh(check).createSSLEngine(), check);
  }

  @Override
  protected SSLEngine engineCreateSSLEngine(String host, int port) {
    return engineCreateSSLEngine();
  }

  /**
   * A context of its own for each connection. It has the certificate as last renewed, and neither a session cache
   * nor a ticket key in common with others: a resumed session would skip every check of the peer.
   */
  private SSLContext fresh(PeerCheck check) {
    try {
      SSLContext context = SSLContext.getInstance("TLSv1.3");
      context.init(new KeyManager[] {keys.get()}, new TrustManager[] {check}, null);
      return context;
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException("This Java has no TLS 1.3.");
    }
  }

  @Override
  protected SSLSocketFactory engineGetSocketFactory() {
    throw new UnsupportedOperationException("AttestedTLS is for engines, which Spark and Jetty use.");
  }

  @Override
  protected SSLServerSocketFactory engineGetServerSocketFactory() {
    throw new UnsupportedOperationException("AttestedTLS is for engines, which Spark and Jetty use.");
  }

  // Nothing is kept in these; Jetty asks for them only to set their sizes.
  @Override
  protected SSLSessionContext engineGetServerSessionContext() {
    return fresh(checks.get()).getServerSessionContext();
  }

  @Override
  protected SSLSessionContext engineGetClientSessionContext() {
    return fresh(checks.get()).getClientSessionContext();
  }

  @Override
  protected SSLParameters engineGetDefaultSSLParameters() {
    return engineCreateSSLEngine().getSSLParameters();
  }

  @Override
  protected SSLParameters engineGetSupportedSSLParameters() {
    return engineCreateSSLEngine().getSSLParameters();
  }
}
