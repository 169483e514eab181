package sealbook.fs;

import java.io.IOException;
import sealbook.Sentence;

/** A sealed path cannot be used as it is; one sentence. */
public final class PathException extends IOException implements Sentence {
  private static final long serialVersionUID = 1L;

  PathException(String sentence) {
    super(sentence);
  }

  @Override
  public String kind() {
    return INPUT;
  }
}
