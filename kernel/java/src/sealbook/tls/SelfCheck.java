package sealbook.tls;

import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;

/** Admits whoever has this very identity: the same process, or the one other that shares it. */
public final class SelfCheck extends PeerCheck {
  private final X509Certificate own;

  public SelfCheck(X509Certificate own) {
    super(own);
    this.own = own;
  }

  @Override
  void verify(X509Certificate[] chain, X509Certificate leaf) throws GeneralSecurityException {
    if (chain.length != 1 || !MessageDigest.isEqual(leaf.getEncoded(), own.getEncoded())) {
      throw new CertificateException("The peer is not the one that this was made for.");
    }
    leaf.checkValidity();
  }

  @Override
  String ended() {
    return null; // both ends are one program, or child and parent: nobody else can end the one
  }

  @Override
  void report(String reason, X509Certificate peer) {
    // There is no broker.
  }
}
