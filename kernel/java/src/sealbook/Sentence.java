package sealbook;

/** An exception whose message is one sentence, meant for the person at the notebook; see sealbook/errors.py. */
public interface Sentence {
  /** Something was refused: a file, a key, a peer. */
  String REFUSED = "refused";

  /** What the person named cannot be used. */
  String INPUT = "input";

  /** A key is not handed out. */
  String KEY = "key";

  /** Which of these it is. */
  String kind();
}
