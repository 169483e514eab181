package sealbook.processes;

import java.io.File;
import java.io.IOException;
import java.lang.instrument.Instrumentation;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Starts processes without a fork of this JVM: a small process beside it, forked before the JVM began
 * (`sealbook.spark.starter`), does it. In Gramine a fork copies the whole parent, page by page, while its
 * threads run on: it needs more mappings than Linux gives and has crashed JVMs.
 */
public final class Starter {
  /** Where it listens; set by the agent on the JVM's command line. */
  public static final String PROPERTY = "sealbook.starter";

  /** Each connection belongs to the request before it, so there is one start at a time. */
  private static final Object ORDER = new Object();

  private Starter() {}

  /** Has Spark start its processes here, where this JVM was told of a starter; else changes nothing. */
  public static void install(Instrumentation instrumentation) {
    if (isUsed()) {
      instrumentation.addTransformer(new StartsElsewhere());
    }
  }

  /** Whether this JVM was told of a starter, which is so in Gramine. */
  public static boolean isUsed() {
    return System.getProperty(PROPERTY) != null;
  }

  /** In place of {@link ProcessBuilder#start}. */
  public static Process start(ProcessBuilder builder) throws IOException {
    UnixDomainSocketAddress address = UnixDomainSocketAddress.of(Path.of(System.getProperty(PROPERTY)));
    byte[] request = request(builder);
    synchronized (ORDER) {
      SocketChannel control = SocketChannel.open(address);
      SocketChannel streams = null;
      try {
        StartedProcess.write(control, request);
        streams = SocketChannel.open(address);
        return new StartedProcess(control, streams, builder.command().get(0));
      } catch (IOException | RuntimeException e) {
        control.close();
        if (streams != null) {
          streams.close();
        }
        throw e;
      }
    }
  }

  /** In place of {@link ProcessBuilder#start} for Python: its workers would be looked for in /proc. */
  public static Process refuse(ProcessBuilder builder) throws IOException {
    throw new IOException(NO_PYTHON);
  }

  private static byte[] request(ProcessBuilder builder) throws IOException {
    Map<String, Object> request = new LinkedHashMap<>();
    File directory = builder.directory();
    request.put("command", new ArrayList<>(builder.command()));
    request.put("directory", directory == null ? "" : directory.getPath());
    request.put("environment", new LinkedHashMap<>(builder.environment()));
    return MAPPER.writeValueAsBytes(request);
  }

  private static final com.fasterxml.jackson.databind.ObjectMapper MAPPER =
      new com.fasterxml.jackson.databind.ObjectMapper();

  /** The same sentence as in `sealbook.spark.python_functions`, which refuses before a job begins. */
  static final String NO_PYTHON =
      "Python functions (UDFs, functions on RDDs) do not run in executors in Gramine: write this with functions"
          + " of DataFrames or SQL, or run it on a cluster whose nodes are not in Gramine.";

  /** What starts Python workers. */
  static final String PYTHON = "org/apache/spark/api/python/PythonWorkerFactory";

  /** The classes that start processes: executors, `rm` for directories, Hadoop's `chmod`. */
  static final List<String> CLASSES =
      List.of(
          "org/apache/spark/deploy/worker/ExecutorRunner",
          "org/apache/spark/network/util/JavaUtils",
          "org/apache/hadoop/util/Shell");
}
