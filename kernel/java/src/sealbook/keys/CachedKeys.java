package sealbook.keys;

import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;

/**
 * One fetch for all tasks: versions are kept for good, what is current for {@link #CURRENT}.
 *
 * <p>The two are kept apart, because a policy may release a key for sealing and not for unsealing. Who asks
 * while another is asking waits for that answer. A refusal is not kept.
 */
public final class CachedKeys implements KeySource {
  /** How long a key counts as the newest version; a rotation takes effect after it. */
  public static final Duration CURRENT = Duration.ofSeconds(30);

  private record Slot(String name, int version) {}

  private record Answer(CompletableFuture<Key> key, long until) {}

  @FunctionalInterface
  private interface Fetch {
    Key key() throws KeyUnavailableException;
  }

  private final KeySource source;
  private final long currentNanos;
  private final ConcurrentHashMap<Slot, Answer> kept = new ConcurrentHashMap<>();

  public CachedKeys(KeySource source) {
    this(source, CURRENT);
  }

  CachedKeys(KeySource source, Duration current) {
    this.source = source;
    this.currentNanos = current.toNanos();
  }

  @Override
  public Key current(String name) throws KeyUnavailableException {
    return once(new Slot(name, 0), () -> source.current(name));
  }

  @Override
  public Key get(String name, int version) throws KeyUnavailableException {
    return once(new Slot(name, version), () -> source.get(name, version));
  }

  /** Keep nothing of what was fetched so far. */
  void forget() {
    kept.clear();
  }

  private Key once(Slot slot, Fetch fetch) throws KeyUnavailableException {
    long now = System.nanoTime();
    Answer mine = new Answer(new CompletableFuture<>(), now + currentNanos);
    Answer used =
        kept.compute(
            slot,
            (key, old) -> old == null || (slot.version() == 0 && old.until() - now < 0) ? mine : old);
    if (used == mine) {
      try {
        mine.key().complete(fetch.key());
      } catch (Throwable e) {
        kept.remove(slot, mine);
        mine.key().completeExceptionally(e);
      }
    }
    try {
      return used.key().join();
    } catch (CompletionException e) {
      if (e.getCause() instanceof KeyUnavailableException) {
        throw new KeyUnavailableException(e.getCause().getMessage());
      }
      throw new KeyUnavailableException("Key " + slot.name() + " could not be fetched; look at the log.");
    }
  }
}
