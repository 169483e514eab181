package sealbook.fs;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.DateTimeException;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.time.format.ResolverStyle;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.regex.Pattern;
import sealbook.Json;
import sealbook.keys.Key;
import sealbook.keys.KeyUnavailableException;
import sealbook.keys.Keys;

/**
 * The header of a sealed file: two slots of 4 KiB. Format and order of the checks are those of
 * sealbook/sealing/__init__.py and header.py; tests hold the two together.
 */
final class Header {
  static final int SLOT = 4096;
  static final int BYTES = 2 * SLOT;

  private static final byte[] MAGIC = "SEALBOOK".getBytes(StandardCharsets.US_ASCII);
  private static final int MAC = 32;
  private static final int BODY_START = MAGIC.length + 4;
  private static final int MAX_BODY = SLOT - BODY_START - MAC;
  private static final int MAX_KEYS = 4;
  private static final long MAX_SEQUENCE = 1L << 53;
  private static final Pattern CODEC = Pattern.compile("[a-z0-9][a-z0-9._-]{0,63}");
  private static final DateTimeFormatter TIME =
      DateTimeFormatter.ofPattern("uuuu-MM-dd'T'HH:mm:ss'Z'").withResolverStyle(ResolverStyle.STRICT);

  private record Wrapped(String key, int version, byte[] wrapped) {}

  /** A header whose data key was found and whose slots are authentic. */
  record Opened(byte[] dataKey, byte[] aad) {
    SegmentCipher cipher(byte[] streamHeader) throws GeneralSecurityException {
      return new SegmentCipher(dataKey, aad, streamHeader);
    }

    @Override
    public String toString() {
      return "Opened";
    }
  }

  /** What a new file begins with, and its data key. */
  record New(byte[] dataKey, byte[] aad, byte[] slots) {
    @Override
    public String toString() {
      return "New";
    }
  }

  private final byte[] fileId;
  private final byte[] commitment;
  private final String sealedAt;
  private final String codec;
  private final ObjectNode codecMetadata;
  private final ObjectNode context;
  private final ObjectNode sealer;
  private final long sequence;
  private final List<Wrapped> keys;

  private Header(
      byte[] fileId, byte[] commitment, String sealedAt, String codec, ObjectNode codecMetadata, ObjectNode context,
      ObjectNode sealer, long sequence, List<Wrapped> keys) {
    this.fileId = fileId;
    this.commitment = commitment;
    this.sealedAt = sealedAt;
    this.codec = codec;
    this.codecMetadata = codecMetadata;
    this.context = context;
    this.sealer = sealer;
    this.sequence = sequence;
    this.keys = keys;
  }

  /** Make the header of a new file, with a new data key wrapped under `key`. */
  static New create(Key key, ObjectNode sealer) throws GeneralSecurityException, IOException {
    byte[] dataKey = Envelope.random(Key.BYTES);
    byte[] fileId = Envelope.random(Envelope.FILE_ID_BYTES);
    byte[] commitment = Envelope.commitment(dataKey, fileId);
    byte[] wrapped = Envelope.wrap(dataKey, key, fileId, commitment);
    Header header =
        new Header(
            fileId, commitment, TIME.format(LocalDateTime.ofInstant(Instant.now(), ZoneOffset.UTC)), "file",
            Json.object(), Json.object(), sealer, 0, List.of(new Wrapped(key.name(), key.version(), wrapped)));
    byte[] body = header.body();
    if (body.length > MAX_BODY) {
      throw new IOException("What the sealer says of itself is too long for the header of a sealed file.");
    }
    byte[] slot = ByteBuffer.allocate(SLOT).put(MAGIC).putInt(body.length).put(body).array();
    byte[] mac = Envelope.headerMac(dataKey, fileId, slot, SLOT - MAC);
    System.arraycopy(mac, 0, slot, SLOT - MAC, MAC);
    return new New(dataKey, header.aad(), ByteBuffer.allocate(BYTES).put(slot).put(slot).array());
  }

  /**
   * Check both slots and find the data key; `raw` is what the file has of its first {@link #BYTES}.
   *
   * @param required the only key that may open it, or null for whichever it names
   */
  static Opened open(byte[] raw, String name, String required) throws IOException {
    if (!startsWithMagic(raw, 0) && !startsWithMagic(raw, SLOT)) {
      throw new NotSealedException(name);
    }
    byte[] one = Arrays.copyOfRange(raw, 0, Math.min(SLOT, raw.length));
    byte[] two = raw.length <= SLOT ? new byte[0] : Arrays.copyOfRange(raw, SLOT, raw.length);
    try {
      Header first = parse(one);
      Header second = parse(two);
      long ahead = second.sequence - first.sequence;
      if (ahead != 0 && ahead != 1) {
        throw new UnsealException(name);
      }
      if (required != null && !(first.isOnlyFor(required) && second.isOnlyFor(required))) {
        throw new OtherKeyException(name, required);
      }
      byte[] dataKey = second.unlock(name);
      // Both slots, always: an interrupted rotation leaves two authentic ones, damage does not.
      boolean authentic = first.isAuthentic(one, dataKey) & second.isAuthentic(two, dataKey);
      boolean sameFile = MessageDigest.isEqual(first.aad(), second.aad());
      if (!authentic || !sameFile || (ahead == 0 && !MessageDigest.isEqual(one, two))) {
        throw new UnsealException(name);
      }
      return new Opened(dataKey, second.aad());
    } catch (Json.MalformedException | GeneralSecurityException e) {
      throw new UnsealException(name);
    }
  }

  private boolean isOnlyFor(String key) {
    return keys.stream().allMatch(entry -> entry.key().equals(key));
  }

