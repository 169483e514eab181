package sealbook.fs;

import java.io.IOException;
import sealbook.Sentence;

/**
 * A sealed file was not opened. Tampering, truncation and a wrong key all give this one sentence: whoever feeds
 * files to an enclave must not learn which check a forgery passed.
 */
public final class UnsealException extends IOException implements Sentence {
  private static final long serialVersionUID = 1L;

  UnsealException(String name) {
    super(
        name + " was not unsealed: the file or the key is not the one of the sealing; use an intact copy; if a key"
            + " rotation was cut short, `sealbook rekey` repairs it; what was sealed to a session/ key opens only"
            + " while the Jupyter server or papermill run that made the key lives.");
  }

  @Override
  public String kind() {
    return REFUSED;
  }
}
