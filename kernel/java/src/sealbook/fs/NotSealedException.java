package sealbook.fs;

import java.io.IOException;

/** The file does not begin like a sealed file. */
public final class NotSealedException extends IOException {
  private static final long serialVersionUID = 1L;

  NotSealedException(String name) {
    super(name + " is not a file sealed by sealbook; check the path.");
  }
}
