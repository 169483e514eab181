package sealbook.tls;

import static sealbook.Run.require;

import java.security.cert.X509Certificate;
import java.util.Arrays;
import java.util.List;
import java.util.function.Consumer;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLParameters;

public final class AttestedEngineTest {
  private AttestedEngineTest() {}

  private static PeerCheck check() {
    return new PeerCheck(null) {
      @Override
      void verify(X509Certificate[] chain, X509Certificate leaf) {}

      @Override
      String ended() {
        return null;
      }

      @Override
      void report(String reason, X509Certificate peer) {}
    };
  }

  private static void lax(SSLEngine engine) {
    SSLParameters parameters = new SSLParameters();
    parameters.setProtocols(new String[] {"TLSv1.3", "TLSv1.2"});
    parameters.setCipherSuites(new String[] {"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "TLS_AES_128_GCM_SHA256"});
    parameters.setWantClientAuth(true);
    engine.setSSLParameters(parameters);
  }

  public static void each_thing_that_may_be_asked_of_an_engine_leaves_it_as_strict() throws Exception {
    List<Consumer<SSLEngine>> wishes = List.of(
        engine -> {},
        engine -> engine.setUseClientMode(true),
        engine -> engine.setUseClientMode(false),
        engine -> engine.setNeedClientAuth(false),
        engine -> engine.setWantClientAuth(true),
        engine -> engine.setWantClientAuth(false),
        engine -> engine.setEnabledProtocols(new String[] {"TLSv1.3", "TLSv1.2"}),
        engine -> engine.setEnabledCipherSuites(new String[] {"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"}),
        engine -> engine.setEnableSessionCreation(false),
        AttestedEngineTest::lax);
    for (boolean client : new boolean[] {true, false}) {
      for (int i = 0; i < wishes.size(); i++) {
        SSLEngine plain = SSLContext.getDefault().createSSLEngine();
        plain.setUseClientMode(client);
        SSLEngine engine = new AttestedEngine(plain, check());
        wishes.get(i).accept(engine);
        String what = "wish " + i + (client ? " of a client" : " of a server");
        require(Arrays.equals(plain.getEnabledProtocols(), new String[] {"TLSv1.3"}), what + ": protocols");
        require(
            Arrays.equals(
                plain.getEnabledCipherSuites(), new String[] {"TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"}),
            what + ": suites");
        require(plain.getNeedClientAuth(), what + ": client authentication");
        require(plain.getEnableSessionCreation(), what + ": sessions");
        require(plain.getSSLParameters().getEndpointIdentificationAlgorithm() == null, what + ": names");
      }
    }
  }
}
