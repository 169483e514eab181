package sealbook.fs;

import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.math.BigInteger;
import java.net.URI;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.Objects;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import sealbook.Json;

/**
 * What a Spark stream notes of the table that it writes: `_spark_metadata/N` or `N.compact`, after a line with a
 * version one of JSON for each file, with the file's whole URL.
 *
 * <p>Spark reads such a table by this list alone, and compares the URLs with the one that it was asked for. What
 * begins with another name matches nothing: no row, and no error. Of a table with partitions it opens the files as
 * they are listed, so that it would not be the key of the reader's URL that they have to be sealed to. And a stream
 * that goes on under another name makes a list of which each name shows a part. So a log is read and continued only
 * under the name that its entries have.
 */
final class StreamLog {
  private static final String DIRECTORY = "_spark_metadata";
  private static final Pattern BATCH = Pattern.compile("([0-9]{1,19})(?:\\.compact)?");

  /** A path of 4096 bytes is three times as long in a URL. */
  private static final int MAX_LINE = 1 << 16;

  private final Path table;
  private final URI root;

  /** The log in `directory`, as seen by the file system with the root `root`. */
  StreamLog(Path directory, URI root) {
    Path above = directory.getParent();
    table = above == null ? directory : above;
    this.root = root;
  }

  /** Tell whether this is where a stream keeps its log. */
  static boolean isDirectory(Path path) {
    Path name = path == null ? null : path.getFileName();
    return name != null && name.toString().equals(DIRECTORY);
  }

  /** Return the files of the log in `directory`, the newest first. */
  static List<Path> newestFirst(Path directory) throws IOException {
    TreeMap<BigInteger, Path> found = new TreeMap<>(Comparator.reverseOrder());
    try (DirectoryStream<Path> entries = Files.newDirectoryStream(directory)) {
      for (Path entry : entries) {
        Matcher batch = BATCH.matcher(entry.getFileName().toString());
        if (batch.matches()) {
          found.put(new BigInteger(batch.group(1)), entry);
        }
      }
    } catch (java.nio.file.DirectoryIteratorException e) {
      throw e.getCause();
    }
    return List.copyOf(found.values());
  }

  /** Read a file of the log; refuse it if it lists anything under another name. Return whether it lists anything. */
  boolean require(InputStream file, String shown) throws IOException {
    InputStream in = new BufferedInputStream(file); // not closed: the caller reads on
    line(in, shown); // the version, which Spark compares
    boolean lists = false;
    for (byte[] line = line(in, shown); line != null; line = line(in, shown)) {
      requireEntry(line, shown);
      lists = true;
    }
    return lists;
  }

  private void requireEntry(byte[] line, String shown) throws IOException {
    URI entry;
    Path path;
    try {
      entry = URI.create(Json.text(Json.parse(line, MAX_LINE), "path"));
      if (entry.getPath() == null) {
        throw malformed(shown);
      }
      path = Path.of(entry.getPath());
    } catch (Json.MalformedException | IllegalArgumentException e) {
      throw malformed(shown);
    }
    if (!root.getScheme().equals(entry.getScheme())
        || !Objects.equals(root.getAuthority(), entry.getAuthority())
        || !path.startsWith(table)) {
      throw new PathException(
          url(root, table) + " was written by a stream as " + url(entry, tableOf(path)) + ": use it under that name and"
              + " in that place.");
    }
  }

  /** Return the table's directory of a file, which may be in directories of partitions (`day=1`). */
  private static Path tableOf(Path file) {
    Path at = file.getParent() == null ? file : file.getParent();
    for (Path above = Jobs.table(at); above != null; above = Jobs.table(at)) {
      at = above;
    }
    return at;
  }

  private static String url(URI like, Path path) {
    return like.getScheme() + "://" + Objects.requireNonNullElse(like.getAuthority(), "") + path;
  }

  private static byte[] line(InputStream in, String shown) throws IOException {
    ByteArrayOutputStream line = new ByteArrayOutputStream();
    int next = in.read();
    if (next < 0) {
      return null;
    }
    for (; next >= 0 && next != '\n'; next = in.read()) {
      if (line.size() == MAX_LINE) {
        throw malformed(shown);
      }
      line.write(next);
    }
    return line.toByteArray();
  }

  private static PathException malformed(String shown) {
    return new PathException(
        shown + " is not a stream's log as this Spark writes it; use the Spark that wrote it, or an intact copy.");
  }
}
