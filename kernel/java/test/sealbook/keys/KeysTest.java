package sealbook.keys;

import static sealbook.Run.refused;
import static sealbook.Run.require;

import java.io.ByteArrayOutputStream;
import java.io.NotSerializableException;
import java.io.ObjectOutputStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;

public final class KeysTest {
  private static final String SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

  private KeysTest() {}

  /** Counts what it is asked. */
  private static final class Source implements KeySource {
    final AtomicInteger asked = new AtomicInteger();
    volatile int newest = 1;
    volatile boolean refuses;

    @Override
    public Key current(String name) throws KeyUnavailableException {
      return get(name, newest);
    }

    @Override
    public Key get(String name, int version) throws KeyUnavailableException {
      asked.incrementAndGet();
      try {
        Thread.sleep(50);
      } catch (InterruptedException e) {
        throw new IllegalStateException(e);
      }
      if (refuses) {
        throw new KeyUnavailableException("no");
      }
      return new Key(name, version, new byte[32]);
    }
  }

  public static void many_threads_make_one_fetch() throws Exception {
    Source source = new Source();
    CachedKeys keys = new CachedKeys(source);
    CountDownLatch go = new CountDownLatch(1);
    List<Thread> threads = new ArrayList<>();
    AtomicInteger got = new AtomicInteger();
    for (int i = 0; i < 16; i++) {
      Thread thread = new Thread(() -> {
        try {
          go.await();
          keys.get("a", 1);
          keys.current("a");
          got.incrementAndGet();
        } catch (Exception e) {
          throw new IllegalStateException(e);
        }
      });
      thread.start();
      threads.add(thread);
    }
    go.countDown();
    for (Thread thread : threads) {
      thread.join();
    }
    require(got.get() == 16, "not all got it");
    require(source.asked.get() == 2, "asked " + source.asked.get() + " times");
  }

  public static void a_rotation_shows_after_a_while_and_a_version_stays() throws Exception {
    Source source = new Source();
    CachedKeys keys = new CachedKeys(source, Duration.ofMillis(200));
    require(keys.current("a").version() == 1, "not version 1");
    source.newest = 2;
    require(keys.current("a").version() == 1, "not kept");
    Thread.sleep(300);
    require(keys.current("a").version() == 2, "kept for too long");
    int before = source.asked.get();
    keys.get("a", 1);
    Thread.sleep(300);
    keys.get("a", 1);
    require(source.asked.get() == before + 1, "a version was fetched again");
  }

  public static void what_was_released_for_sealing_is_not_used_for_unsealing() throws Exception {
    Source source = new Source();
    CachedKeys keys = new CachedKeys(source);
    keys.current("a");
    keys.get("a", 1);
    require(source.asked.get() == 2, "asked " + source.asked.get() + " times");
  }

  public static void a_refusal_is_not_kept() throws Exception {
    Source source = new Source();
    source.refuses = true;
    CachedKeys keys = new CachedKeys(source);
    refused(KeyUnavailableException.class, () -> keys.get("a", 1));
    source.refuses = false;
    keys.get("a", 1);
  }

  public static void a_key_is_neither_shown_nor_serialized() throws Exception {
    Key key = new Key("a/b", 3, new byte[32]);
    require(key.toString().equals("Key a/b version 3"), key.toString());
    ObjectOutputStream out = new ObjectOutputStream(new ByteArrayOutputStream());
    refused(NotSerializableException.class, () -> out.writeObject(key));
  }

  public static void names_are_those_of_python() {
    for (String good : List.of("a", "a/b", "0.x_y-z", "a".repeat(64) + "/" + "b".repeat(64))) {
      require(Key.isName(good), good);
    }
    for (String bad : List.of("", "A", "/a", "a/", "a/b/c", "-a", "a b", "a\n", "a".repeat(65), "ä")) {
      require(!Key.isName(bad), bad);
    }
    require(!Key.isName(null), "null");
  }

  public static void the_kernels_answers_are_taken_strictly() throws Exception {
    KeySource good = new CallbackKeys((name, version, purpose) -> (version == 0 ? 7 : version) + ":" + SECRET);
    require(good.current("a").version() == 7 && good.get("a", 3).version() == 3, "version");
    for (String answer : new String[] {
      null, "", "1", ":", "0:" + SECRET, "-1:" + SECRET, "1:", "1:AAAA", "1:" + SECRET + "AAAA", "x:" + SECRET,
      "2:" + SECRET
    }) {
      KeySource bad = new CallbackKeys((name, version, purpose) -> answer);
      String message = refused(KeyUnavailableException.class, () -> bad.get("a", 1)).getMessage();
      require(!message.contains("AAEC"), "the answer is in the message");
    }
  }

  public static void a_refusal_of_the_kernel_is_its_sentence_and_an_exception_is_not_shown() {
    KeySource refusing = new CallbackKeys((name, version, purpose) -> "error:Not for you." + "x".repeat(1000));
    String sentence = refused(KeyUnavailableException.class, () -> refusing.get("a", 1)).getMessage();
    require(sentence.startsWith("Not for you.") && sentence.length() == 500, sentence);
    KeySource raising = new CallbackKeys((name, version, purpose) -> {
      throw new IllegalStateException(SECRET);
    });
    KeyUnavailableException raised = refused(KeyUnavailableException.class, () -> raising.get("a", 1));
    require(!raised.getMessage().contains(SECRET) && raised.getCause() == null, "the exception travels");
  }

  public static void without_a_source_there_are_no_keys() {
    Keys.setSource(null);
    refused(KeyUnavailableException.class, () -> Keys.current("a"));
    refused(KeyUnavailableException.class, () -> Keys.current("Not A Name"));
  }
}
