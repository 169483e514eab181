package sealbook.fs;

import java.nio.ByteBuffer;
import java.security.GeneralSecurityException;
import java.security.SecureRandom;
import java.util.Arrays;
import javax.crypto.AEADBadTagException;
import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;

/** Encrypts and decrypts the segments of one file; not for several threads at once. */
final class SegmentCipher {
  private final byte[] streamHeader;
  private final byte[] prefix;
  private final SecretKeySpec key;
  private final Cipher cipher;

  /** The cipher of a new stream, with new random salt and nonce prefix. */
  static SegmentCipher fresh(byte[] dataKey, byte[] aad) throws GeneralSecurityException {
    byte[] random = new byte[Segments.STREAM_HEADER];
    new SecureRandom().nextBytes(random);
    random[0] = Segments.STREAM_HEADER;
    return new SegmentCipher(dataKey, aad, random);
  }

  /** The cipher of the stream that begins with these 40 bytes. */
  SegmentCipher(byte[] dataKey, byte[] aad, byte[] streamHeader) throws GeneralSecurityException {
    if (streamHeader.length != Segments.STREAM_HEADER || streamHeader[0] != Segments.STREAM_HEADER) {
      throw new AEADBadTagException();
    }
    this.streamHeader = streamHeader.clone();
    byte[] salt = Arrays.copyOfRange(streamHeader, 1, 1 + Segments.SALT);
    prefix = Arrays.copyOfRange(streamHeader, 1 + Segments.SALT, Segments.STREAM_HEADER);
    byte[] derived = Envelope.derive(dataKey, salt, aad);
    key = new SecretKeySpec(derived, "AES");
    Arrays.fill(derived, (byte) 0);
    cipher = Cipher.getInstance("AES/GCM/NoPadding");
  }

  byte[] streamHeader() {
    return streamHeader.clone();
  }

  /** Encrypt into `out`, which gets {@link Segments#TAG} bytes more than `length`; return how many. */
  int encrypt(long index, boolean last, byte[] plain, int length, byte[] out) throws GeneralSecurityException {
    cipher.init(Cipher.ENCRYPT_MODE, key, nonce(index, last));
    return cipher.doFinal(plain, 0, length, out, 0);
  }

  /** Decrypt into `out` at `offset`; return how many bytes. What `out` holds after an exception is nothing. */
  int decrypt(long index, boolean last, byte[] sealed, int length, byte[] out, int offset)
      throws GeneralSecurityException {
    cipher.init(Cipher.DECRYPT_MODE, key, nonce(index, last));
    return cipher.doFinal(sealed, 0, length, out, offset);
  }

  private GCMParameterSpec nonce(long index, boolean last) {
    // The last flag is what makes a truncated stream fail: no other segment carries it.
    byte[] nonce =
        ByteBuffer.allocate(12).put(prefix).putInt((int) index).put((byte) (last ? 1 : 0)).array();
    return new GCMParameterSpec(8 * Segments.TAG, nonce);
  }
}
