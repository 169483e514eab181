package sealbook;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Set;
import sealbook.keys.Key;

/**
 * What the agent or the kernel hands to this JVM on its standard input: who it is, and its secrets.
 *
 * <p>A 4-byte big-endian length, then JSON. No part of it is ever in a file, an argument, a variable or a
 * message. The bytes read are wiped here; strings that the JSON parser made are left to the collector.
 */
final class Frame {
  /** Longest JSON that is accepted. */
  static final int MAX_BYTES = 64 * 1024;

  private static final String LOCAL = "local";
  private static final Set<String> NODE_FIELDS =
      Set.of(
          "v", "role", "cluster", "session", "tls_private_key", "hpke_private_key", "report_data",
          "certificate", "ca", "cluster_secret", "poll_seconds", "brokers");
  private static final int MAX_BROKERS = 16;

  /** One data owner's broker; `owner` is empty for the one that vouches for the cluster. */
  record Broker(String owner, URI url, X509Certificate ca, X509Certificate certificate, byte[] reportData) {}

  /** The driver's way to its Python. */
  record Gateway(X509Certificate certificate, PrivateKey key, String token, String portFile) {
    @Override
    public String toString() {
      return "Gateway";
    }
  }

  final String role;
  final Gateway gateway;
  // All below are null for the role "local", which has no cluster.
  String cluster;
  String session;
  PrivateKey tlsKey;
  byte[] hpkeKey;
  X509Certificate certificate;
  X509Certificate ca;
  byte[] clusterSecret;
  int pollSeconds;
  List<Broker> brokers;

  /** Read one frame, and nothing beyond it. */
  static Frame read(InputStream in) throws IOException, GeneralSecurityException {
    byte[] head = in.readNBytes(4);
    if (head.length < 4) {
      throw new Json.MalformedException("missing");
    }
    int length = java.nio.ByteBuffer.wrap(head).getInt();
    if (length < 2 || length > MAX_BYTES) {
      throw new Json.MalformedException("of an impossible length");
    }
    byte[] body = in.readNBytes(length);
    try {
      if (body.length < length) {
        throw new Json.MalformedException("cut short");
      }
      return new Frame(Json.parse(body, MAX_BYTES));
    } catch (IllegalArgumentException e) {
      // Base64, URLs; the exception's own text may quote them.
      throw new Json.MalformedException("not as sealbook writes it");
    } finally {
      Arrays.fill(body, (byte) 0);
    }
  }

  private Frame(JsonNode value) throws IOException, GeneralSecurityException {
    JsonNode version = value.get("v");
    if (version == null || !version.isInt() || version.intValue() != 1) {
      throw new Json.MalformedException("of another version");
    }
    role = Json.text(value, "role");
    if (role.equals(LOCAL)) {
      Json.fields(value, Set.of("v", "role", "gateway"), Set.of());
    } else {
      node(Json.fields(value, NODE_FIELDS, Set.of("gateway")));
    }
    gateway = value.has("gateway") ? gateway(value.get("gateway")) : null;
  }

  boolean isLocal() {
    return role.equals(LOCAL);
  }

  private void node(ObjectNode value) throws IOException, GeneralSecurityException {
    if (!sealbook.tls.NodeExtension.ROLES.contains(role)) {
      throw new Json.MalformedException("for a role that is not known");
    }
    cluster = Json.text(value, "cluster");
    session = Json.text(value, "session");
    tlsKey = key(value, "tls_private_key");
    hpkeKey = bytes(value, "hpke_private_key", 32);
    certificate = certificate(value, "certificate");
    ca = certificate(value, "ca");
    clusterSecret = bytes(value, "cluster_secret", 32);
    JsonNode poll = value.get("poll_seconds");
    if (!poll.isInt() || poll.intValue() < 1 || poll.intValue() > 300) {
      throw new Json.MalformedException("with an impossible poll_seconds");
    }
    pollSeconds = poll.intValue();
    bytes(value, "report_data", 64);
    JsonNode list = value.get("brokers");
    if (!list.isArray() || list.isEmpty() || list.size() > MAX_BROKERS) {
      throw new Json.MalformedException("without brokers");
    }
    brokers = new ArrayList<>();
    for (JsonNode item : list) {
      Json.fields(item, Set.of("owner", "url", "ca", "certificate", "report_data"), Set.of());
      URI url = URI.create(Json.text(item, "url"));
      if (!"https".equals(url.getScheme()) || url.getHost() == null) {
        throw new Json.MalformedException("with a broker that is not at an https address");
      }
      String owner = Json.text(item, "owner");
      // The first part of key names; those of `session/...` belong to no broker.
      if (!owner.isEmpty() && (owner.indexOf('/') >= 0 || !Key.isName(owner) || owner.equals("session"))) {
        throw new Json.MalformedException("with a broker of an owner that there cannot be");
      }
      brokers.add(
          new Broker(
              owner,
              url,
              certificate(item, "ca"),
              certificate(item, "certificate"),
              bytes(item, "report_data", 64)));
    }
    if (!brokers.get(0).owner().isEmpty()
        || brokers.stream().map(Broker::owner).distinct().count() != brokers.size()) {
      throw new Json.MalformedException("with brokers out of order");
    }
  }

  private static Gateway gateway(JsonNode value) throws IOException, GeneralSecurityException {
    Json.fields(value, Set.of("certificate", "private_key", "token", "port_file"), Set.of());
    return new Gateway(
        certificate(value, "certificate"),
        key(value, "private_key"),
        Json.text(value, "token"),
        Json.text(value, "port_file"));
  }

  private static byte[] bytes(JsonNode node, String field, int length) throws IOException {
    byte[] data = Base64.getDecoder().decode(Json.text(node, field));
    if (length >= 0 && data.length != length) {
      throw new Json.MalformedException("with a wrong length in the field " + field);
    }
    return data;
  }

  private static PrivateKey key(JsonNode node, String field) throws IOException, GeneralSecurityException {
    byte[] der = bytes(node, field, -1);
    try {
      return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(der));
    } finally {
      Arrays.fill(der, (byte) 0);
    }
  }

  private static X509Certificate certificate(JsonNode node, String field)
      throws IOException, GeneralSecurityException {
    return Certificates.parse(Json.text(node, field));
  }
}
