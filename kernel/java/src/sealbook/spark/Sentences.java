package sealbook.spark;

import org.apache.parquet.crypto.TagVerificationException;
import sealbook.Sentence;

/** Finds, in what Spark makes of an exception, the one sentence that sealbook said; for sealbook/spark/sentences.py. */
public final class Sentences {
  /** Spark wraps some five times; a chain of causes may also be a ring. */
  private static final int DEEPEST = 32;

  private static final int LONGEST = 2000;

  private Sentences() {}

  /** Return "kind|sentence", or null if sealbook has no part in it. */
  public static String of(Throwable error) {
    Throwable at = error;
    for (int i = 0; at != null && i < DEEPEST; i++) {
      if (at instanceof Sentence sentence) {
        return sentence.kind() + "|" + shown(at.getMessage());
      }
      if (at instanceof TagVerificationException) {
        return Sentence.REFUSED
            + "|An encrypted Parquet file was not opened: the file or the key is not the one it was written with;"
            + " use an intact copy.";
      }
      at = at.getCause();
    }
    return null;
  }

  private static String shown(String text) {
    String clean = String.valueOf(text).replaceAll("\\p{Cntrl}+", " ");
    return clean.length() > LONGEST ? clean.substring(0, LONGEST) : clean;
  }
}
