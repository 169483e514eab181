package sealbook.fs;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/**
 * What a directory shows of the jobs that write to it, so that nobody reads half of what one wrote.
 *
 * <p>Hadoop's committer collects a job's files in `_temporary`, moves them when all tasks are done, deletes
 * `_temporary` and makes `_SUCCESS`. From the first file that is moved on, the table is neither the old one nor the
 * new one: there `_SUCCESS`, which may be an earlier job's, is taken away. `_temporary` without `_SUCCESS` is
 * therefore a table half written, while `_temporary` beside `_SUCCESS` is an append that has moved nothing yet, and
 * what was there can be read meanwhile. To refuse every table with `_temporary` would end streams and readers for as
 * long as anybody appends.
 *
 * <p>A dynamic overwrite of partitions collects them in `.spark-staging-ID`, and then deletes and moves one after
 * the other. As long as it does that, there is an empty directory `.spark-staging`: a name to look for, where the
 * table may have thousands of others.
 *
 * <p>All this is about jobs that are killed. Whoever owns the disk can take files away, or bring old ones back, and
 * nothing here notices.
 */
final class Jobs {
  static final String TEMPORARY = "_temporary";
  private static final String SUCCESS = "_SUCCESS";
  static final String STAGING = ".spark-staging";

  /** To move the files takes a moment, in which readers come by: they wait. */
  private static final long PATIENCE = TimeUnit.SECONDS.toNanos(2);

  private static final long PAUSE_MILLIS = 25;

  private Jobs() {}

  /** Refuse a directory of data, or a table's partition, that a job has begun to change and not ended to. */
  static void refuseHalfWritten(Path directory, org.apache.hadoop.fs.Path shown) throws IOException {
    long end = System.nanoTime() + PATIENCE;
    Path found = underWay(directory);
    while (found != null && System.nanoTime() - end < 0) {
      try {
        Thread.sleep(PAUSE_MILLIS);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new java.io.InterruptedIOException(shown + " was not read: this was interrupted.");
      }
      found = underWay(directory);
    }
    if (found != null) {
      throw new PathException(
          shown + " is a half-written table: the job that writes it has not ended, or was killed; wait for it, or"
              + " write the table again, or delete " + found + " to read what is there.");
    }
  }

  /** Return the directory of the job that changes `directory` or a table that it is a partition of, or null. */
  private static Path underWay(Path directory) throws IOException {
    Path at = directory;
    while (at != null) {
      Path temporary = at.resolve(TEMPORARY);
      if (Files.isDirectory(temporary) && !Files.exists(at.resolve(SUCCESS))) {
        return temporary;
      }
      Path moving = at.resolve(STAGING);
      if (Files.isDirectory(moving)) {
        return moving;
      }
      at = table(at);
    }
    return null;
  }

  /** Return the table's directory of a partition's (`day=1`), one level up; null for what is none. */
  static Path table(Path directory) {
    Path last = directory.getFileName();
    return last != null && last.toString().indexOf('=') > 0 ? directory.getParent() : null;
  }

  /** Note that `from` becomes `to`: out of where a job collects, it is the beginning of the job's end. */
  static void renaming(Path from, Path to) throws IOException {
    Path table = collector(from, TEMPORARY);
    if (table == null || !to.startsWith(table) || collector(to, TEMPORARY) != null) {
      return;
    }
    Path overwritten = collector(from, STAGING + "-");
    if (overwritten == null) {
      Files.deleteIfExists(table.resolve(SUCCESS));
    } else {
      Files.createDirectories(overwritten.resolve(STAGING));
    }
  }

  /** Note that `path` is about to be deleted: of a table's data it is how an overwrite of one partition begins. */
  static void deleting(Path path) throws IOException {
    Path at = path.getParent();
    while (at != null) {
      if (!Files.isDirectory(at.resolve(STAGING))) { // else that tells it already
        Files.deleteIfExists(at.resolve(SUCCESS));
      }
      at = table(at);
    }
  }

  /** Note that `path` was deleted: where an overwrite collected its files, it is its end. */
  static void deleted(Path path) throws IOException {
    Path name = path.getFileName();
    if (name == null || !name.toString().startsWith(STAGING + "-")) {
      return;
    }
    try (DirectoryStream<Path> others = Files.newDirectoryStream(path.getParent(), STAGING + "-*")) {
      for (Path other : others) {
        if (!Files.isDirectory(other.resolve(TEMPORARY))) {
          return; // one more that moves its files now
        }
      }
    }
    Files.deleteIfExists(path.resolveSibling(STAGING));
  }

  /**
   * Refuse to begin a job where another one has begun: its committer would take what that one had collected for its
   * own, and of a job that was killed half would be written twice.
   */
  static void refuseSecond(Path directory, org.apache.hadoop.fs.Path shown) throws IOException {
    Path temporary = directory.getParent();
    Path table = collector(directory, TEMPORARY);
    if (table != null && table.resolve(TEMPORARY).equals(temporary) && Files.isDirectory(temporary)) {
      throw new PathException(
          shown.getParent().getParent() + " is written by another job that has not ended, or was killed; wait for it,"
              + " or delete " + temporary + " first.");
    }
  }

  /**
   * Return where the outermost directory of this name lies that a path is in, or null; `name-` stands for
   * all names that begin so.
   */
  private static Path collector(Path path, String prefix) {
    Path found = null;
    for (Path at = path; at != null; at = at.getParent()) {
      String name = at.getFileName() == null ? "" : at.getFileName().toString();
      if (name.equals(prefix) || (prefix.endsWith("-") && name.startsWith(prefix))) {
        found = at.getParent(); // tasks have one within
      }
    }
    return found;
  }
}
