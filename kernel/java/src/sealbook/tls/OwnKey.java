package sealbook.tls;

import java.net.Socket;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.X509ExtendedKeyManager;

/** One key with its certificate, in both directions, whatever the peer asks for. */
public final class OwnKey extends X509ExtendedKeyManager {
  private static final String ALIAS = "own";
  private static final String[] ALIASES = {ALIAS};

  private final PrivateKey key;
  private final X509Certificate certificate;

  public OwnKey(PrivateKey key, X509Certificate certificate) {
    this.key = key;
    this.certificate = certificate;
  }

  private String alias(String... types) {
    for (String type : types) {
      if (type.equals(key.getAlgorithm())) {
        return ALIAS;
      }
    }
    return null;
  }

  @Override
  public String chooseEngineClientAlias(String[] types, Principal[] issuers, SSLEngine engine) {
    return alias(types);
  }

  @Override
  public String chooseEngineServerAlias(String type, Principal[] issuers, SSLEngine engine) {
    return alias(type);
  }

  @Override
  public String chooseClientAlias(String[] types, Principal[] issuers, Socket socket) {
    return alias(types);
  }

  @Override
  public String chooseServerAlias(String type, Principal[] issuers, Socket socket) {
    return alias(type);
  }

  @Override
  public String[] getClientAliases(String type, Principal[] issuers) {
    return ALIASES.clone();
  }

  @Override
  public String[] getServerAliases(String type, Principal[] issuers) {
    return ALIASES.clone();
  }

  @Override
  public X509Certificate[] getCertificateChain(String alias) {
    return new X509Certificate[] {certificate};
  }

  @Override
  public PrivateKey getPrivateKey(String alias) {
    return key;
  }
}
