package sealbook.keys;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.SecureRandom;
import java.security.cert.Certificate;
import java.security.cert.X509Certificate;
import java.time.Duration;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Flow;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.TrustManagerFactory;
import sealbook.Json;

/**
 * HTTPS to one broker: TLS 1.3, the broker's CA and no other, this node's certificate, bounded answers.
 *
 * <p>The host name in the URL is checked, as HttpClient always does: here, other than in Spark's own
 * connections, it is known.
 */
public final class BrokerConnection {
  /** Longest answer. */
  static final int MAX_ANSWER = 256 * 1024;

  /** How long callers go on asking a broker that is down or busy. */
  public static final Duration PATIENCE = Duration.ofSeconds(60);

  private static final Duration CONNECT = Duration.ofSeconds(5);
  private static final Duration ANSWER = Duration.ofSeconds(15);
  private static final Duration LONGEST = ANSWER.plus(CONNECT);
  private static final Duration PAUSE = Duration.ofMillis(500);
  private static final int MAX_SENTENCE = 500;

  /** Codes of answers that mean that this node gets nothing here; the others are about the request or the moment. */
  private static final Set<String> REFUSALS = Set.of("refused", "expired");

  static {
    // Servers drop idle connections after some seconds (uvicorn: 5). A request that is sent just then is
    // lost; HttpClient must have dropped the connection before.
    if (System.getProperty("jdk.httpclient.keepalive.timeout") == null) {
      System.setProperty("jdk.httpclient.keepalive.timeout", "2");
    }
  }

  private final String owner;
  private final URI url;
  private final X509Certificate ca;
  private final PrivateKey key;
  private final byte[] reportData;
  private volatile HttpClient client;
  private volatile X509Certificate certificate;

  /** Prepare for talking to the broker at `url`; nothing is sent yet. */
  public BrokerConnection(
      String owner, URI url, X509Certificate ca, X509Certificate certificate, PrivateKey key, byte[] reportData)
      throws GeneralSecurityException {
    this.owner = owner;
    this.url = url;
    this.ca = ca;
    this.key = key;
    this.reportData = reportData.clone();
    use(certificate);
  }

  /** The first part of the names of this broker's keys; empty for the home broker. */
  public String owner() {
    return owner;
  }

  /** What the attestation to this broker bound: part of the context of what it encrypts to this node. */
  byte[] reportData() {
    return reportData.clone();
  }

  /** The certificate that this node shows to this broker. */
  public X509Certificate certificate() {
    return certificate;
  }

  /** Show this certificate from now on: it was renewed. */
  public void use(X509Certificate renewed) throws GeneralSecurityException {
    if (!renewed.getPublicKey().equals(certificate == null ? renewed.getPublicKey() : certificate.getPublicKey())) {
      throw new GeneralSecurityException("a renewed certificate is for another key");
    }
    // A new client has new connections: the old ones would go on showing the old certificate.
    client = client(renewed);
    certificate = renewed;
  }

  /** POST once. */
  public JsonNode post(String path, ObjectNode body) throws BrokerException {
    return send(path, body, LONGEST);
  }

  /** GET once. */
  public JsonNode get(String path) throws BrokerException {
    return send(path, null, LONGEST);
  }

  /** GET once, and wait no longer than `limit` for all of the answer. */
  public JsonNode get(String path, Duration limit) throws BrokerException {
    return send(path, null, limit);
  }

  /** POST, and as long as the broker is down or busy again, up to {@link #PATIENCE}. */
  public JsonNode postPatiently(String path, ObjectNode body) throws BrokerException {
    return patiently(path, body);
  }

  /** GET, and as long as the broker is down or busy again, up to {@link #PATIENCE}. */
  public JsonNode getPatiently(String path) throws BrokerException {
    return patiently(path, null);
  }

  private JsonNode patiently(String path, ObjectNode body) throws BrokerException {
    long end = System.nanoTime() + PATIENCE.toNanos();
    while (true) {
      try {
        return send(path, body, LONGEST);
      } catch (BrokerException e) {
        if (!e.isTemporary()) {
          throw e;
        }
        if (end - System.nanoTime() < PAUSE.toNanos()) {
          throw new BrokerException(
              "The broker at " + place() + " did not answer for " + PATIENCE.toSeconds()
                  + " seconds; look whether it runs and try again. Last: " + e.getMessage(),
              true);
        }
      }
      try {
        TimeUnit.NANOSECONDS.sleep(PAUSE.toNanos());
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new BrokerException("Waiting for the broker at " + place() + " was interrupted.", false);
      }
    }
  }

