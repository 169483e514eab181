package sealbook.keys;

import java.io.IOException;

/** A broker could not be asked, or said no; the message is one sentence. */
public final class BrokerException extends IOException {
  private static final long serialVersionUID = 1L;

  private final boolean temporary;
  private final boolean refusal;

  /** What happened, and whether trying again may help. */
  BrokerException(String sentence, boolean temporary) {
    this(sentence, temporary, false);
  }

  private BrokerException(String sentence, boolean temporary, boolean refusal) {
    super(sentence);
    this.temporary = temporary;
    this.refusal = refusal;
  }

  /** The broker itself said no, over its authenticated connection. */
  static BrokerException refusal(String sentence) {
    return new BrokerException(sentence, false, true);
  }

  /** Tell whether the broker may answer when it is asked again: it was busy, or not there. */
  public boolean isTemporary() {
    return temporary;
  }

  /** Tell whether this is the broker's own word that this node is not, or no longer, admitted. */
  public boolean isRefusal() {
    return refusal;
  }
}
