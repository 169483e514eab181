package sealbook.tls;

import java.net.Socket;
import java.security.GeneralSecurityException;
import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.X509ExtendedTrustManager;

/** Decides about the peer of one connection, the same in both directions, and remembers what it decided. */
public abstract class PeerCheck extends X509ExtendedTrustManager {
  private final X509Certificate accepted;
  private volatile boolean admitted;
  private volatile boolean refused;

  /** `accepted` is what peers are told to have a certificate from. */
  PeerCheck(X509Certificate accepted) {
    this.accepted = accepted;
  }

  /** Refuse the chain, whose first certificate is `leaf`, with a sentence, or return. */
  abstract void verify(X509Certificate[] chain, X509Certificate leaf) throws GeneralSecurityException;

  /** Return why a connection that was admitted must end now, else null. */
  abstract String ended();

  /** Tell the broker, where there is one. */
  abstract void report(String reason, X509Certificate peer);

  /** Whether the peer passed. */
  final boolean hasAdmitted() {
    return admitted;
  }

  /** Whether a peer was refused, and reported, here. */
  final boolean hasRefused() {
    return refused;
  }

  private void check(X509Certificate[] chain) throws CertificateException {
    X509Certificate leaf = chain == null || chain.length == 0 ? null : chain[0];
    try {
      if (leaf == null) {
        throw new CertificateException("The peer has no certificate.");
      }
      verify(chain, leaf);
      admitted = true;
    } catch (CertificateException e) {
      refused = true;
      report(e.getMessage(), leaf);
      throw e;
    } catch (GeneralSecurityException | RuntimeException e) {
      refused = true;
      report("The peer's certificate could not be checked.", leaf);
      throw new CertificateException("The peer's certificate could not be checked.");
    }
  }

  @Override
  public final void checkClientTrusted(X509Certificate[] chain, String type, SSLEngine engine) throws CertificateException {
    check(chain);
  }

  @Override
  public final void checkServerTrusted(X509Certificate[] chain, String type, SSLEngine engine) throws CertificateException {
    check(chain);
  }

  @Override
  public final void checkClientTrusted(X509Certificate[] chain, String type, Socket socket) throws CertificateException {
    check(chain);
  }

  @Override
  public final void checkServerTrusted(X509Certificate[] chain, String type, Socket socket) throws CertificateException {
    check(chain);
  }

  @Override
  public final void checkClientTrusted(X509Certificate[] chain, String type) throws CertificateException {
    check(chain);
  }

  @Override
  public final void checkServerTrusted(X509Certificate[] chain, String type) throws CertificateException {
    check(chain);
  }

  @Override
  public final X509Certificate[] getAcceptedIssuers() {
    return new X509Certificate[] {accepted};
  }
}
