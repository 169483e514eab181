package sealbook;

import java.io.IOException;
import java.lang.instrument.Instrumentation;
import java.security.GeneralSecurityException;
import java.security.Security;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import sealbook.keys.BrokerConnection;
import sealbook.keys.BrokerException;
import sealbook.keys.BrokerKeys;
import sealbook.keys.Keys;
import sealbook.processes.Starter;
import sealbook.spark.DriverMain;
import sealbook.tls.AttestedProvider;
import sealbook.tls.Identity;
import sealbook.tls.Members;
import sealbook.tls.NodeExtension;
import sealbook.tls.Refusals;
import sealbook.tls.Upkeep;

/**
 * The Java agent (`-javaagent:sealbook.jar`) of every Spark JVM: before anything of Spark runs, it takes this
 * node's credentials from standard input and puts TLS and keys in place, or ends the JVM with one sentence
 * and status 2.
 */
public final class Agent {
  /** The agent filled the pipe before this JVM began; who waits longer waits at a terminal. */
  private static final int FRAME_SECONDS = 30;

  private static volatile NodeExtension attested;

  private Agent() {}

  /** Called by the JVM before main. */
  public static void premain(String arguments, Instrumentation instrumentation) {
    try {
      Starter.install(instrumentation);
      Frame frame = read();
      String role = System.getProperty("sealbook.role");
      if (role != null && !role.equals(frame.role)) {
        throw new Json.MalformedException("for another role than this JVM was started in");
      }
      if (frame.isLocal()) {
        // Spark's driver listens and connects to itself also where there is no cluster.
        Security.addProvider(new AttestedProvider(frame.gateway.certificate(), frame.gateway.key()));
      } else {
        join(frame);
      }
      if (frame.gateway != null) {
        DriverMain.expect(
            frame.gateway.certificate(), frame.gateway.key(), frame.gateway.token(), frame.gateway.portFile());
      }
    } catch (Json.MalformedException e) {
      end("The credentials on standard input are " + e.getMessage()
          + "; only sealbook's node agent or kernel starts this JVM.");
    } catch (BrokerException e) {
      end(e.getMessage());
    } catch (Exception | LinkageError e) {
      // Not its message: it may quote what must not be seen.
      end("This node could not be set up (" + e.getClass().getSimpleName() + "); nothing was started.");
    }
  }

  /** What the broker says of this node, for the headers of what it seals; null where there is no cluster. */
  public static NodeExtension attested() {
    return attested;
  }

  private static Frame read() throws Exception {
    CompletableFuture<Frame> frame = new CompletableFuture<>();
    Thread reader = new Thread(
        () -> {
          try {
            frame.complete(Frame.read(System.in));
          } catch (Throwable e) {
            frame.completeExceptionally(e);
          }
        },
        "sealbook-credentials");
    reader.setDaemon(true);
    reader.start();
    try {
      return frame.get(FRAME_SECONDS, TimeUnit.SECONDS);
    } catch (TimeoutException e) {
      throw new Json.MalformedException("missing");
    } catch (ExecutionException e) {
      if (e.getCause() instanceof Exception cause) {
        throw cause;
      }
      throw e;
    }
  }

  private static void join(Frame frame) throws IOException, GeneralSecurityException {
    List<BrokerConnection> brokers = new ArrayList<>();
    for (Frame.Broker broker : frame.brokers) {
      brokers.add(
          new BrokerConnection(
              broker.owner(), broker.url(), broker.ca(), broker.certificate(), frame.tlsKey, broker.reportData()));
    }
    BrokerConnection home = brokers.get(0);
    Identity own =
        new Identity(
            frame.cluster, frame.role, frame.session, frame.tlsKey, frame.certificate, frame.ca,
            frame.clusterSecret);
    boolean[] first = {true};
    // Keys that were fetched are forgotten with the membership: whoever may still have them asks again.
    Members members =
        new Members(
            limit -> first[0] ? home.getPatiently("/v1/members") : home.get("/v1/members", limit),
            frame.session,
            Keys::forget);
    members.poll();
    first[0] = false;
    Refusals refusals = new Refusals(event -> home.post("/v1/event", event));
    Security.addProvider(new AttestedProvider(own, members, refusals));
    Keys.setSource(new BrokerKeys(brokers, frame.hpkeKey));
    attested = NodeExtension.of(frame.certificate);
    new Upkeep(own, members, brokers, frame.pollSeconds).start();
  }

  private static void end(String sentence) {
    System.err.println(sentence);
    System.err.flush();
    Runtime.getRuntime().halt(2);
  }
}
