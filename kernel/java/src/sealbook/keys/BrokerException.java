package sealbook.keys;

import java.io.IOException;

/** A broker could not be asked, or said no; the message is one sentence. */
public final class BrokerException extends IOException {
  private static final long serialVersionUID = 1L;

  private final boolean temporary;

  /** What happened, and whether trying again may help. */
  BrokerException(String sentence, boolean temporary) {
    super(sentence);
    this.temporary = temporary;
  }

  /** Tell whether the broker may answer when it is asked again: it was busy, or not there. */
  public boolean isTemporary() {
    return temporary;
  }
}
