package sealbook.spark;

import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import java.util.concurrent.TimeUnit;
import javax.net.ServerSocketFactory;
import py4j.ClientServerConnection;
import py4j.Gateway;
import py4j.GatewayServer;
import py4j.Py4JPythonClientPerThread;
import py4j.Py4JServerConnection;
import py4j.PythonClient;

/**
 * The driver's JVM: what Spark's PythonGatewayServer does, over mutual TLS in both directions and with the token
 * from standard input. It lives as long as its standard input is open.
 */
public final class DriverMain {
  private record Expected(X509Certificate certificate, PrivateKey key, String token, String portFile) {
    @Override
    public String toString() { // a record's own would show the token
      return "Expected";
    }
  }

  private static volatile Expected expected;

  private DriverMain() {}

  /** Set by the agent, from the frame. */
  public static void expect(X509Certificate certificate, PrivateKey key, String token, String portFile) {
    expected = new Expected(certificate, key, token, portFile);
  }

  /** Serve until the kernel closes standard input. */
  public static void main(String[] arguments) throws Exception {
    Expected gateway = expected;
    expected = null;
    if (gateway == null) {
      System.err.println("A driver's JVM is started by a sealbook kernel, with credentials on standard input.");
      System.exit(2);
    }
    // The log level that Spark gives to interactive programs; also sets up logging as Spark would.
    org.apache.spark.api.python.PythonGatewayServer$.MODULE$.initializeLogIfNecessary(true);
    announce(gateway.portFile(), serve(gateway));
    InputStream in = System.in;
    byte[] ignored = new byte[256];
    while (in.read(ignored) >= 0) {
      // Nothing is said on it; its end is the kernel's.
    }
    System.exit(0);
  }

  private static int serve(Expected gateway) throws Exception {
    InetAddress localhost = InetAddress.getLoopbackAddress();
    GatewayTls tls = new GatewayTls(gateway.certificate(), gateway.key());
    // As Spark decides it, and pyspark on the other side.
    if (System.getenv().getOrDefault("PYSPARK_PIN_THREAD", "true").equalsIgnoreCase("true")) {
      PythonClient python =
          new PythonClient(
              null, null, 0, localhost, PythonClient.DEFAULT_MIN_CONNECTION_TIME, TimeUnit.SECONDS, tls.sockets(),
              null, true, 0);
      Server server = new Server(localhost, python, tls.serverSockets(), gateway.token());
      python.setGateway(server.getGateway());
      python.setJavaServer(server);
      server.start(true);
      return server.getListeningPort();
    }
    GatewayServer server =
        new GatewayServer.GatewayServerBuilder()
            .authToken(gateway.token())
            .javaPort(0)
            .javaAddress(localhost)
            .serverSocketFactory(tls.serverSockets())
            .callbackClient(tls.callbackClient(localhost, gateway.token()))
            .build();
    server.start();
    return server.getListeningPort();
  }

  private static void announce(String file, int port) throws IOException {
    if (port <= 0) {
      System.err.println("The driver's JVM could not listen on the loopback address.");
      System.exit(2);
    }
    Path target = Path.of(file);
    Path temporary = Files.createTempFile(target.toAbsolutePath().getParent(), ".port", "");
    Files.write(temporary, Integer.toString(port).getBytes(StandardCharsets.US_ASCII));
    // Whoever waits for the file sees all of it.
    Files.move(temporary, target, StandardCopyOption.ATOMIC_MOVE);
  }

  /**
   * What py4j's ClientServer listens with (JavaServer), over TLS: ClientServer takes a ServerSocketFactory and does
   * not use it, so that it would listen in clear.
   */
  private static final class Server extends GatewayServer {
    private final String token;

    Server(InetAddress address, PythonClient python, ServerSocketFactory sockets, String token) {
      super((Object) null, 0, address, 0, 0, null, python, sockets);
      this.token = token;
    }

    @Override
    protected Py4JServerConnection createConnection(Gateway gateway, Socket socket) throws IOException {
      // Each call is one small message and one small answer.
      socket.setTcpNoDelay(true);
      ClientServerConnection connection =
          new ClientServerConnection(
              gateway, socket, getCustomCommands(), (Py4JPythonClientPerThread) getCallbackClient(), this,
              getReadTimeout(), token);
      connection.startServerConnection();
      return connection;
    }
  }
}
