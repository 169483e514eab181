package sealbook;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Set;

/**
 * The JSON of the Python package's sealbook.encoding: strict parsing of untrusted text, and the one canonical
 * encoding (RFC 8785 without floats) of what is hashed, signed or authenticated.
 */
public final class Json {
  /** Deeper input is refused. */
  static final int MAX_DEPTH = 32;

  /** Python's limit for the digits of an integer; beyond it both sides refuse. */
  private static final int MAX_DIGITS = 4300;

  private static final ObjectMapper MAPPER =
      new ObjectMapper(
              JsonFactory.builder()
                  .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
                  // An exception must not quote what was parsed: it may be a secret.
                  .disable(StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION)
                  .streamReadConstraints(
                      StreamReadConstraints.builder()
                          .maxNestingDepth(MAX_DEPTH)
                          .maxNumberLength(MAX_DIGITS)
                          .build())
                  .build())
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

  private Json() {}

  /** Thrown for what is not JSON as sealbook writes it; says nothing of the text. */
  public static final class MalformedException extends IOException {
    private static final long serialVersionUID = 1L;

    /** What is wrong, without any of the text. */
    public MalformedException(String message) {
      super(message);
    }
  }

  /** Parse bytes of UTF-8, refusing what parsers are known to disagree about. */
  public static JsonNode parse(byte[] data, int maxBytes) throws MalformedException {
    if (data.length > maxBytes) {
      throw new MalformedException("larger than the " + maxBytes + " bytes that are accepted");
    }
    try {
      String text =
          StandardCharsets.UTF_8
              .newDecoder()
              .onMalformedInput(CodingErrorAction.REPORT)
              .onUnmappableCharacter(CodingErrorAction.REPORT)
              .decode(ByteBuffer.wrap(data))
              .toString();
      JsonNode value = MAPPER.readTree(text);
      if (value == null || value.isMissingNode()) {
        throw new MalformedException("empty");
      }
      return value;
    } catch (MalformedException e) {
      throw e;
    } catch (IOException e) {
      throw new MalformedException("not valid JSON");
    }
  }

  /** Return a new, empty object. */
  public static ObjectNode object() {
    return JsonNodeFactory.instance.objectNode();
  }

  /** Return `value` if it is an object with exactly these fields; the last `optional` of them may be missing. */
  public static ObjectNode fields(JsonNode value, Set<String> required, Set<String> optional)
      throws MalformedException {
    if (!(value instanceof ObjectNode)) {
      throw new MalformedException("not an object");
    }
    ObjectNode node = (ObjectNode) value;
    for (String name : required) {
      if (!node.has(name)) {
        throw new MalformedException("without the field " + name);
      }
    }
    for (Iterator<String> names = node.fieldNames(); names.hasNext(); ) {
      String name = names.next();
      if (!required.contains(name) && !optional.contains(name)) {
        throw new MalformedException("with a field that is not known");
      }
    }
    return node;
  }

  /** Return the text in a field. */
  public static String text(JsonNode node, String field) throws MalformedException {
    JsonNode value = node.get(field);
    if (value == null || !value.isTextual()) {
      throw new MalformedException("without text in the field " + field);
    }
    return value.textValue();
  }

  /** Encode as canonical JSON. */
  public static byte[] canonical(JsonNode value) throws MalformedException {
    StringBuilder out = new StringBuilder();
    write(value, out);
    try {
      ByteBuffer encoded =
          StandardCharsets.UTF_8
              .newEncoder()
              .onMalformedInput(CodingErrorAction.REPORT)
              .encode(java.nio.CharBuffer.wrap(out));
      byte[] bytes = new byte[encoded.remaining()];
      encoded.get(bytes);
      return bytes;
    } catch (CharacterCodingException e) {
      throw new MalformedException("half a surrogate pair has no canonical JSON");
    }
  }

  private static void write(JsonNode value, StringBuilder out) throws MalformedException {
    if (value.isObject()) {
      List<String> names = new ArrayList<>();
      value.fieldNames().forEachRemaining(names::add);
      names.sort(Json::byCodePoint);
      char separator = '{';
      for (String name : names) {
        out.append(separator);
        quote(name, out);
        out.append(':');
        write(value.get(name), out);
        separator = ',';
      }
      out.append(names.isEmpty() ? "{}" : "}");
    } else if (value.isArray()) {
      char separator = '[';
      for (JsonNode item : value) {
        out.append(separator);
        write(item, out);
        separator = ',';
      }
      out.append(value.isEmpty() ? "[]" : "]");
    } else if (value.isTextual()) {
      quote(value.textValue(), out);
    } else if (value.isIntegralNumber()) {
      out.append(value.bigIntegerValue());
    } else if (value.isBoolean()) {
      out.append(value.booleanValue());
    } else if (value.isNull()) {
      out.append("null");
    } else {
      throw new MalformedException("a value that has no canonical JSON");
    }
  }

  /** Python orders text by code point, Java by UTF-16 unit; they differ beyond U+FFFF. */
  static int byCodePoint(String a, String b) {
    int i = 0;
    while (i < a.length() && i < b.length()) {
      int x = a.codePointAt(i);
      int y = b.codePointAt(i);
      if (x != y) {
        return Integer.compare(x, y);
      }
      i += Character.charCount(x);
    }
    return Integer.compare(a.length(), b.length());
  }

  private static void quote(String text, StringBuilder out) {
    out.append('"');
    for (int i = 0; i < text.length(); i++) {
      char c = text.charAt(i);
      switch (c) {
        case '"' -> out.append("\\\"");
        case '\\' -> out.append("\\\\");
        case '\n' -> out.append("\\n");
        case '\r' -> out.append("\\r");
        case '\t' -> out.append("\\t");
        case '\f' -> out.append("\\f");
        case '\b' -> out.append("\\b");
        default -> {
          if (c < 0x20) {
            out.append(String.format("\\u%04x", (int) c));
          } else {
            out.append(c);
          }
        }
      }
    }
    out.append('"');
  }
}
