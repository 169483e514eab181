package sealbook.processes;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** A process that the starter started: one socket is its standard input and output, one tells of its end. */
final class StartedProcess extends Process {
  private static final int TERMINATE = 15;
  private static final int KILL = 9;
  private static final int MAX_REQUEST_BYTES = 1 << 20;

  private final SocketChannel control;
  private final InputStream output;
  private final OutputStream input;
  private final long pid;
  private final CompletableFuture<Integer> status = new CompletableFuture<>();

  StartedProcess(SocketChannel control, SocketChannel streams, String program) throws IOException {
    this.control = control;
    int answer = readInt(control);
    if (answer <= 0) {
      throw new IOException("Cannot run program \"" + program + "\": error=" + -answer);
    }
    pid = answer;
    output = Channels.newInputStream(streams);
    input = Channels.newOutputStream(streams);
    Thread waiter = new Thread(this::awaitEnd, "sealbook-process-" + pid);
    waiter.setDaemon(true);
    waiter.start();
  }

  static void write(SocketChannel channel, byte[] request) throws IOException {
    if (request.length > MAX_REQUEST_BYTES) {
      throw new IOException("The command line and environment of this process are too long.");
    }
    ByteBuffer buffer = ByteBuffer.allocate(4 + request.length).putInt(request.length).put(request).flip();
    while (buffer.hasRemaining()) {
      channel.write(buffer);
    }
  }

  private void awaitEnd() {
    int found;
    try {
      found = readInt(control);
    } catch (IOException e) {
      // The starter is gone, and with it what it started.
      found = 128 + KILL;
    }
    status.complete(found);
  }

  private static int readInt(SocketChannel channel) throws IOException {
    ByteBuffer buffer = ByteBuffer.allocate(4);
    while (buffer.hasRemaining()) {
      if (channel.read(buffer) < 0) {
        throw new EOFException();
      }
    }
    return buffer.flip().getInt();
  }

  private void signal(int number) {
    try {
      synchronized (control) {
        control.write(ByteBuffer.wrap(new byte[] {(byte) number}));
      }
    } catch (IOException e) {
      // It has ended, or will with the starter.
    }
  }

  @Override
  public OutputStream getOutputStream() {
    return input;
  }

  @Override
  public InputStream getInputStream() {
    return output;
  }

  @Override
  public InputStream getErrorStream() {
    return InputStream.nullInputStream();
  }

  @Override
  public int waitFor() throws InterruptedException {
    try {
      return status.get();
    } catch (ExecutionException e) {
      throw new IllegalStateException(e);
    }
  }

  @Override
  public boolean waitFor(long timeout, TimeUnit unit) throws InterruptedException {
    try {
      status.get(timeout, unit);
      return true;
    } catch (TimeoutException e) {
      return false;
    } catch (ExecutionException e) {
      throw new IllegalStateException(e);
    }
  }

  @Override
  public int exitValue() {
    if (!status.isDone()) {
      throw new IllegalThreadStateException("the process has not ended");
    }
    return status.join();
  }

  @Override
  public boolean isAlive() {
    return !status.isDone();
  }

  @Override
  public void destroy() {
    signal(TERMINATE);
  }

  @Override
  public Process destroyForcibly() {
    signal(KILL);
    return this;
  }

  @Override
  public long pid() {
    return pid;
  }
}
