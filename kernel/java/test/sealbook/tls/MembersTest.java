package sealbook.tls;

import static sealbook.Run.refused;
import static sealbook.Run.require;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.time.Duration;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import sealbook.Json;

public final class MembersTest {
  private MembersTest() {}

  private static JsonNode list(String... sessions) {
    var answer = Json.object();
    var members = answer.putArray("members");
    for (String session : sessions) {
      members.addObject().put("session", session).put("role", "spark-worker")
          .put("expires", OffsetDateTime.now().plusHours(1).toString());
    }
    return answer;
  }

  private static long minutes(long number) {
    return Duration.ofMinutes(number).toNanos();
  }

  public static void the_age_of_a_list_counts_from_when_it_was_asked_for() throws Exception {
    AtomicLong now = new AtomicLong(5);
    AtomicInteger ended = new AtomicInteger();
    boolean[] down = {false};
    Members members = new Members(limit -> {
      if (down[0]) {
        throw TlsLab.failure(false);
      }
      now.addAndGet(minutes(3)); // an answer that the host holds back
      return list("own", "peer");
    }, "own", ended::incrementAndGet, now::get);
    require(!members.isAlive("peer"), "before the first list");
    members.poll();
    require(members.isAlive("peer") && members.isMember(), "fresh");
    down[0] = true;
    now.addAndGet(minutes(6));
    refused(IOException.class, members::poll);
    require(members.isAlive("peer") && members.admits("peer", "spark-worker"), "nine minutes");
    require(ended.get() == 0, "ended early");
    now.addAndGet(minutes(1));
    require(!members.isAlive("peer") && !members.isMember(), "ten minutes");
    require(!members.admits("peer", "spark-worker"), "admitted after ten minutes");
    require(ended.get() == 0, "told before it was asked");
    refused(IOException.class, members::poll);
    refused(IOException.class, members::poll);
    require(ended.get() == 1, "not told once");
    down[0] = false;
    members.poll();
    require(members.isAlive("peer"), "the broker is back");
  }

  public static void a_refusal_empties_the_list_at_once_and_keeps_it_empty() throws Exception {
    AtomicInteger ended = new AtomicInteger();
    boolean[] refuses = {false};
    Members members = new Members(limit -> {
      if (refuses[0]) {
        throw TlsLab.failure(true);
      }
      return list("own", "peer");
    }, "own", ended::incrementAndGet, System::nanoTime);
    members.poll();
    refuses[0] = true;
    refused(IOException.class, members::poll);
    require(!members.isAlive("peer") && !members.admits("peer", "spark-worker") && !members.isMember(), "alive");
    refused(IOException.class, members::poll);
    require(ended.get() == 1, "told " + ended.get() + " times");
  }

  public static void what_is_no_list_is_neither_a_refusal_nor_a_list() throws Exception {
    JsonNode[] answer = {list("own", "peer")};
    Members members = new Members(limit -> answer[0], "own", () -> {}, System::nanoTime);
    members.poll();
    for (String bad : new String[] {"{\"members\":{}}", "{}", "{\"members\":[{}]}", "{\"members\":[],\"more\":1}"}) {
      answer[0] = Json.parse(bad.getBytes(), 1000);
      refused(IOException.class, members::poll);
      require(members.isAlive("peer"), bad);
    }
  }

  public static void a_list_without_this_node_itself_names_nobody() throws Exception {
    AtomicInteger ended = new AtomicInteger();
    JsonNode[] answer = {list("own", "peer")};
    Members members = new Members(limit -> answer[0], "own", ended::incrementAndGet, System::nanoTime);
    members.poll();
    answer[0] = list("peer");
    members.poll();
    require(!members.isAlive("peer") && !members.isMember() && ended.get() == 1, "still a member");
  }

  public static void a_handshake_waits_neither_for_a_poll_that_hangs_nor_long_for_its_own() throws Exception {
    CountDownLatch hangs = new CountDownLatch(1);
    CountDownLatch asked = new CountDownLatch(1);
    List<Duration> limits = Collections.synchronizedList(new ArrayList<>());
    Members members = new Members(limit -> {
      limits.add(limit);
      asked.countDown();
      try {
        hangs.await();
      } catch (InterruptedException e) {
        throw new IllegalStateException(e);
      }
      return list("own", "peer");
    }, "own", () -> {}, System::nanoTime);
    Thread poll = new Thread(() -> {
      try {
        members.poll();
      } catch (IOException e) {
        throw new IllegalStateException(e);
      }
    });
    poll.start();
    asked.await();
    // Returns while the poll still has the broker's attention, or never.
    require(!members.admits("newcomer", "spark-worker"), "admitted");
    hangs.countDown();
    poll.join();
    require(!members.admits("newcomer", "spark-worker"), "admitted a stranger");
    require(limits.size() == 2, "asked " + limits.size() + " times");
    require(limits.get(1).compareTo(Members.HANDSHAKE) <= 0, "may wait for " + limits.get(1));
    require(Members.HANDSHAKE.compareTo(Duration.ofSeconds(5)) <= 0, "long for a handshake");
  }
}
