package sealbook.fs;

import java.util.List;
import org.apache.spark.SparkContext;
import org.apache.spark.SparkContext$;
import scala.collection.concurrent.Map;
import scala.jdk.javaapi.CollectionConverters;

/**
 * Tells who asks: Spark's way of sending a file along (SparkContext.addFile, addArchive, addJar, `ADD FILE` in SQL,
 * spark.files) copies it in clear to a local directory of every node.
 *
 * <p>Spark has no hook there, and its ways in are many; this is the one place that all of them pass. Of the callers
 * a few are looked at, those nearest by.
 */
final class Copies {
  private static final int NEAREST = 10;

  private Copies() {}

  /** Tell whether this call comes from there. */
  static boolean areBeingMade() {
    return StackWalker.getInstance()
        .walk(frames -> frames.limit(NEAREST).anyMatch(f -> copies(f.getClassName(), f.getMethodName())));
  }

  /**
   * Take what is sealed off the lists of what each task fetches, of the driver that this is.
   *
   * <p>An archive is on the list before anybody looks at it, and would fail every job from then on.
   */
  static void forget() {
    var active = SparkContext$.MODULE$.getActive();
    if (active.isDefined()) {
      SparkContext context = active.get();
      for (var lists : List.of(context.addedFiles(), context.addedArchives(), context.addedJars())) {
        CollectionConverters.asJava(lists).values().forEach(Copies::removeSealed);
      }
    }
  }

  private static void removeSealed(Map<String, Object> list) {
    var entries = CollectionConverters.asJava(list);
    for (String url : List.copyOf(entries.keySet())) {
      if (url.startsWith(SealedFileSystem.SCHEME + ":")) {
        entries.remove(url);
      }
    }
  }

  private static boolean copies(String type, String method) {
    return switch (type) {
      case "org.apache.spark.util.Utils$" -> method.equals("fetchHcfsFile");
      // Already where the file is only looked at: later it would be on the list of what every task fetches.
      case "org.apache.spark.SparkContext" ->
          method.equals("addFile") || method.equals("addJar") || method.startsWith("checkRemoteJar");
      default -> false;
    };
  }
}
