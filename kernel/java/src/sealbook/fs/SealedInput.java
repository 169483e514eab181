package sealbook.fs;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.GeneralSecurityException;
import java.util.Arrays;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.hadoop.fs.FSInputStream;
import org.apache.hadoop.fs.FileSystem;

/**
 * The plaintext of a sealed file, at any position; every segment is authenticated before a byte of it is returned.
 *
 * <p>Some segments are kept: Parquet goes back and forth between a few places in small steps. A read that wants
 * all of a segment that is not kept gets it decrypted straight into its buffer.
 */
final class SealedInput extends FSInputStream {
  private static final int KEPT = 4;

  /** How often a header that changes while it is read (by a rotation) is read again. */
  private static final int TRIES = 5;

  private record Segment(byte[] bytes, int length) {}

  private final String name;
  private final FileSystem.Statistics statistics;
  private final FileChannel channel;
  private final long size;
  private final long last;
  private final SegmentCipher cipher;
  private final Map<Long, Segment> kept = new LinkedHashMap<>(8, 0.75f, true);
  private long position;
  private boolean closed;

  /** Open a file, if it is sealed to the key `required` and no other; null stands for any. */
  SealedInput(Path path, String name, String required, FileSystem.Statistics statistics) throws IOException {
    this.name = name;
    this.statistics = statistics;
    channel = FileChannel.open(path, StandardOpenOption.READ);
    try {
      Header.Opened opened = header(required);
      long sealedSize = channel.size();
      size = Segments.plainSize(sealedSize - Header.BYTES);
      if (size < 0) {
        throw new UnsealException(name);
      }
      last = Segments.count(size) - 1;
      cipher = opened.cipher(read(Header.BYTES, Segments.STREAM_HEADER));
      // The last one at once, so that a truncated file is refused at once. Parquet begins there anyway.
      segment(last);
      Counters.OPENED.increment();
    } catch (GeneralSecurityException e) {
      release();
      throw new UnsealException(name);
    } catch (IOException | RuntimeException e) {
      release();
      throw e;
    }
  }

  private Header.Opened header(String required) throws IOException {
    byte[] raw = read(0, Header.BYTES);
    for (int i = 0; i < TRIES; i++) {
      try {
        return Header.open(raw, name, required);
      } catch (UnsealException e) {
        byte[] again = read(0, Header.BYTES);
        if (Arrays.equals(raw, again)) {
          throw e;
        }
        raw = again;
      }
    }
    throw new UnsealException(name);
  }

  private byte[] read(long offset, int length) throws IOException {
    byte[] data = new byte[length];
    int done = read(offset, data, length);
    return done == length ? data : Arrays.copyOf(data, done);
  }

  private int read(long offset, byte[] into, int length) throws IOException {
    ByteBuffer buffer = ByteBuffer.wrap(into, 0, length);
    while (buffer.hasRemaining() && channel.read(buffer, offset + buffer.position()) >= 0) {
      // reads on until it has all, or the file ends
    }
    return buffer.position();
  }

  /** Decrypt a segment into `out`; return its length. */
  private int decrypt(long index, byte[] out, int offset) throws IOException {
    byte[] sealed = Buffers.take();
    try {
      long start = Segments.cipherStart(index);
      int length = read(Header.BYTES + start, sealed, (int) ((index + 1) * Segments.SEGMENT - start));
      Counters.SEGMENTS.increment();
      int plain = cipher.decrypt(index, index == last, sealed, length, out, offset);
      if (plain != plainLength(index)) {
        throw new UnsealException(name); // the file changed its length since
      }
      return plain;
    } catch (GeneralSecurityException e) {
      // It may be the caller's buffer: nothing that was not authenticated stays there.
      Arrays.fill(out, offset, offset + plainLength(index), (byte) 0);
      throw new UnsealException(name);
    } finally {
      Buffers.give(sealed);
    }
  }

  private int plainLength(long index) {
    long end = index == last ? size : Segments.plainStart(index + 1);
    return (int) (end - Segments.plainStart(index));
  }

  private Segment segment(long index) throws IOException {
    Segment known = kept.get(index);
    if (known != null) {
      return known;
    }
    byte[] buffer;
    if (kept.size() >= KEPT) {
      Iterator<Segment> eldest = kept.values().iterator();
      buffer = eldest.next().bytes();
      eldest.remove();
    } else {
      buffer = Buffers.take();
    }
    try {
      Segment loaded = new Segment(buffer, decrypt(index, buffer, 0));
      kept.put(index, loaded);
      return loaded;
    } catch (IOException | RuntimeException e) {
      Buffers.give(buffer);
      throw e;
    }
  }

  /** Copy up to `length` bytes from plaintext offset `from`; fewer only at the end, -1 there. */
  private synchronized int copy(long from, byte[] into, int offset, int length) throws IOException {
    if (closed) {
      throw new ClosedChannelException();
    }
    if (length == 0) {
      return 0;
    }
    if (from >= size) {
      return -1;
    }
    int wanted = (int) Math.min(length, size - from);
    int done = 0;
    while (done < wanted) {
      long index = Segments.at(from + done);
      int begin = (int) (from + done - Segments.plainStart(index));
      int whole = plainLength(index);
      if (begin == 0 && wanted - done >= whole && !kept.containsKey(index)) {
        done += decrypt(index, into, offset + done);
        continue;
      }
      Segment segment = segment(index);
      int piece = Math.min(wanted - done, segment.length() - begin);
      System.arraycopy(segment.bytes(), begin, into, offset + done, piece);
      done += piece;
    }
    if (statistics != null) {
      statistics.incrementBytesRead(done);
    }
    return done;
  }

  @Override
  public synchronized int read() throws IOException {
    byte[] one = new byte[1];
    return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
  }

  @Override
  public synchronized int read(byte[] into, int offset, int length) throws IOException {
    java.util.Objects.checkFromIndexSize(offset, length, into.length);
    int done = copy(position, into, offset, length);
    position += Math.max(0, done);
    return done;
  }

  @Override
  public int read(long from, byte[] into, int offset, int length) throws IOException {
    validatePositionedReadArgs(from, into, offset, length);
    return copy(from, into, offset, length);
  }

  @Override
  public void readFully(long from, byte[] into, int offset, int length) throws IOException {
    validatePositionedReadArgs(from, into, offset, length);
    if (copy(from, into, offset, length) < length && length > 0) {
      throw new EOFException(name + " ends before that.");
    }
  }

  @Override
  public synchronized void seek(long to) throws IOException {
    if (closed) {
      throw new ClosedChannelException();
    }
    if (to < 0 || to > size) {
      throw new EOFException("There is no position " + to + " in " + name + ".");
    }
    position = to;
  }

  @Override
  public synchronized long getPos() {
    return position;
  }

  @Override
  public boolean seekToNewSource(long to) {
    return false;
  }

  @Override
  public synchronized long skip(long count) {
    long step = Math.max(0, Math.min(count, size - position));
    position += step;
    return step;
  }

  @Override
  public synchronized int available() {
    return (int) Math.min(Integer.MAX_VALUE, size - position);
  }

  /** Bytes of plaintext. */
  long size() {
    return size;
  }

  @Override
  public synchronized void close() throws IOException {
    if (!closed) {
      closed = true;
      release();
    }
  }

  private void release() throws IOException {
    kept.values().forEach(segment -> Buffers.give(segment.bytes()));
    kept.clear();
    channel.close();
  }

  @Override
  public String toString() {
    return "SealedInput " + name;
  }
}
