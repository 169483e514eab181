package sealbook.keys;

/** This process's keys. */
public final class Keys {
  private static volatile CachedKeys source;

  private Keys() {}

  /** Ask the kernel's Python from now on; what was fetched elsewhere is forgotten. */
  public static void setCallback(KeyCallback callback) {
    source = callback == null ? null : new CachedKeys(new CallbackKeys(callback));
  }

  /** Ask this source from now on. */
  public static void setSource(KeySource given) {
    source = given == null ? null : new CachedKeys(given);
  }

  /** Forget every key that was fetched: who still may have them gets them again. */
  public static void forget() {
    CachedKeys now = source;
    if (now != null) {
      now.forget();
    }
  }

  /** Return the newest version of a key, to seal with. */
  public static Key current(String name) throws KeyUnavailableException {
    return source(name).current(name);
  }

  /** Return one version of a key, to unseal with. */
  public static Key get(String name, int version) throws KeyUnavailableException {
    return source(name).get(name, version);
  }

  private static KeySource source(String name) throws KeyUnavailableException {
    if (!Key.isName(name)) {
      throw new KeyUnavailableException(
          "This is not a key name; write `key` or `owner/key` with a-z, 0-9, '.', '_' and '-', at most 64"
              + " characters each.");
    }
    KeySource now = source;
    if (now == null) {
      throw new KeyUnavailableException("This JVM has no sealing keys; use Spark from a sealbook kernel.");
    }
    return now;
  }
}
