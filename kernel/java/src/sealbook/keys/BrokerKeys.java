package sealbook.keys;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Set;
import sealbook.Json;

/** Keys from the data owners' brokers, encrypted by them to the key that this node attested with. */
public final class BrokerKeys implements KeySource {
  private static final byte[] INFO = "sealbook release 1".getBytes(StandardCharsets.US_ASCII);

  private static final int MAX_SECRET = 256;
  private static final String SESSION = "session/";

  private final List<BrokerConnection> brokers;
  private final Hpke hpke;

  /**
   * Ask the broker that is named exactly like a key's owner, else the home broker, the first of `brokers`.
   *
   * <p>The home broker may have keys with any first part, `team/data` for example, and decides about names that
   * no owner is listed for; no other broker is ever asked for them. Who the owners are says the home broker too,
   * to the node's agent, never the host.
   */
  public BrokerKeys(List<BrokerConnection> brokers, byte[] hpkePrivateKey) throws GeneralSecurityException {
    this.brokers = List.copyOf(brokers);
    this.hpke = new Hpke(hpkePrivateKey);
  }

  @Override
  public Key current(String name) throws KeyUnavailableException {
    return ask(name, 0, "seal");
  }

  @Override
  public Key get(String name, int version) throws KeyUnavailableException {
    return ask(name, version, "unseal");
  }

  private Key ask(String name, int version, String purpose) throws KeyUnavailableException {
    if (Key.checkName(name).startsWith(SESSION)) {
      // Whoever answered could answer with a key of his own: there is no broker that this name belongs to.
      throw new KeyUnavailableException(
          "Keys named session/... live in the memory of one kernel's side, and no node of a cluster has them: make"
              + " a key that lasts, `sealbook keys create NAME`, and name it where you write: sealed://NAME/path.");
    }
    BrokerConnection broker = broker(name);
    ObjectNode request = Json.object().put("key", name).put("purpose", purpose);
    if (version == 0) {
      request.putNull("version");
    } else {
      request.put("version", version);
    }
    byte[] secret = new byte[0];
    try {
      JsonNode answer = broker.postPatiently("/v1/release", request);
      Json.fields(answer, Set.of("key", "version", "sealed"), Set.of());
      JsonNode released = answer.get("version");
      if (!Json.text(answer, "key").equals(name)
          || !released.isInt()
          || (version != 0 && released.intValue() != version)) {
        throw new Json.MalformedException("another key");
      }
      byte[] sealed = Base64.getDecoder().decode(Json.text(answer, "sealed"));
      byte[] opened = hpke.open(sealed, info(broker, name, released.intValue()), new byte[0]);
      JsonNode content = Json.fields(Json.parse(opened, MAX_SECRET), Set.of("secret"), Set.of());
      Arrays.fill(opened, (byte) 0);
      secret = Base64.getDecoder().decode(Json.text(content, "secret"));
      return new Key(name, released.intValue(), secret);
    } catch (BrokerException e) {
      throw new KeyUnavailableException(e.getMessage());
    } catch (IOException | GeneralSecurityException | IllegalArgumentException e) {
      throw new KeyUnavailableException("The broker answered with what is not key " + name + "; report this.");
    } finally {
      Arrays.fill(secret, (byte) 0);
    }
  }

  private BrokerConnection broker(String name) {
    int slash = name.indexOf('/');
    String owner = slash < 0 ? "" : name.substring(0, slash);
    return brokers.stream().filter(b -> b.owner().equals(owner)).findFirst().orElse(brokers.get(0));
  }

  /** What binds an answer: the evidence of this node, the key and its version. */
  private static byte[] info(BrokerConnection broker, String name, int version) throws IOException {
    ArrayNode list = Json.object().arrayNode();
    byte[] data = broker.reportData();
    byte[] what = Json.canonical(list.add(name).add(version));
    return ByteBuffer.allocate(INFO.length + data.length + what.length).put(INFO).put(data).put(what).array();
  }
}
