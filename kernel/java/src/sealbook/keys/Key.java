package sealbook.keys;

import java.io.NotSerializableException;
import java.io.ObjectOutputStream;

/** One version of a named 32-byte key. Never shown, never serialized: tasks and closures cannot carry it away. */
public final class Key {
  /** Length of every key in bytes. */
  public static final int BYTES = 32;

  private static final java.util.regex.Pattern NAME =
      java.util.regex.Pattern.compile("[a-z0-9][a-z0-9._-]{0,63}(?:/[a-z0-9][a-z0-9._-]{0,63})?");

  private final String name;
  private final int version;
  private final byte[] secret;

  /** Take a copy of `secret`. */
  public Key(String name, int version, byte[] secret) {
    if (version < 1 || secret.length != BYTES) {
      throw new IllegalArgumentException("not a key");
    }
    this.name = checkName(name);
    this.version = version;
    this.secret = secret.clone();
  }

  /** Return `name` if it is a key name: `key` or `owner/key`. */
  public static String checkName(String name) {
    if (!isName(name)) {
      throw new IllegalArgumentException(
          "This is not a key name; write `key` or `owner/key` with a-z, 0-9, '.', '_' and '-', at most 64"
              + " characters each.");
    }
    return name;
  }

  /** Tell whether this is a key name. */
  public static boolean isName(String name) {
    return name != null && NAME.matcher(name).matches();
  }

  public String name() {
    return name;
  }

  public int version() {
    return version;
  }

  /** The 32 bytes; the caller does not change them. */
  public byte[] secret() {
    return secret;
  }

  @Override
  public String toString() {
    return "Key " + name + " version " + version;
  }

  private void writeObject(ObjectOutputStream out) throws NotSerializableException {
    throw new NotSerializableException("sealbook.keys.Key");
  }
}
