package sealbook.keys;

import java.util.Arrays;
import java.util.Base64;

/** Keys from a {@link KeyCallback}. */
final class CallbackKeys implements KeySource {
  private static final String REFUSED = "error:";
  private static final int MAX_SENTENCE = 500;

  private final KeyCallback callback;

  CallbackKeys(KeyCallback callback) {
    this.callback = callback;
  }

  @Override
  public Key current(String name) throws KeyUnavailableException {
    return ask(name, 0, "seal");
  }

  @Override
  public Key get(String name, int version) throws KeyUnavailableException {
    return ask(name, version, "unseal");
  }

  private Key ask(String name, int version, String purpose) throws KeyUnavailableException {
    String answer;
    try {
      answer = callback.key(name, version, purpose);
    } catch (RuntimeException e) {
      // Not as a cause, nor its text: py4j puts a whole Python traceback there.
      throw new KeyUnavailableException("The kernel could not be asked for key " + name + "; restart it.");
    }
    if (answer != null && answer.startsWith(REFUSED)) {
      String sentence = answer.substring(REFUSED.length());
      throw new KeyUnavailableException(
          sentence.length() > MAX_SENTENCE ? sentence.substring(0, MAX_SENTENCE) : sentence);
    }
    byte[] secret = new byte[0];
    try {
      int colon = answer.indexOf(':');
      int released = Integer.parseInt(answer.substring(0, colon));
      secret = Base64.getDecoder().decode(answer.substring(colon + 1));
      if (version != 0 && released != version) {
        throw new IllegalArgumentException();
      }
      return new Key(name, released, secret);
    } catch (RuntimeException e) {
      throw new KeyUnavailableException("The kernel answered with what is not key " + name + "; report this.");
    } finally {
      Arrays.fill(secret, (byte) 0);
    }
  }
}
