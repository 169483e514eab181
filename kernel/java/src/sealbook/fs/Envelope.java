package sealbook.fs;

import com.fasterxml.jackson.databind.node.ObjectNode;
import com.google.crypto.tink.subtle.Hkdf;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.HexFormat;
import javax.crypto.AEADBadTagException;
import javax.crypto.Cipher;
import javax.crypto.Mac;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;
import sealbook.Json;
import sealbook.keys.Key;

/** The per-file data key: wrapped, committed to, split; as in sealbook/sealing/envelope.py, which see. */
final class Envelope {
  static final int FILE_ID_BYTES = 16;
  static final int NONCE = 12;
  static final int WRAPPED_BYTES = NONCE + Key.BYTES + Segments.TAG;

  private static final byte[] WRAP = ascii("sealbook 1 key wrapping");
  private static final byte[] COMMITMENT = ascii("sealbook 1 key commitment");
  private static final byte[] HEADER_MAC = ascii("sealbook 1 header mac");
  private static final SecureRandom RANDOM = new SecureRandom();

  private Envelope() {}

  static byte[] random(int length) {
    byte[] bytes = new byte[length];
    RANDOM.nextBytes(bytes);
    return bytes;
  }

  /** HKDF-SHA256 to 32 bytes. */
  static byte[] derive(byte[] key, byte[] salt, byte[] info) throws GeneralSecurityException {
    return Hkdf.computeHkdf("HMACSHA256", key, salt, info, Key.BYTES);
  }

  static byte[] commitment(byte[] dataKey, byte[] fileId) throws GeneralSecurityException {
    return derive(dataKey, fileId, COMMITMENT);
  }

  /** The HMAC of a header slot's bytes before it. */
  static byte[] headerMac(byte[] dataKey, byte[] fileId, byte[] slot, int length) throws GeneralSecurityException {
    Mac mac = Mac.getInstance("HmacSHA256");
    mac.init(new SecretKeySpec(derive(dataKey, fileId, HEADER_MAC), "HmacSHA256"));
    mac.update(slot, 0, length);
    return mac.doFinal();
  }

  /** Encrypt the data key under `key`, bound to the file, the key's name and version. */
  static byte[] wrap(byte[] dataKey, Key key, byte[] fileId, byte[] committed)
      throws GeneralSecurityException, IOException {
    byte[] nonce = random(NONCE);
    Cipher cipher = cipher(Cipher.ENCRYPT_MODE, key, fileId, nonce, committed);
    byte[] sealed = cipher.doFinal(dataKey);
    byte[] wrapped = Arrays.copyOf(nonce, WRAPPED_BYTES);
    System.arraycopy(sealed, 0, wrapped, NONCE, sealed.length);
    return wrapped;
  }

  /** Return the data key, or null if `wrapped` is not it under this key, file and commitment. */
  static byte[] unwrap(byte[] wrapped, Key key, byte[] fileId, byte[] committed)
      throws GeneralSecurityException, IOException {
    byte[] dataKey;
    try {
      Cipher cipher = cipher(Cipher.DECRYPT_MODE, key, fileId, Arrays.copyOf(wrapped, NONCE), committed);
      dataKey = cipher.doFinal(wrapped, NONCE, wrapped.length - NONCE);
    } catch (AEADBadTagException e) {
      return null;
    }
    return MessageDigest.isEqual(commitment(dataKey, fileId), committed) ? dataKey : null;
  }

  private static Cipher cipher(int mode, Key key, byte[] fileId, byte[] nonce, byte[] committed)
      throws GeneralSecurityException, IOException {
    Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
    cipher.init(
        mode,
        new SecretKeySpec(derive(key.secret(), fileId, WRAP), "AES"),
        new GCMParameterSpec(8 * Segments.TAG, nonce));
    ObjectNode aad = Json.object();
    aad.put("algorithm", Segments.ALGORITHM);
    aad.put("commitment", HexFormat.of().formatHex(committed));
    aad.put("file_id", HexFormat.of().formatHex(fileId));
    aad.put("key", key.name());
    aad.put("version", key.version());
    cipher.updateAAD(Json.canonical(aad));
    return cipher;
  }

  private static byte[] ascii(String text) {
    return text.getBytes(StandardCharsets.US_ASCII);
  }
}
