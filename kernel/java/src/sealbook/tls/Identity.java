package sealbook.tls;

import java.security.GeneralSecurityException;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;

/** Who this node is: its key, its certificate as last renewed, and what it holds its peers to. */
public final class Identity {
  final String cluster;
  final String role;
  final String session;
  final PrivateKey key;
  final X509Certificate ca;
  final byte[] clusterSecret;
  private volatile X509Certificate certificate;

  public Identity(
      String cluster, String role, String session, PrivateKey key, X509Certificate certificate, X509Certificate ca,
      byte[] clusterSecret) {
    this.cluster = cluster;
    this.role = role;
    this.session = session;
    this.key = key;
    this.certificate = certificate;
    this.ca = ca;
    this.clusterSecret = clusterSecret.clone();
  }

  /** The certificate for new connections. */
  public X509Certificate certificate() {
    return certificate;
  }

  /** Use this certificate for new connections: it was renewed. */
  public void use(X509Certificate renewed) throws GeneralSecurityException {
    if (!renewed.getPublicKey().equals(certificate.getPublicKey())) {
      throw new GeneralSecurityException("a renewed certificate is for another key");
    }
    certificate = renewed;
  }
}
