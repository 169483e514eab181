package sealbook.spark;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.security.GeneralSecurityException;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import java.util.concurrent.TimeUnit;
import javax.net.ServerSocketFactory;
import javax.net.SocketFactory;
import javax.net.ssl.KeyManager;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManager;
import py4j.CallbackClient;
import sealbook.tls.OwnKey;
import sealbook.tls.SelfCheck;

/**
 * Mutual TLS 1.3 between the driver's JVM and its kernel: one ephemeral self-signed identity that only these two
 * have, and each accepts no other.
 */
final class GatewayTls {
  private static final String[] PROTOCOLS = {"TLSv1.3"};

  private final SSLContext context;

  GatewayTls(X509Certificate certificate, PrivateKey key) throws GeneralSecurityException {
    context = SSLContext.getInstance("TLSv1.3");
    context.init(
        new KeyManager[] {new OwnKey(key, certificate)}, new TrustManager[] {new SelfCheck(certificate)}, null);
  }

  /** For the server that Python connects to. */
  ServerSocketFactory serverSockets() {
    return new Servers();
  }

  /** For the connections to Python. */
  SocketFactory sockets() {
    return new Clients();
  }

  /** For the connections to Python where threads are not pinned. */
  CallbackClient callbackClient(InetAddress address, String token) {
    return new CallbackClient(
        py4j.GatewayServer.DEFAULT_PYTHON_PORT, address, token, CallbackClient.DEFAULT_MIN_CONNECTION_TIME, TimeUnit.SECONDS, sockets(),
        true, 0);
  }


  private final class Servers extends ServerSocketFactory {
    private ServerSocket hardened(ServerSocket made) {
      SSLServerSocket socket = (SSLServerSocket) made;
      socket.setEnabledProtocols(PROTOCOLS);
      socket.setNeedClientAuth(true);
      return socket;
    }

    @Override
    public ServerSocket createServerSocket() throws IOException {
      return hardened(context.getServerSocketFactory().createServerSocket());
    }

    @Override
    public ServerSocket createServerSocket(int port) throws IOException {
      return createServerSocket(port, 0);
    }

    @Override
    public ServerSocket createServerSocket(int port, int backlog) throws IOException {
      return createServerSocket(port, backlog, InetAddress.getLoopbackAddress());
    }

    @Override
    public ServerSocket createServerSocket(int port, int backlog, InetAddress address) throws IOException {
      return hardened(context.getServerSocketFactory().createServerSocket(port, backlog, address));
    }
  }

  private final class Clients extends SocketFactory {
    private Socket hardened(Socket made) throws IOException {
      SSLSocket socket = (SSLSocket) made;
      socket.setTcpNoDelay(true);
      socket.setEnabledProtocols(PROTOCOLS);
      return socket;
    }

    @Override
    public Socket createSocket() throws IOException {
      return hardened(context.getSocketFactory().createSocket());
    }

    @Override
    public Socket createSocket(String host, int port) throws IOException {
      return hardened(context.getSocketFactory().createSocket(host, port));
    }

    @Override
    public Socket createSocket(String host, int port, InetAddress local, int localPort) throws IOException {
      return hardened(context.getSocketFactory().createSocket(host, port, local, localPort));
    }

    @Override
    public Socket createSocket(InetAddress host, int port) throws IOException {
      return hardened(context.getSocketFactory().createSocket(host, port));
    }

    @Override
    public Socket createSocket(InetAddress host, int port, InetAddress local, int localPort) throws IOException {
      return hardened(context.getSocketFactory().createSocket(host, port, local, localPort));
    }
  }
}
