package sealbook.tls;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.time.DateTimeException;
import java.time.OffsetDateTime;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import sealbook.Json;
import sealbook.keys.BrokerException;

/**
 * The cluster's living sessions, as the broker last listed them.
 *
 * <p>While the broker cannot be reached, the last list counts, each session until its known expiry. A session
 * that no list named is never alive.
 */
public final class Members {
  /** Where the list comes from. */
  @FunctionalInterface
  public interface Source {
    /** Return the answer to GET /v1/members. */
    JsonNode members() throws BrokerException;
  }

  private record Member(String role, long expires) {}

  /** Fetches for peers that the list does not have yet begin at most so often. */
  private static final long PAUSE_MILLIS = 200;

  private final Source source;
  private final Object fetching = new Object();
  private volatile Map<String, Member> members = Map.of();
  private volatile long begun = System.nanoTime() - TimeUnit.HOURS.toNanos(1);

  public Members(Source source) {
    this.source = source;
  }

  /** Fetch the list. */
  public void poll() throws IOException {
    synchronized (fetching) {
      begun = System.nanoTime();
      members = parse(source.members());
    }
  }

  /** Tell whether the last list had this session and it has not expired since. */
  boolean isAlive(String session) {
    Member member = members.get(session);
    return member != null && System.currentTimeMillis() < member.expires();
  }

  /**
   * Tell whether this session is alive in that role; a list as new as this question decides.
   *
   * <p>A node connects as soon as it has its certificate, so often before the next poll. Only who has the
   * cluster's membership tag gets to ask.
   */
  boolean admits(String session, String role) {
    Member member = members.get(session);
    if (member == null) {
      try {
        pollAfter(System.nanoTime());
      } catch (IOException e) {
        return false;
      }
      member = members.get(session);
    }
    return member != null && member.role().equals(role) && System.currentTimeMillis() < member.expires();
  }

  private void pollAfter(long asked) throws IOException {
    synchronized (fetching) {
      if (begun - asked >= 0) {
        return; // another thread fetched while this one waited
      }
      long wait = PAUSE_MILLIS - TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - begun);
      try {
        if (wait > 0) {
          Thread.sleep(wait);
        }
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new IOException("interrupted");
      }
      poll();
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
