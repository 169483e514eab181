package sealbook.keys;

import java.io.IOException;
import sealbook.Sentence;

/** The key source does not hand out the key that was asked for; one sentence. */
public final class KeyUnavailableException extends IOException implements Sentence {
  private static final long serialVersionUID = 1L;

  public KeyUnavailableException(String sentence) {
    super(sentence);
  }

  @Override
  public String kind() {
    return KEY;
  }
}
