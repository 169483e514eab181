package sealbook;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import sealbook.fs.Counters;
import sealbook.keys.Key;
import sealbook.keys.KeySource;
import sealbook.keys.KeyUnavailableException;
import sealbook.keys.Keys;
import sealbook.parquet.SealbookKms;

/** The Java side of the tests in Python: one JSON question per line, one JSON answer per line. */
public final class Lab {
  private static final Map<String, Map<Integer, byte[]>> KEYS = new HashMap<>();

  private Lab() {}

  public static void main(String[] arguments) throws Exception {
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    String line;
    while ((line = in.readLine()) != null) {
      ObjectNode answer = Json.object();
      try {
        JsonNode question = Json.parse(line.getBytes(StandardCharsets.UTF_8), 1 << 24);
        answer(question.get("do").textValue(), question, answer);
      } catch (Throwable e) {
        answer.put("error", e.getClass().getSimpleName()).put("message", String.valueOf(e.getMessage()));
        if (e.getCause() != null) {
          answer.put("cause", e.getCause().toString());
        }
      }
      System.out.println(new String(Json.canonical(answer), StandardCharsets.UTF_8));
    }
  }

  private static void answer(String what, JsonNode q, ObjectNode answer) throws Exception {
    switch (what) {
      case "keys" -> keys(q);
      case "write" -> write(q);
      case "read" -> read(q, answer);
      case "length" -> answer.put("length", status(q).getLen());
      case "list" -> list(q, answer);
      case "rename" -> answer.put("done", fs(q).rename(path(q), new Path(q.get("to").textValue())));
      case "delete" -> answer.put("done", fs(q).delete(path(q), q.path("recursive").asBoolean()));
      case "mkdirs" -> answer.put("done", fs(q).mkdirs(path(q)));
      case "tasks" -> tasks(q, answer);
      case "append" -> fs(q).append(path(q));
      case "truncate" -> fs(q).truncate(path(q), 0);
      case "canonical" -> answer.put(
          "text",
          Base64.getEncoder().encodeToString(
              Json.canonical(Json.parse(Base64.getDecoder().decode(q.get("text").textValue()), 1 << 20))));
      case "wrap" -> answer.put(
          "wrapped",
          new SealbookKms().wrapKey(Base64.getDecoder().decode(q.get("plain").textValue()), q.get("key").textValue()));
      case "unwrap" -> answer.put(
          "plain",
          Base64.getEncoder().encodeToString(
              new SealbookKms().unwrapKey(q.get("wrapped").textValue(), q.get("key").textValue())));
      case "tls" -> sealbook.tls.TlsLab.answer(q, answer);
      default -> throw new IllegalArgumentException(what);
    }
  }

  private static void keys(JsonNode q) {
    KEYS.clear();
    q.get("keys").forEach(k ->
        KEYS.computeIfAbsent(k.get("name").textValue(), name -> new HashMap<>())
            .put(k.get("version").intValue(), Base64.getDecoder().decode(k.get("secret").textValue())));
    Keys.setSource(new KeySource() {
      @Override
      public Key current(String name) throws KeyUnavailableException {
        return get(name, KEYS.getOrDefault(name, Map.of(0, new byte[0])).keySet().stream().max(Integer::compare).get());
      }

      @Override
      public Key get(String name, int version) throws KeyUnavailableException {
        byte[] secret = KEYS.getOrDefault(name, Map.of()).get(version);
        if (secret == null) {
          throw new KeyUnavailableException("There is no key " + name + " here.");
        }
        return new Key(name, version, secret);
      }
    });
  }

  private static Path path(JsonNode q) {
    return new Path(q.get("path").textValue());
  }

  private static FileSystem fs(JsonNode q) throws Exception {
    Configuration conf = new Configuration(false);
    q.path("conf").properties().forEach(each -> conf.set(each.getKey(), each.getValue().textValue()));
    FileSystem found = FileSystem.newInstance(path(q).toUri(), conf);
    Run.require(found instanceof sealbook.fs.SealedFileSystem, "the service entry names another class");
    return found;
  }

