package sealbook;

import static sealbook.Run.refused;
import static sealbook.Run.require;

import java.nio.charset.StandardCharsets;

public final class JsonTest {
  private JsonTest() {}

  private static String again(String text) throws Exception {
    return new String(
        Json.canonical(Json.parse(text.getBytes(StandardCharsets.UTF_8), 10000)), StandardCharsets.UTF_8);
  }

  public static void keys_are_ordered_by_code_point() throws Exception {
    // U+FF61 is before U+1F600, but after the surrogates that UTF-16 writes it with.
    String both = "{\"\uff61\":1,\"\ud83d\ude00\":2}";
    require(again("{\"\ud83d\ude00\":2,\"\uff61\":1}").equals(both), "order");
  }

  public static void text_is_escaped_as_python_escapes_it() throws Exception {
    require(again("\"\\u0000\\u001f\\n\\t\\\"\\\\/\\u007f\\u00e9\"").equals(
        "\"\\u0000\\u001f\\n\\t\\\"\\\\/\u007f\u00e9\""), "escapes");
  }

  public static void what_python_refuses_is_refused() {
    for (String bad : new String[] {
      "", " ", "{", "{\"a\":1,\"a\":2}", "NaN", "[1,]", "{}{}", "'a'", "\"\t\"", "01", "[".repeat(33) + "]".repeat(33),
      "1".repeat(4301), "// x\n1"
    }) {
      refused(Json.MalformedException.class, () -> Json.parse(bad.getBytes(StandardCharsets.UTF_8), 10000));
    }
    refused(Json.MalformedException.class, () -> Json.parse(new byte[] {'"', (byte) 0xc0, (byte) 0x80, '"'}, 100));
    refused(Json.MalformedException.class, () -> Json.parse("[1, 2]".getBytes(StandardCharsets.UTF_8), 5));
  }

  public static void floats_and_half_surrogates_have_no_canonical_form() {
    for (String bad : new String[] {"1.0", "1e2", "\"\\ud800\""}) {
      refused(Json.MalformedException.class, () -> again(bad));
    }
  }
}
