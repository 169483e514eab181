package sealbook.fs;

import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.security.GeneralSecurityException;
import java.util.HexFormat;
import org.apache.hadoop.fs.Abortable;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.StreamCapabilities;
import sealbook.keys.Key;

/**
 * Writes a sealed file, which gets its name when it is complete, or never.
 *
 * <p>Until then it is hidden and has no header, so that nothing of it can be read: not after a kill either.
 */
final class SealedOutput extends OutputStream implements Abortable, StreamCapabilities {
  /** As in sealbook/files.py: hidden files of this kind are unfinished. */
  private static final String INFIX = ".sealbook-";

  private static final java.util.regex.Pattern UNFINISHED =
      java.util.regex.Pattern.compile("\\..*\\.sealbook-[0-9a-f]{16}", java.util.regex.Pattern.DOTALL);
  private static final int MAX_NAME = 200;

  private final Path target;
  private final Path temporary;
  private final String name;
  private final boolean overwrite;
  private final FileSystem.Statistics statistics;
  private final FileChannel channel;
  private final Header.New header;
  private final SegmentCipher cipher;
  private byte[] plain = Buffers.take();
  private int filled;
  private long index;
  private boolean done;

  SealedOutput(Path target, String name, boolean overwrite, Key key, ObjectNode sealer, FileSystem.Statistics statistics)
      throws IOException {
    this.target = target;
    this.name = name;
    this.overwrite = overwrite;
    this.statistics = statistics;
    try {
      header = Header.create(key, sealer);
      cipher = SegmentCipher.fresh(header.dataKey(), header.aad());
    } catch (GeneralSecurityException e) {
      throw failed();
    }
    String base = target.getFileName().toString();
    temporary =
        target.resolveSibling(
            "." + base.substring(0, Math.min(MAX_NAME, base.length())) + INFIX
                + HexFormat.of().formatHex(Envelope.random(8)));
    channel = FileChannel.open(temporary, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
    try {
      channel.position(Header.BYTES);
      write(ByteBuffer.wrap(cipher.streamHeader()));
    } catch (IOException | RuntimeException e) {
      discard();
      throw e;
    }
  }

  /** Tell whether a file of this name is one that was not finished. */
  static boolean isUnfinished(String fileName) {
    return UNFINISHED.matcher(fileName).matches();
  }

  @Override
  public void write(int value) throws IOException {
    write(new byte[] {(byte) value}, 0, 1);
  }

  @Override
  public synchronized void write(byte[] data, int offset, int length) throws IOException {
    java.util.Objects.checkFromIndexSize(offset, length, data.length);
    if (done) {
      throw new ClosedChannelException();
    }
    int taken = 0;
    while (taken < length) {
      int room = (index == 0 ? Segments.FIRST : Segments.REST) - filled;
      if (room == 0) { // a full segment goes out only when something follows: the last one is marked
        seal(false);
        continue;
      }
      int piece = Math.min(room, length - taken);
      System.arraycopy(data, offset + taken, plain, filled, piece);
      filled += piece;
      taken += piece;
    }
    if (statistics != null) {
      statistics.incrementBytesWritten(length);
    }
  }

  private void seal(boolean last) throws IOException {
    if (index >= Segments.MAX_SEGMENTS) {
      throw new IOException("A sealed file cannot hold more than 4 PiB; write it in parts.");
    }
    byte[] sealed = Buffers.take();
    try {
      int length = cipher.encrypt(index, last, plain, filled, sealed);
      write(ByteBuffer.wrap(sealed, 0, length));
    } catch (GeneralSecurityException e) {
      throw failed();
    } finally {
      Buffers.give(sealed);
    }
    index++;
    filled = 0;
  }

  private void write(ByteBuffer data) throws IOException {
    while (data.hasRemaining()) {
      channel.write(data);
    }
  }

  private IOException failed() {
    // Not the cause, which saw keys.
    return new IOException(name + " could not be sealed; this Java lacks a cipher.");
  }

  @Override
  public synchronized void close() throws IOException {
    if (done) {
      return;
    }
    try {
      seal(true);
      channel.position(0);
      write(ByteBuffer.wrap(header.slots()));
      channel.close();
      if (overwrite) {
        Files.move(temporary, target, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
      } else {
        place();
      }
      finish();
    } catch (java.nio.file.FileAlreadyExistsException e) {
      discard();
      throw new org.apache.hadoop.fs.FileAlreadyExistsException(name + " was made by another writer meanwhile.");
    } catch (IOException | RuntimeException e) {
      discard();
      throw e;
    }
  }

  /** Gives the finished file its name, unless something has it. */
  private void place() throws IOException {
    try {
      // Other than renaming, linking fails where somebody was faster.
      Files.createLink(target, temporary);
      Files.delete(temporary);
    } catch (java.nio.file.FileAlreadyExistsException e) {
      throw e;
    } catch (java.nio.file.FileSystemException | UnsupportedOperationException e) {
      // Gramine has no links. The name is taken by an empty file, which nobody reads as a sealed one.
      Files.createFile(target);
      Files.move(temporary, target, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    }
  }

  @Override
  public synchronized AbortableResult abort() {
    boolean already = done;
    IOException failure = null;
    if (!already) {
      try {
        discard();
      } catch (IOException e) {
        failure = e;
      }
    }
    IOException caught = failure;
    return new AbortableResult() {
      @Override
      public boolean alreadyClosed() {
        return already;
      }

      @Override
      public IOException anyCleanupException() {
        return caught;
      }
    };
  }

  private void discard() throws IOException {
    finish();
    channel.close();
    Files.deleteIfExists(temporary);
  }

  private void finish() {
    done = true;
    Buffers.give(plain);
    plain = null;
  }

  @Override
  public boolean hasCapability(String capability) {
    return StreamCapabilities.ABORTABLE_STREAM.equals(capability);
  }

  @Override
  public String toString() {
    return "SealedOutput " + name;
  }
}
