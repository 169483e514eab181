package sealbook.fs;

import java.io.IOException;
import sealbook.Sentence;

/** The file does not begin like a sealed file. */
public final class NotSealedException extends IOException implements Sentence {
  private static final long serialVersionUID = 1L;

  NotSealedException(String name) {
    super(name + " is not a file sealed by sealbook; check the path.");
  }

  @Override
  public String kind() {
    return INPUT;
  }
}
