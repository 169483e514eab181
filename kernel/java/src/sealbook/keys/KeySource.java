package sealbook.keys;

/** Where sealing keys come from. */
public interface KeySource {
  /** Return the newest version of key `name`, to seal with. */
  Key current(String name) throws KeyUnavailableException;

  /** Return exactly that version of key `name`, to unseal with. */
  Key get(String name, int version) throws KeyUnavailableException;
}
