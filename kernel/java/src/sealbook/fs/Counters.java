package sealbook.fs;

import java.util.concurrent.atomic.LongAdder;

/** What this process has read of sealed files, to see that no more is decrypted than is used. */
public final class Counters {
  static final LongAdder SEGMENTS = new LongAdder();
  static final LongAdder OPENED = new LongAdder();

  private Counters() {}

  /** Segments decrypted so far. */
  public static long segmentsDecrypted() {
    return SEGMENTS.sum();
  }

  /** Files opened so far. */
  public static long filesOpened() {
    return OPENED.sum();
  }
}
