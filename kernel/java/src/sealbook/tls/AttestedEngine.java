package sealbook.tls;

import java.nio.ByteBuffer;
import java.util.List;
import java.util.function.BiFunction;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLEngineResult;
import javax.net.ssl.SSLEngineResult.HandshakeStatus;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSession;

/**
 * An engine of TLS 1.3 that always demands the peer's certificate, and passes nothing any more, in either
 * direction, once the peer's session or this node's certificate has ended.
 *
 * <p>An engine sees no channel to close: the connection ends with the next byte that either end sends. Spark's
 * nodes send heartbeats every few seconds; until then an idle connection carries nothing.
 */
final class AttestedEngine extends SSLEngine {
  private static final String[] PROTOCOLS = {"TLSv1.3"};
  private static final List<String> SUITES = List.of("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256");

  private static final String UNCHECKED = "The peer was not checked.";

  private final SSLEngine engine;
  private final PeerCheck check;
  private volatile boolean unchecked;

  AttestedEngine(SSLEngine engine, PeerCheck check) {
    this.engine = engine;
    this.check = check;
    harden();
  }

  private void harden() {
    SSLParameters parameters = engine.getSSLParameters();
    parameters.setProtocols(PROTOCOLS.clone());
    parameters.setCipherSuites(SUITES.toArray(String[]::new));
    parameters.setNeedClientAuth(true);
    parameters.setEndpointIdentificationAlgorithm(null); // see MemberCheck
    engine.setSSLParameters(parameters);
  }

  /** Refuse to go on when one of the two ends is no longer what it was at the handshake. */
  private void guard() throws SSLException {
    if (unchecked) {
      throw new SSLException(UNCHECKED);
    }
    String reason = check.hasAdmitted() ? check.ended() : null; // before: still in the handshake, see pass()
    if (reason != null) {
      throw new SSLException(reason);
    }
  }

  /** Let no application data through for a peer that was not checked; JSSE should never get that far. */
  private SSLEngineResult pass(SSLEngineResult result, int data) throws SSLException {
    boolean open = result.getHandshakeStatus() == HandshakeStatus.FINISHED || data > 0;
    if (open && !check.hasAdmitted()) {
      unchecked = true; // and nothing more from here on, whoever goes on all the same
      throw new SSLException(UNCHECKED);
    }
    return result;
  }

  private SSLException refused(SSLException cause) {
    // An alert is the peer refusing us, and what the check refused it has reported.
    String message = String.valueOf(cause.getMessage());
    if (!check.hasAdmitted() && !check.hasRefused() && !message.contains("Received ")) {
      check.report("The TLS handshake failed: " + message, null);
    }
    return cause;
  }

  @Override
  public SSLEngineResult wrap(ByteBuffer[] sources, int offset, int length, ByteBuffer target) throws SSLException {
    guard();
    try {
      SSLEngineResult result = engine.wrap(sources, offset, length, target);
      return pass(result, result.bytesConsumed());
    } catch (SSLException e) {
      throw refused(e);
    }
  }

  @Override
  public SSLEngineResult unwrap(ByteBuffer source, ByteBuffer[] targets, int offset, int length)
      throws SSLException {
    guard();
    try {
      SSLEngineResult result = engine.unwrap(source, targets, offset, length);
      return pass(result, result.bytesProduced());
    } catch (SSLException e) {
      throw refused(e);
    }
  }

  @Override
  public void setUseClientMode(boolean client) {
    engine.setUseClientMode(client);
    harden(); // JSSE resets some of it with the mode
  }

  @Override
  public void setSSLParameters(SSLParameters parameters) {
    engine.setSSLParameters(parameters);
    harden();
  }

  // Spark calls these with what its configuration says, and with false for client authentication.
  @Override
  public void setNeedClientAuth(boolean need) {
    harden();
  }

  @Override
  public void setWantClientAuth(boolean want) {
    harden();
  }

  @Override
  public void setEnabledProtocols(String[] protocols) {
    harden();
  }

  @Override
  public void setEnabledCipherSuites(String[] suites) {
    harden();
  }

  @Override
  public void setEnableSessionCreation(boolean flag) {
    engine.setEnableSessionCreation(true);
  }

  @Override
  public Runnable getDelegatedTask() {
    return engine.getDelegatedTask();
  }

  @Override
  public void closeInbound() throws SSLException {
    engine.closeInbound();
  }

  @Override
  public boolean isInboundDone() {
    return engine.isInboundDone();
  }

  @Override
  public void closeOutbound() {
    engine.closeOutbound();
  }

  @Override
  public boolean isOutboundDone() {
    return engine.isOutboundDone();
  }

  @Override
  public String[] getSupportedCipherSuites() {
    return SUITES.toArray(String[]::new);
  }

  @Override
  public String[] getEnabledCipherSuites() {
    return engine.getEnabledCipherSuites();
  }

  @Override
  public String[] getSupportedProtocols() {
    return PROTOCOLS.clone();
  }

  @Override
  public String[] getEnabledProtocols() {
    return engine.getEnabledProtocols();
  }

  @Override
  public SSLSession getSession() {
    return engine.getSession();
  }

  @Override
  public SSLSession getHandshakeSession() {
    return engine.getHandshakeSession();
  }

  @Override
  public void beginHandshake() throws SSLException {
    engine.beginHandshake();
  }

  @Override
  public HandshakeStatus getHandshakeStatus() {
    return engine.getHandshakeStatus();
  }

  @Override
  public boolean getUseClientMode() {
    return engine.getUseClientMode();
  }

  @Override
  public boolean getNeedClientAuth() {
    return engine.getNeedClientAuth();
  }

  @Override
  public boolean getWantClientAuth() {
    return engine.getWantClientAuth();
  }

  @Override
  public boolean getEnableSessionCreation() {
    return engine.getEnableSessionCreation();
  }

  @Override
  public SSLParameters getSSLParameters() {
    return engine.getSSLParameters();
  }

  @Override
  public String getApplicationProtocol() {
    return engine.getApplicationProtocol();
  }

  @Override
  public String getHandshakeApplicationProtocol() {
    return engine.getHandshakeApplicationProtocol();
  }

  @Override
  public void setHandshakeApplicationProtocolSelector(BiFunction<SSLEngine, List<String>, String> selector) {
    engine.setHandshakeApplicationProtocolSelector(
        selector == null ? null : (inner, names) -> selector.apply(this, names));
  }

  @Override
  public BiFunction<SSLEngine, List<String>, String> getHandshakeApplicationProtocolSelector() {
    return engine.getHandshakeApplicationProtocolSelector();
  }
}
