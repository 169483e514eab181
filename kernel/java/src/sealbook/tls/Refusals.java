package sealbook.tls;

import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.security.cert.X509Certificate;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.atomic.AtomicInteger;
import sealbook.Json;
import sealbook.keys.BrokerException;

/**
 * Tells the broker which peers were refused, for its audit log; never in the way of a connection.
 *
 * <p>Whoever can reach the port can cause refusals, so they are few per minute, and the same one once per minute.
 */
public final class Refusals {
  /** Where a report goes. */
  @FunctionalInterface
  public interface Sink {
    /** Send the body of POST /v1/event. */
    void send(com.fasterxml.jackson.databind.node.ObjectNode event) throws BrokerException;
  }

  private record Refusal(String reason, String peer) {}

  private static final int WAITING = 32;
  private static final int PER_MINUTE = 10;
  private static final long MINUTE = 60_000_000_000L;
  private static final int MAX_REASON = 500;

  private final Sink sink;
  private final BlockingQueue<Refusal> queue = new ArrayBlockingQueue<>(WAITING);
  private final Map<Refusal, Long> recent = new LinkedHashMap<>();
  private final AtomicInteger underWay = new AtomicInteger();

  /** Report to `sink` from a daemon thread. */
  public Refusals(Sink sink) {
    this.sink = sink;
    Thread thread = new Thread(this::run, "sealbook-refusals");
    thread.setDaemon(true);
    thread.start();
  }

  /** Report soon, or not at all if there was too much of it. */
  void report(String reason, X509Certificate peer) {
    Refusal refusal = new Refusal(printable(reason), fingerprint(peer));
    synchronized (recent) {
      long now = System.nanoTime();
      recent.values().removeIf(time -> now - time > MINUTE);
      if (recent.size() >= PER_MINUTE || recent.putIfAbsent(refusal, now) != null) {
        return;
      }
    }
    underWay.incrementAndGet();
    if (!queue.offer(refusal)) {
      underWay.decrementAndGet();
    }
  }

  /** Tell whether everything that was to be reported has been sent or given up. */
  boolean isIdle() {
    return underWay.get() == 0;
  }

  private void run() {
    try {
      while (true) {
        Refusal refusal = queue.take();
        var event = Json.object().put("action", "peer-refused");
        event.putObject("facts").put("reason", refusal.reason()).put("peer", refusal.peer());
        try {
          sink.send(event);
        } catch (BrokerException | RuntimeException e) {
          // The broker is away; its audit log goes without this one.
          continue;
        } finally {
          underWay.decrementAndGet();
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private static String fingerprint(X509Certificate peer) {
    try {
      return peer == null
          ? ""
          : HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(peer.getEncoded()));
    } catch (GeneralSecurityException e) {
      return "";
    }
  }

  private static String printable(String text) {
    String clean = text.replaceAll("\\p{Cntrl}+", " ");
    return clean.length() > MAX_REASON ? clean.substring(0, MAX_REASON) : clean;
  }
}