  private byte[] unlock(String name) throws IOException, GeneralSecurityException {
    KeyUnavailableException unavailable = null;
    for (Wrapped entry : keys) {
      Key key;
      try {
        key = Keys.get(entry.key(), entry.version());
      } catch (KeyUnavailableException e) {
        unavailable = unavailable == null ? e : unavailable;
        continue;
      }
      byte[] dataKey = Envelope.unwrap(entry.wrapped(), key, fileId, commitment);
      if (dataKey == null) {
        throw new UnsealException(name);
      }
      return dataKey;
    }
    throw unavailable == null ? new UnsealException(name) : unavailable;
  }

  private boolean isAuthentic(byte[] slot, byte[] dataKey) throws GeneralSecurityException {
    return MessageDigest.isEqual(
        Envelope.headerMac(dataKey, fileId, slot, SLOT - MAC), Arrays.copyOfRange(slot, SLOT - MAC, SLOT));
  }

  /** Parse one slot strictly; says nothing about whether it is authentic. */
  private static Header parse(byte[] slot) throws Json.MalformedException {
    if (slot.length != SLOT || !startsWithMagic(slot, 0)) {
      throw malformed();
    }
    int length = ByteBuffer.wrap(slot, MAGIC.length, 4).getInt();
    if (length < 0 || length > MAX_BODY) {
      throw malformed();
    }
    byte[] body = Arrays.copyOfRange(slot, BODY_START, BODY_START + length);
    for (int i = BODY_START + length; i < SLOT - MAC; i++) {
      if (slot[i] != 0) {
        throw malformed();
      }
    }
    Header header;
    try {
      header = of(Json.parse(body, MAX_BODY));
    } catch (IllegalArgumentException | DateTimeException e) {
      throw malformed();
    }
    // One header, one encoding: nothing can hide in white space, key order or escapes. Another format or
    // algorithm, and fields that are unknown or missing, show here too.
    if (!Arrays.equals(header.body(), body)) {
      throw malformed();
    }
    return header;
  }

  private static Header of(JsonNode value) throws Json.MalformedException {
    String time = Json.text(value, "sealed_at");
    if (LocalDateTime.parse(time, TIME).getYear() < 1000) {
      throw malformed(); // Python writes such a year with fewer digits and so refuses it
    }
    List<Wrapped> keys = new ArrayList<>();
    JsonNode entries = value.get("keys");
    if (entries == null || !entries.isArray() || entries.isEmpty() || entries.size() > MAX_KEYS) {
      throw malformed();
    }
    for (JsonNode entry : entries) {
      keys.add(
          new Wrapped(
              Key.checkName(Json.text(entry, "key")),
              (int) whole(entry.get("version"), 1, Integer.MAX_VALUE),
              bytes(entry, "wrapped", Envelope.WRAPPED_BYTES)));
    }
    Header header =
        new Header(
            bytes(value, "file_id", Envelope.FILE_ID_BYTES),
            bytes(value, "commitment", Key.BYTES),
            time,
            Json.text(value, "codec"),
            object(value, "codec_metadata"),
            object(value, "context"),
            object(value, "sealer"),
            whole(value.get("sequence"), 0, MAX_SEQUENCE),
            keys);
    if (!CODEC.matcher(header.codec).matches()) {
      throw malformed();
    }
    for (var field : header.context.properties()) {
      if (field.getKey().isEmpty() || !field.getValue().isTextual()) {
        throw malformed();
      }
    }
    return header;
  }

  /** The bytes that are bound to every segment: canonical JSON of the immutable part. */
  private byte[] aad() throws Json.MalformedException {
    return Json.canonical(immutable());
  }

  private byte[] body() throws Json.MalformedException {
    ObjectNode body = immutable();
    body.set("codec_metadata", codecMetadata);
    ArrayNode list = body.putArray("keys");
    for (Wrapped key : keys) {
      list.addObject().put("key", key.key()).put("version", key.version()).put("wrapped", base64(key.wrapped()));
    }
    body.put("sequence", sequence);
    return Json.canonical(body);
  }

  private ObjectNode immutable() {
    ObjectNode node = Json.object();
    node.put("algorithm", Segments.ALGORITHM);
    node.put("codec", codec);
    node.put("commitment", base64(commitment));
    node.set("context", context);
    node.put("file_id", base64(fileId));
    node.put("format", 1);
    node.put("sealed_at", sealedAt);
    node.set("sealer", sealer);
    node.put("segment_bytes", Segments.SEGMENT);
    return node;
  }

  private static boolean startsWithMagic(byte[] data, int offset) {
    return data.length >= offset + MAGIC.length
        && Arrays.equals(data, offset, offset + MAGIC.length, MAGIC, 0, MAGIC.length);
  }

  private static long whole(JsonNode value, long lowest, long highest) throws Json.MalformedException {
    if (value == null || !value.isIntegralNumber() || !value.canConvertToLong()) {
      throw malformed();
    }
    long number = value.longValue();
    if (number < lowest || number > highest) {
      throw malformed();
    }
    return number;
  }

  private static ObjectNode object(JsonNode node, String field) throws Json.MalformedException {
    if (node.get(field) instanceof ObjectNode object) {
      return object;
    }
    throw malformed();
  }

  private static byte[] bytes(JsonNode node, String field, int length) throws Json.MalformedException {
    byte[] data = Base64.getDecoder().decode(Json.text(node, field));
    if (data.length != length) {
      throw malformed();
    }
    return data;
  }

  private static String base64(byte[] data) {
    return Base64.getEncoder().encodeToString(data);
  }

  private static Json.MalformedException malformed() {
    return new Json.MalformedException("not a header that sealbook writes");
  }
}