  private JsonNode send(String path, ObjectNode body, Duration limit) throws BrokerException {
    HttpResponse<byte[]> response;
    CompletableFuture<HttpResponse<byte[]>> future = null;
    try {
      HttpRequest.Builder request = HttpRequest.newBuilder(url.resolve(path)).timeout(ANSWER);
      if (body == null) {
        request.GET();
      } else {
        request
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofByteArray(Json.canonical(body)));
      }
      // The request's own time-out ends with the headers; this one with the last byte.
      future = client.sendAsync(request.build(), info -> new BoundedBody());
      response = future.get(limit.toMillis(), TimeUnit.MILLISECONDS);
    } catch (ExecutionException e) {
      throw failure(e.getCause());
    } catch (IOException | TimeoutException e) {
      future.cancel(true);
      throw failure(e);
    } catch (InterruptedException e) {
      future.cancel(true);
      Thread.currentThread().interrupt();
      throw new BrokerException("Waiting for the broker at " + place() + " was interrupted.", false);
    }
    JsonNode answer;
    try {
      answer = Json.parse(response.body(), MAX_ANSWER);
    } catch (IOException e) {
      throw new BrokerException(
          "The broker at " + place() + " answered with what is not JSON (HTTP " + response.statusCode() + ").",
          response.statusCode() >= 500);
    }
    if (response.statusCode() == 200) {
      return answer;
    }
    int status = response.statusCode();
    String sentence = answer.path("error").isTextual() ? answer.get("error").textValue() : "HTTP " + status;
    if (status == 403 && REFUSALS.contains(answer.path("code").asText())) {
      throw BrokerException.refusal(printable(sentence));
    }
    throw new BrokerException(printable(sentence), status == 429 || status == 502 || status == 503 || status == 504);
  }

  private BrokerException failure(Throwable cause) {
    if (cause instanceof javax.net.ssl.SSLException) {
      // Not temporary in itself, but a broker that restarts may cut a handshake too.
      return new BrokerException(
          "No trusted connection to the broker at " + place() + "; it is another one, or refuses this node ("
              + printable(String.valueOf(cause.getMessage())) + ").",
          true);
    }
    return new BrokerException(
        "The broker at " + place() + " cannot be reached (" + cause.getClass().getSimpleName() + ").", true);
  }

  private String place() {
    return url.getPort() < 0 ? url.getHost() : url.getHost() + ":" + url.getPort();
  }

  private static String printable(String text) {
    String clean = text.replaceAll("\\p{Cntrl}+", " ");
    return clean.length() > MAX_SENTENCE ? clean.substring(0, MAX_SENTENCE) : clean;
  }

  private HttpClient client(X509Certificate leaf) throws GeneralSecurityException {
    char[] none = new char[0];
    KeyStore own = emptyStore();
    own.setKeyEntry("node", key, none, new Certificate[] {leaf});
    KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
    keys.init(own, none);
    KeyStore anchors = emptyStore();
    anchors.setCertificateEntry("broker", ca);
    TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
    trust.init(anchors);
    SSLContext context = SSLContext.getInstance("TLSv1.3");
    context.init(keys.getKeyManagers(), trust.getTrustManagers(), new SecureRandom());
    SSLParameters parameters = new SSLParameters();
    parameters.setProtocols(new String[] {"TLSv1.3"});
    return HttpClient.newBuilder()
        .version(HttpClient.Version.HTTP_1_1)
        .followRedirects(HttpClient.Redirect.NEVER)
        // Whatever proxy this JVM was told of: the broker is reached directly or not at all.
        .proxy(HttpClient.Builder.NO_PROXY)
        .connectTimeout(CONNECT)
        .sslContext(context)
        .sslParameters(parameters)
        .build();
  }

  /** A key store that never leaves memory. */
  static KeyStore emptyStore() throws GeneralSecurityException {
    KeyStore store = KeyStore.getInstance("PKCS12");
    try {
      store.load(null, null);
    } catch (IOException e) {
      throw new GeneralSecurityException(e);
    }
    return store;
  }

  /** Collects a body up to {@link #MAX_ANSWER} bytes and fails beyond. */
  private static final class BoundedBody implements HttpResponse.BodySubscriber<byte[]> {
    private final CompletableFuture<byte[]> result = new CompletableFuture<>();
    private final ByteArrayOutputStream collected = new ByteArrayOutputStream();
    private Flow.Subscription subscription;

    @Override
    public CompletionStage<byte[]> getBody() {
      return result;
    }

    @Override
    public void onSubscribe(Flow.Subscription given) {
      subscription = given;
      given.request(Long.MAX_VALUE);
    }

    @Override
    public void onNext(List<ByteBuffer> buffers) {
      for (ByteBuffer buffer : buffers) {
        if (collected.size() + buffer.remaining() > MAX_ANSWER) {
          subscription.cancel();
          result.completeExceptionally(new IOException("too long an answer"));
          return;
        }
        byte[] piece = new byte[buffer.remaining()];
        buffer.get(piece);
        collected.writeBytes(piece);
      }
    }

    @Override
    public void onError(Throwable error) {
      result.completeExceptionally(error);
    }

    @Override
    public void onComplete() {
      result.complete(collected.toByteArray());
    }
  }
}
