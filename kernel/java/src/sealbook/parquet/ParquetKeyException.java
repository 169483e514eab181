package sealbook.parquet;

import org.apache.parquet.crypto.KeyAccessDeniedException;
import sealbook.Sentence;

/** A key of an encrypted Parquet file is not wrapped or unwrapped; one sentence. */
public final class ParquetKeyException extends KeyAccessDeniedException implements Sentence {
  private static final long serialVersionUID = 1L;

  private final String kind;

  ParquetKeyException(String sentence, String kind) {
    super(sentence);
    this.kind = kind;
  }

  @Override
  public String kind() {
    return kind;
  }
}
