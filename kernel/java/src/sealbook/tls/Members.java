package sealbook.tls;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.time.DateTimeException;
import java.time.Duration;
import java.time.OffsetDateTime;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.LongSupplier;
import sealbook.Json;
import sealbook.keys.BrokerException;

/**
 * The cluster's living sessions, as the broker last listed them.
 *
 * <p>A broker that says no (the cluster has a new secret or is gone, this node was revoked) has emptied the list:
 * this node has no peers from then on. While the broker cannot be reached, the last list counts, for
 * {@link #LONGEST} and each session until its known expiry. A session that no list named is never alive, and a list
 * that does not name this node itself names nobody.
 */
public final class Members {
  /** Where the list comes from. */
  @FunctionalInterface
  public interface Source {
    /** Return the answer to GET /v1/members, or wait no longer than `limit`. */
    JsonNode members(Duration limit) throws BrokerException;
  }

  /**
   * How long a list counts without a newer one. A broker that restarts, or its machine, is back within minutes, and
   * jobs go on; a host that cuts a node off from its broker keeps revoked peers for so long and no longer. Measured
   * with the clock that only goes on: the other one is set by whoever has the machine.
   */
  public static final Duration LONGEST = Duration.ofMinutes(10);

  /** How long an ordinary fetch may take. */
  public static final Duration PATIENCE = Duration.ofSeconds(20);

  /**
   * How long a handshake waits for a newer list in all. It holds up a thread that has other connections to serve;
   * who is refused for this connects again.
   */
  static final Duration HANDSHAKE = Duration.ofSeconds(4);

  private record Member(String role, long expires) {}

  /** What one fetch brought; `begun` is when it began, in nanoseconds. */
  private record Listing(Map<String, Member> members, long begun) {}

  /** Fetches for peers that the list does not have yet begin at most so often. */
  private static final long PAUSE_MILLIS = 200;

  private final Source source;
  private final String own;
  private final Runnable ended;
  private final LongSupplier nanos;
  private final ReentrantLock fetching = new ReentrantLock();
  private volatile Listing listing;
  private volatile long begun;

  /**
   * Begin without a list.
   *
   * @param own the session of this node
   * @param ended called when this node is told, or has to assume, that it is no member any more
   */
  public Members(Source source, String own, Runnable ended) {
    this(source, own, ended, System::nanoTime);
  }

  Members(Source source, String own, Runnable ended, LongSupplier nanos) {
    this.source = source;
    this.own = own;
    this.ended = ended;
    this.nanos = nanos;
    this.begun = nanos.getAsLong() - TimeUnit.HOURS.toNanos(1);
    this.listing = new Listing(Map.of(), begun);
  }

  /** Fetch the list. */
  public void poll() throws IOException {
    fetching.lock();
    try {
      fetch(PATIENCE);
    } finally {
      fetching.unlock();
    }
  }

  private void fetch(Duration limit) throws IOException {
    begun = nanos.getAsLong();
    try {
      Map<String, Member> found = parse(source.members(limit));
      // Revoked, or turned out by a policy that was changed: then the others are no peers either.
      use(found.containsKey(own) ? found : Map.of());
    } catch (BrokerException e) {
      if (e.isRefusal() || !isFresh()) {
        use(Map.of());
      }
      throw e;
    }
  }

  private void use(Map<String, Member> found) {
    boolean before = !listing.members().isEmpty();
    listing = new Listing(found, begun);
    if (before && found.isEmpty()) {
      ended.run();
    }
  }

  private boolean isFresh() {
    return nanos.getAsLong() - listing.begun() < LONGEST.toNanos();
  }

  /** Return what the list says of a session, if the list still counts and the session has not expired since. */
  private Member find(String session) {
    Member member = listing.members().get(session);
    return member != null && isFresh() && System.currentTimeMillis() < member.expires() ? member : null;
  }

  /** Tell whether the last list had this session and it has not expired since. */
  boolean isAlive(String session) {
    return find(session) != null;
  }

  /** Tell whether the broker still counts this node itself, as far as is known. */
  boolean isMember() {
    return isFresh() && listing.members().containsKey(own);
  }

  /**
   * Tell whether this session is alive in that role; a list as new as this question decides.
   *
   * <p>A node connects as soon as it has its certificate, so often before the next poll. Only who has the
   * cluster's membership tag gets to ask.
   */
  boolean admits(String session, String role) {
    if (!listing.members().containsKey(session)) {
      try {
        pollAfter(nanos.getAsLong());
      } catch (IOException e) {
        return false;
      }
    }
    Member member = find(session);
    return member != null && member.role().equals(role);
  }

  private void pollAfter(long asked) throws IOException {
    long end = System.nanoTime() + HANDSHAKE.toNanos();
    try {
      if (!fetching.tryLock(HANDSHAKE.toNanos(), TimeUnit.NANOSECONDS)) {
        throw new IOException("the broker takes too long");
      }
      try {
        if (begun - asked >= 0) {
          return; // another thread fetched while this one waited
        }
        long wait = PAUSE_MILLIS - TimeUnit.NANOSECONDS.toMillis(nanos.getAsLong() - begun);
        if (wait > 0) {
          Thread.sleep(wait);
        }
        fetch(Duration.ofNanos(Math.max(1, end - System.nanoTime())));
      } finally {
        fetching.unlock();
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted");
    }
  }

  private static Map<String, Member> parse(JsonNode answer) throws IOException {
    Json.fields(answer, Set.of("members"), Set.of());
    Map<String, Member> parsed = new HashMap<>();
    try {
      if (!answer.get("members").isArray()) {
        throw new Json.MalformedException("not a list");
      }
      for (JsonNode item : answer.get("members")) {
        Json.fields(item, Set.of("session", "role", "expires"), Set.of());
        long expires = OffsetDateTime.parse(Json.text(item, "expires")).toInstant().toEpochMilli();
        parsed.put(Json.text(item, "session"), new Member(Json.text(item, "role"), expires));
      }
    } catch (DateTimeException e) {
      throw new Json.MalformedException("not a time");
    }
    return Map.copyOf(parsed);
  }
}
