package sealbook.tls;

import java.security.GeneralSecurityException;
import java.security.cert.CertPathValidator;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.PKIXParameters;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.List;
import java.util.Set;
import sealbook.Json;

/**
 * Admits the members of a cluster: issued by the cluster's node CA, valid now, of this
 * cluster, with a Spark role, made with the cluster's secret, and alive in the broker's list.
 * For a peer that the list does not have yet the broker is asked, within the handshake and for a few seconds at
 * most; if it does not answer in time the peer is refused, and may try again.
 *
 * <p>No host name is compared. Spark gives its engines none (SSLFactory calls createSSLEngine() without one, and
 * neither Spark nor netty's SslHandler tells the engine later), so there is nothing to compare with. What a
 * host name would say, that this is the machine one meant, counts for little where the machines' owner is not
 * trusted: he owns the names too. What counts, that the peer runs admitted code and belongs to this
 * cluster, is in the certificate; whichever member a connection is led to, it is one that may see the data.
 */
final class MemberCheck extends PeerCheck {
  /** As X509Certificate.getExtendedKeyUsage gives them: server and client. */
  private static final Set<String> USAGES = Set.of("1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2");

  private final Identity own;
  private final Members members;
  private final Refusals refusals;
  private volatile String session;

  MemberCheck(Identity own, Members members, Refusals refusals) {
    super(own.ca);
    this.own = own;
    this.members = members;
    this.refusals = refusals;
  }

  @Override
  String ended() {
    if (!members.isMember()) {
      return "This node is no member of its cluster any more, or its broker has not answered for too long; its"
          + " connections end.";
    }
    if (!members.isAlive(session)) {
      return "The peer's session has ended or was revoked; this connection ends with it.";
    }
    try {
      own.certificate().checkValidity();
    } catch (CertificateException e) {
      return "This node's certificate has expired and was not renewed; its connections end.";
    }
    return null;
  }

  @Override
  void report(String reason, X509Certificate peer) {
    refusals.report(reason, peer);
  }

  @Override
  void verify(X509Certificate[] chain, X509Certificate leaf) throws GeneralSecurityException {
    if (chain.length > 2 || (chain.length == 2 && !chain[1].equals(own.ca))) {
      throw new CertificateException("The peer's certificate chain is not a leaf of the cluster's CA.");
    }
    issued(leaf);
    NodeExtension node;
    try {
      node = NodeExtension.of(leaf);
    } catch (Json.MalformedException e) {
      throw new CertificateException("The peer's certificate says nothing of attestation.");
    }
    if (!node.cluster.equals(own.cluster)) {
      throw new CertificateException("The peer belongs to another cluster.");
    }
    if (!NodeExtension.ROLES.contains(node.role)) {
      throw new CertificateException("The peer has no role in a Spark cluster.");
    }
    if (!node.isMember(own.clusterSecret, leaf.getPublicKey())) {
      throw new CertificateException("The peer's membership tag was not made with this cluster's secret.");
    }
    if (!members.admits(node.session, node.role)) {
      throw new CertificateException("The peer's session has ended, was revoked or is not known to the broker.");
    }
    session = node.session;
  }

  private void issued(X509Certificate leaf) throws GeneralSecurityException {
    try {
      leaf.checkValidity();
      own.ca.checkValidity(); // PKIX does not look at a trust anchor's
    } catch (CertificateException e) {
      throw new CertificateException("The peer's certificate, or the cluster's CA, is not valid at this time.");
    }
    try {
      // The anchor is the one certificate of the node CA. No store of this JVM or machine has a say.
      PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(own.ca, null)));
      parameters.setRevocationEnabled(false); // revoked is whose session the broker does not list
      CertPathValidator.getInstance("PKIX")
          .validate(CertificateFactory.getInstance("X.509").generateCertPath(List.of(leaf)), parameters);
    } catch (GeneralSecurityException e) {
      throw new CertificateException("The peer's certificate was not issued by this cluster's CA.");
    }
    boolean[] usage = leaf.getKeyUsage();
    List<String> extended = leaf.getExtendedKeyUsage();
    if (leaf.getBasicConstraints() >= 0
        || (usage != null && !usage[0])
        || extended == null
        || !USAGES.equals(Set.copyOf(extended))) {
      throw new CertificateException("The peer's certificate is not one of a node.");
    }
  }
}
