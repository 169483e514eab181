package sealbook.fs;

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
