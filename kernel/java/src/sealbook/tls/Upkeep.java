package sealbook.tls;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.security.GeneralSecurityException;
import java.security.cert.X509Certificate;
import java.util.List;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import sealbook.Certificates;
import sealbook.Json;
import sealbook.keys.BrokerConnection;

/** What goes on beside Spark: the member list is polled, certificates are renewed at half their life. */
public final class Upkeep {
  private final Identity own;
  private final Members members;
  private final List<BrokerConnection> brokers;
  private final int pollSeconds;

  /** Keep this node's certificates, one from each broker, the first for Spark's connections too. */
  public Upkeep(Identity own, Members members, List<BrokerConnection> brokers, int pollSeconds) {
    this.own = own;
    this.members = members;
    this.brokers = brokers;
    this.pollSeconds = pollSeconds;
  }

  /** Start two daemon threads: a renewal that waits must not hold up the list. */
  public void start() {
    thread("sealbook-members", this::pollQuietly);
    thread("sealbook-renewal", this::renewQuietly);
  }

  private void thread(String name, Runnable step) {
    Thread thread =
        new Thread(
            () -> {
              try {
                while (true) {
                  TimeUnit.SECONDS.sleep(pollSeconds);
                  step.run();
                }
              } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
              }
            },
            name);
    thread.setDaemon(true);
    thread.start();
  }

  private void pollQuietly() {
    try {
      members.poll();
    } catch (IOException | RuntimeException e) {
      // The next one may succeed. What this one means for the list, Members has decided: a refusal empties it, and
      // without an answer it counts for a while.
      return;
    }
  }

  private void renewQuietly() {
    for (BrokerConnection broker : brokers) {
      try {
        if (isDue(broker.certificate())) {
          renew(broker);
        }
      } catch (IOException | GeneralSecurityException | RuntimeException e) {
        // Tried again at the next step. A session that the broker ended is never renewed: it is in no list of
        // members any more, and its certificate expires.
        continue;
      }
    }
  }

  private static boolean isDue(X509Certificate certificate) {
    long begin = certificate.getNotBefore().getTime();
    long end = certificate.getNotAfter().getTime();
    return System.currentTimeMillis() > begin + (end - begin) / 2;
  }

  /** Renew now. */
  void renew(BrokerConnection broker) throws IOException, GeneralSecurityException {
    JsonNode answer = broker.post("/v1/renew", Json.object());
    Json.fields(answer, Set.of("certificate", "expires"), Set.of());
    X509Certificate renewed = Certificates.parse(Json.text(answer, "certificate"));
    broker.use(renewed);
    if (broker.owner().isEmpty()) {
      own.use(renewed);
    }
  }
}
