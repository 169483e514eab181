package sealbook.tls;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.PublicKey;
import java.security.cert.X509Certificate;
import java.util.Arrays;
import java.util.Base64;
import java.util.Set;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import sealbook.Json;

/** What the broker says of a node in the one extension of its own in a node certificate. */
public final class NodeExtension {
  /** As sealbook.broker.certificates writes it; under the UUID arc, where nobody has to be asked for a number. */
  public static final String OID = "2.25.62003589165260313783015266293400767858";

  /** The roles of a Spark cluster; a kernel's certificate is not one of a node. */
  public static final Set<String> ROLES = Set.of("spark-master", "spark-worker", "spark-executor", "spark-driver");

  static final int MAX_BYTES = 4096;
  private static final Set<String> FIELDS =
      Set.of("cluster", "role", "measurement", "simulated", "session", "membership");
  private static final byte[] MEMBERSHIP =
      "sealbook cluster membership 1".getBytes(StandardCharsets.US_ASCII);

  final String cluster;
  final String role;
  final String session;
  final String measurement;
  final boolean simulated;
  private final byte[] membership;

  private NodeExtension(JsonNode value) throws IOException {
    cluster = Json.text(value, "cluster");
    role = Json.text(value, "role");
    session = Json.text(value, "session");
    measurement = Json.text(value, "measurement");
    simulated = value.get("simulated").booleanValue();
    membership = Base64.getDecoder().decode(Json.text(value, "membership"));
  }

  /** Parse the extension of `certificate` strictly. */
  public static NodeExtension of(X509Certificate certificate) throws Json.MalformedException {
    byte[] wrapped = certificate.getExtensionValue(OID);
    if (wrapped == null) {
      throw new Json.MalformedException("missing");
    }
    try {
      byte[] content = octets(wrapped);
      JsonNode value = Json.parse(content, MAX_BYTES);
      Json.fields(value, FIELDS, Set.of());
      if (!value.get("simulated").isBoolean() || !Arrays.equals(Json.canonical(value), content)) {
        throw new Json.MalformedException("not canonical");
      }
      return new NodeExtension(value);
    } catch (IOException | IllegalArgumentException e) {
      throw new Json.MalformedException("not as sealbook writes it");
    }
  }

  /** Tell whether whoever had this certificate issued knew the cluster's secret; takes the same time always. */
  boolean isMember(byte[] clusterSecret, PublicKey key) throws GeneralSecurityException {
    Mac mac = Mac.getInstance("HmacSHA256");
    mac.init(new SecretKeySpec(clusterSecret, "HmacSHA256"));
    mac.update(MEMBERSHIP);
    return java.security.MessageDigest.isEqual(mac.doFinal(key.getEncoded()), membership);
  }

  /** Whether the broker verified evidence: of a node in Gramine without SGX it has none, and no measurement. */
  public boolean attested() {
    return !measurement.isEmpty();
  }

  /** The measurement of the code that holds the certificate's key, as the broker verified it. */
  public String measurement() {
    return measurement;
  }

  /** Whether that was on a simulated platform. */
  public boolean simulated() {
    return simulated;
  }

  /** The content of a DER OCTET STRING of at most 65535 bytes that fills `der`. */
  private static byte[] octets(byte[] der) throws IOException {
    if (der.length < 2 || der[0] != 4) {
      throw new IOException();
    }
    int first = der[1] & 0xff;
    int start = first < 0x80 ? 2 : first == 0x81 ? 3 : first == 0x82 ? 4 : 0;
    if (start == 0 || der.length < start) {
      throw new IOException();
    }
    int length = first < 0x80 ? first : 0;
    for (int i = 2; i < start; i++) {
      length = length << 8 | der[i] & 0xff;
    }
    if (start + length != der.length) {
      throw new IOException();
    }
    return Arrays.copyOfRange(der, start, der.length);
  }
}
