package sealbook.fs;

import java.io.IOException;
import sealbook.Sentence;

/** The URL names a key, and the file is sealed to another one. */
public final class OtherKeyException extends IOException implements Sentence {
  private static final long serialVersionUID = 1L;

  OtherKeyException(String name, String key) {
    super(
        name + " was not opened: it is not sealed to key " + key + " alone, which the URL names; use an intact copy,"
            + " or sealed:///path to read it under the key in its header.");
  }

  @Override
  public String kind() {
    return REFUSED;
  }
}
