package sealbook.fs;

import java.util.concurrent.ArrayBlockingQueue;

/**
 * Buffers of one segment, used again: for the garbage collector each is a huge object, and a reader of Parquet opens
 * many files.
 */
final class Buffers {
  private static final int KEPT = 32;
  private static final ArrayBlockingQueue<byte[]> FREE = new ArrayBlockingQueue<>(KEPT);

  private Buffers() {}

  static byte[] take() {
    byte[] buffer = FREE.poll();
    return buffer == null ? new byte[Segments.SEGMENT] : buffer;
  }

  static void give(byte[] buffer) {
    if (buffer != null) {
      FREE.offer(buffer);
    }
  }
}
