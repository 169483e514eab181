package sealbook.keys;

/** What the kernel's Python implements over py4j, so that the driver's keys come from the kernel's session. */
public interface KeyCallback {
  /**
   * Return "version:base64" of a key, or "error:" and one sentence; does not raise.
   *
   * @param version 0 for the newest
   * @param purpose "seal" or "unseal"
   */
  String key(String name, int version, String purpose);
}
