package sealbook.tls;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.ByteBuffer;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import javax.net.ssl.KeyManager;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLEngineResult;
import javax.net.ssl.TrustManager;
import javax.net.ssl.X509ExtendedTrustManager;
import sealbook.Certificates;
import sealbook.Json;
import sealbook.keys.BrokerException;

/** Two TLS engines back to back: attested ones, or an attacker's that does as it likes. */
public final class TlsLab {
  private TlsLab() {}

  /** One end. */
  private static final class End {
    final SSLEngine engine;
    final List<String> reports = Collections.synchronizedList(new ArrayList<>());
    final AtomicReference<JsonNode> members = new AtomicReference<>();
    Identity identity;
    Refusals refusals;
    volatile boolean brokerDown;
    volatile boolean brokerRefuses;
    volatile int minutesLater;
    volatile int forgotten;
    String error;

    End(JsonNode q, boolean client) throws Exception {
      X509Certificate certificate = q.hasNonNull("certificate") ? Certificates.parse(q.get("certificate").textValue()) : null;
      PrivateKey key = certificate == null ? null : key(q.get("key").textValue());
      SSLContext context;
      if (q.path("attested").asBoolean()) {
        identity =
            new Identity(
                q.get("cluster").textValue(), q.get("role").textValue(), q.get("session").textValue(), key, certificate,
                Certificates.parse(q.get("ca").textValue()), Base64.getDecoder().decode(q.get("secret").textValue()));
        members.set(q.get("members"));
        Members list = new Members(
            limit -> {
              if (brokerDown || brokerRefuses) {
                throw failure(brokerRefuses);
              }
              return Json.object().set("members", members.get());
            },
            q.get("session").textValue(),
            () -> forgotten++,
            () -> System.nanoTime() + TimeUnit.MINUTES.toNanos(minutesLater));
        this.list = list;
        if (!q.path("unpolled").asBoolean()) {
          list.poll();
        }
        refusals = new Refusals(event -> reports.add(event.get("facts").get("reason").textValue()));
        context = SSLContext.getInstance(AttestedProvider.PROTOCOL, new AttestedProvider(identity, list, refusals));
        // As Spark does it: managers of its own, here the most harmful there are.
        context.init(new KeyManager[0], new TrustManager[] {new TrustAll()}, null);
      } else if (q.path("alone").asBoolean()) {
        context = SSLContext.getInstance(AttestedProvider.PROTOCOL, new AttestedProvider(certificate, key));
        context.init(null, null, null);
      } else {
        context = SSLContext.getInstance("TLS");
        KeyManager[] keys = certificate == null ? new KeyManager[0] : new KeyManager[] {new OwnKey(key, certificate)};
        context.init(keys, new TrustManager[] {new TrustAll()}, null);
      }
      if (q.path("unchecked").asBoolean()) { // as if JSSE had passed over the check
        SSLContext careless = SSLContext.getInstance("TLS");
        careless.init(new KeyManager[] {new OwnKey(key, certificate)}, new TrustManager[] {new TrustAll()}, null);
        engine =
            new AttestedEngine(careless.createSSLEngine(), new MemberCheck(identity, list, new Refusals(event -> {})));
        engine.setUseClientMode(client);
        return;
      }
      engine = q.path("with_peer").asBoolean() ? context.createSSLEngine("elsewhere.example", 7077) : context.createSSLEngine();
      engine.setUseClientMode(client);
      // What SSLFactory of Spark calls, in its order; for an attested end none of it may count.
      engine.setNeedClientAuth(!q.path("attested").asBoolean() && !client && q.path("need").asBoolean());
      engine.setEnabledProtocols(
          q.has("protocol") ? new String[] {q.get("protocol").textValue()} : new String[] {"TLSv1.3", "TLSv1.2"});
      if (q.path("attested").asBoolean()) {
        engine.setEnabledCipherSuites(new String[] {"TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"});
        engine.setWantClientAuth(false);
      }
    }

    Members list;
  }

  static BrokerException failure(boolean refuses) {
    try {
      if (refuses) {
        var refusal = BrokerException.class.getDeclaredMethod("refusal", String.class);
        refusal.setAccessible(true);
        return (BrokerException) refusal.invoke(null, "no");
      }
      var make = BrokerException.class.getDeclaredConstructor(String.class, boolean.class);
      make.setAccessible(true);
      return make.newInstance("down", true);
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException(e);
    }
  }

