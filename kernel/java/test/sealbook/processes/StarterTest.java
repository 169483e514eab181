package sealbook.processes;

import static sealbook.Run.refused;
import static sealbook.Run.require;

import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.Channels;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.apache.xbean.asm9.ClassReader;
import org.apache.xbean.asm9.ClassVisitor;
import org.apache.xbean.asm9.MethodVisitor;
import org.apache.xbean.asm9.Opcodes;

public final class StarterTest {
  private StarterTest() {}

  /** How often a class calls a method of that owner and name. */
  private static int calls(byte[] code, String owner, String name) {
    int[] found = {0};
    new ClassReader(code)
        .accept(
            new ClassVisitor(Opcodes.ASM9) {
              @Override
              public MethodVisitor visitMethod(int a, String m, String t, String g, String[] e) {
                return new MethodVisitor(Opcodes.ASM9) {
                  @Override
                  public void visitMethodInsn(int o, String where, String called, String type, boolean itf) {
                    if (where.equals(owner) && called.equals(name)) {
                      found[0]++;
                    }
                  }
                };
              }
            },
            0);
    return found[0];
  }

  public static void every_start_of_a_process_in_these_classes_goes_to_the_starter() throws Exception {
    for (String name : Starter.CLASSES) {
      byte[] before;
      try (InputStream in = ClassLoader.getSystemResourceAsStream(name + ".class")) {
        before = in.readAllBytes();
      }
      byte[] after = new StartsElsewhere().transform(null, name, null, null, before);
      int starts = calls(before, "java/lang/ProcessBuilder", "start");
      require(starts > 0, name + " starts no process any more; look where Spark does");
      require(calls(after, "java/lang/ProcessBuilder", "start") == 0, name + " still forks");
      require(calls(after, "sealbook/processes/Starter", "start") == starts, name);
      // Loaded, which verifies it.
      Class<?> loaded =
          new ClassLoader(StarterTest.class.getClassLoader()) {
            Class<?> define() {
              Class<?> made = defineClass(name.replace('/', '.'), after, 0, after.length);
              resolveClass(made);
              return made;
            }
          }.define();
      require(loaded.getDeclaredMethods().length > 0, name);
    }
  }

  public static void python_is_refused_where_it_would_be_started() throws Exception {
    byte[] before;
    try (InputStream in = ClassLoader.getSystemResourceAsStream(Starter.PYTHON + ".class")) {
      before = in.readAllBytes();
    }
    byte[] after = new StartsElsewhere().transform(null, Starter.PYTHON, null, null, before);
    int starts = calls(before, "java/lang/ProcessBuilder", "start");
    require(starts == 2, "Spark starts Python in other places now");
    require(calls(after, "java/lang/ProcessBuilder", "start") == 0, "it still forks");
    require(calls(after, "sealbook/processes/Starter", "refuse") == starts, "refused");
    IOException said = refused(IOException.class, () -> Starter.refuse(new ProcessBuilder("python3")));
    require(said.getMessage().startsWith("Python functions"), "one sentence");
  }

  public static void other_classes_stay_as_they_are() {
    require(new StartsElsewhere().transform(null, "java/lang/Object", null, null, new byte[0]) == null, "");
  }

  public static void a_process_has_its_streams_status_and_signals() throws Exception {
    Path path = Files.createTempDirectory("sb").resolve("s");
    System.setProperty(Starter.PROPERTY, path.toString());
    try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
      server.bind(UnixDomainSocketAddress.of(path));
      int[] signal = {0};
      String[] request = {null};
      Thread starter = new Thread(() -> {
        try (SocketChannel control = server.accept()) {
          DataInputStream in = new DataInputStream(Channels.newInputStream(control));
          request[0] = new String(in.readNBytes(in.readInt()), "UTF-8");
          DataOutputStream out = new DataOutputStream(Channels.newOutputStream(control));
          try (SocketChannel streams = server.accept()) {
            out.writeInt(77);
            Channels.newOutputStream(streams).write("said".getBytes("UTF-8"));
            signal[0] = in.read();
          }
          out.writeInt(143);
        } catch (IOException e) {
          throw new IllegalStateException(e);
        }
      });
      starter.start();
      ProcessBuilder builder = new ProcessBuilder("/bin/x", "y");
      builder.environment().clear();
      builder.environment().put("A", "b");
      Process process = Starter.start(builder);
      require(process.pid() == 77 && process.isAlive(), "it runs");
      refused(IllegalThreadStateException.class, process::exitValue);
      process.destroy();
      require(new String(process.getInputStream().readAllBytes(), "UTF-8").equals("said"), "output");
      require(process.waitFor(30, TimeUnit.SECONDS) && process.exitValue() == 143, "status");
      starter.join();
      require(signal[0] == 15, "signal");
      require(
          request[0].equals("{\"command\":[\"/bin/x\",\"y\"],\"directory\":\"\",\"environment\":{\"A\":\"b\"}}"),
          request[0]);
    } finally {
      System.clearProperty(Starter.PROPERTY);
      Files.deleteIfExists(path);
    }
  }
}
