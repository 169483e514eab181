package sealbook.keys;

import java.io.IOException;

/** The key source does not hand out the key that was asked for; one sentence. */
public final class KeyUnavailableException extends IOException {
  private static final long serialVersionUID = 1L;

  public KeyUnavailableException(String sentence) {
    super(sentence);
  }
}