  private static PrivateKey key(String base64) throws Exception {
    return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(base64)));
  }

  /** Shake hands, send a word each way, do what `then` says, send again; say what came of it. */
  public static void answer(JsonNode q, ObjectNode answer) throws Exception {
    End client = new End(q.get("client"), true);
    End server = new End(q.get("server"), false);
    String word = exchange(client, server);
    answer.put("word", word);
    if (q.has("then")) {
      JsonNode then = q.get("then");
      for (End end : List.of(client, server)) {
        if (end.list != null) {
          end.brokerDown = then.path("broker_down").asBoolean();
          end.brokerRefuses = then.path("broker_refuses").asBoolean();
          end.minutesLater = then.path("minutes").asInt();
          if (then.has("members")) {
            end.members.set(then.get("members"));
          }
          Thread.sleep(then.path("sleep").asInt(0));
          try {
            end.list.poll();
          } catch (BrokerException e) {
            // as Upkeep does
          }
          if (then.has("certificate") && end == client) {
            end.identity.use(Certificates.parse(then.get("certificate").textValue()));
          }
        }
      }
      answer.put("afterwards", exchange(client, server));
      answer.put("client_forgot", client.forgotten).put("server_forgot", server.forgotten);
    }
    answer.put("client", client.error).put("server", server.error);
    answer.put("protocol", client.engine.getSession().getProtocol());
    answer.put("suite", client.engine.getSession().getCipherSuite());
    for (End end : List.of(client, server)) {
      while (end.refusals != null && !end.refusals.isIdle()) { // the reports come from a thread of their own
        Thread.sleep(5);
      }
    }
    for (String name : List.of("client", "server")) {
      ArrayNode list = answer.putArray(name + "_reports");
      (name.equals("client") ? client : server).reports.forEach(list::add);
    }
  }

  /** Move bytes until the word has gone both ways, or an end refuses; return "both", "to-server", "" ... */
  private static String exchange(End client, End server) {
    ByteBuffer toServer = ByteBuffer.allocate(1 << 16);
    ByteBuffer toClient = ByteBuffer.allocate(1 << 16);
    ByteBuffer atServer = ByteBuffer.allocate(1 << 16);
    ByteBuffer atClient = ByteBuffer.allocate(1 << 16);
    ByteBuffer wordOut = ByteBuffer.wrap("ping".getBytes());
    ByteBuffer wordBack = ByteBuffer.wrap("pong".getBytes());
    for (int i = 0; i < 60; i++) {
      step(client, wordOut, toServer, toClient, atClient);
      step(server, wordBack, toClient, toServer, atServer);
    }
    String at = new String(atServer.array(), 0, atServer.position());
    String back = new String(atClient.array(), 0, atClient.position());
    return at + back;
  }

  private static void step(End end, ByteBuffer word, ByteBuffer out, ByteBuffer in, ByteBuffer app) {
    try {
      in.flip();
      if (in.hasRemaining() && !end.engine.isInboundDone()) {
        run(end.engine.unwrap(in, app), end.engine);
      }
      in.compact();
      if (!end.engine.isOutboundDone()) {
        run(end.engine.wrap(word, out), end.engine);
      }
    } catch (Exception e) {
      if (in.limit() != in.capacity()) {
        in.compact();
      }
      if (end.error == null) {
        Throwable root = e;
        while (root.getCause() != null) {
          root = root.getCause();
        }
        end.error = root.getMessage();
      }
    }
  }

  private static void run(SSLEngineResult result, SSLEngine engine) {
    if (result.getHandshakeStatus() == SSLEngineResult.HandshakeStatus.NEED_TASK) {
      Runnable task;
      while ((task = engine.getDelegatedTask()) != null) {
        task.run();
      }
    }
  }

  /** What Spark uses where the trust store is missing. */
  private static final class TrustAll extends X509ExtendedTrustManager {
    @Override
    public void checkClientTrusted(X509Certificate[] c, String t) {}

    @Override
    public void checkServerTrusted(X509Certificate[] c, String t) {}

    @Override
    public void checkClientTrusted(X509Certificate[] c, String t, java.net.Socket s) {}

    @Override
    public void checkServerTrusted(X509Certificate[] c, String t, java.net.Socket s) {}

    @Override
    public void checkClientTrusted(X509Certificate[] c, String t, SSLEngine e) {}

    @Override
    public void checkServerTrusted(X509Certificate[] c, String t, SSLEngine e) {}

    @Override
    public X509Certificate[] getAcceptedIssuers() {
      return new X509Certificate[0];
    }
  }
}