  private static FileStatus status(JsonNode q) throws Exception {
    return fs(q).getFileStatus(path(q));
  }

  private static void write(JsonNode q) throws Exception {
    byte[] data = Base64.getDecoder().decode(q.get("data").textValue());
    int piece = q.path("piece").asInt(Math.max(1, data.length));
    FSDataOutputStream out = fs(q).create(path(q), q.path("overwrite").asBoolean(true));
    try {
      for (int at = 0; at < data.length; at += piece) {
        out.write(data, at, Math.min(piece, data.length - at));
      }
    } catch (java.io.IOException e) {
      if (!q.path("stubborn").asBoolean()) {
        throw e;
      }
      out.close(); // as programs do that close whatever happened
    }
    switch (q.path("end").asText("close")) {
      case "close" -> out.close();
      case "abort" -> out.abort();
      default -> { } // left open, as a killed task leaves it
    }
    Run.require(out.getPos() == data.length, "the position is not what was written");
  }

  private static void read(JsonNode q, ObjectNode answer) throws Exception {
    long before = Counters.segmentsDecrypted();
    try (FSDataInputStream in = fs(q).open(path(q))) {
      if (q.has("ranges")) {
        var pieces = answer.putArray("pieces");
        for (JsonNode range : q.get("ranges")) {
          byte[] piece = new byte[range.get(1).intValue()];
          if (q.path("seek").asBoolean()) {
            in.seek(range.get(0).longValue());
            in.readFully(piece);
          } else {
            in.readFully(range.get(0).longValue(), piece);
          }
          pieces.add(Base64.getEncoder().encodeToString(piece));
        }
      } else if (q.has("vectored")) {
        var ranges = new java.util.ArrayList<org.apache.hadoop.fs.FileRange>();
        q.get("vectored").forEach(r ->
            ranges.add(org.apache.hadoop.fs.FileRange.createFileRange(r.get(0).longValue(), r.get(1).intValue())));
        in.readVectored(ranges, java.nio.ByteBuffer::allocateDirect);
        var pieces = answer.putArray("pieces");
        for (var range : ranges) {
          var buffer = range.getData().get();
          byte[] piece = new byte[buffer.remaining()];
          buffer.get(piece);
          pieces.add(Base64.getEncoder().encodeToString(piece));
        }
      } else {
        answer.put("data", Base64.getEncoder().encodeToString(in.readAllBytes()));
      }
    }
    answer.put("segments", Counters.segmentsDecrypted() - before);
  }

  /** Read or write as the tasks of a job do: many at a time, each with a file system of its own. */
  private static void tasks(JsonNode q, ObjectNode answer) throws Exception {
    var pool = java.util.concurrent.Executors.newFixedThreadPool(8);
    try {
      var done = new java.util.ArrayList<java.util.concurrent.Future<Integer>>();
      for (int i = 0; i < q.get("count").intValue(); i++) {
        int number = i;
        done.add(pool.submit(() -> {
          if (q.path("write").asBoolean()) {
            try (FSDataOutputStream out = fs(q).create(new Path(path(q), "part-" + number))) {
              out.write(number);
            }
            return 1;
          }
          try (FSDataInputStream in = fs(q).open(path(q))) {
            return in.readAllBytes().length;
          }
        }));
      }
      int bytes = 0;
      for (var each : done) {
        bytes += each.get();
      }
      answer.put("bytes", bytes);
    } finally {
      pool.shutdown();
    }
  }

  private static void list(JsonNode q, ObjectNode answer) throws Exception {
    ObjectNode entries = answer.putObject("entries");
    for (FileStatus each : fs(q).listStatus(path(q))) {
      entries.put(each.getPath().getName(), each.isDirectory() ? -1 : each.getLen());
    }
  }
}
