package sealbook.parquet;

import com.google.crypto.tink.subtle.Hkdf;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.Base64;
import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;
import org.apache.hadoop.conf.Configuration;
import org.apache.parquet.crypto.keytools.KmsClient;
import sealbook.Sentence;
import sealbook.keys.Key;
import sealbook.keys.KeyUnavailableException;
import sealbook.keys.Keys;

/**
 * Parquet modular encryption with sealbook's keys: master key ids are key names.
 *
 * <p>A wrapped key is the base64 of: 1 (1 byte), the key's version (4 bytes), a nonce (12), AES-256-GCM under
 * HKDF-SHA256(key, no salt, "sealbook 1 parquet key wrapping") with the name and the 4 bytes of the version as
 * associated data. The Python twin is sealbook/sealing/parquet.py.
 */
public final class SealbookKms implements KmsClient {
  private static final byte FORMAT = 1;
  private static final int NONCE = 12;
  private static final int TAG = 16;
  private static final int HEAD = 1 + 4 + NONCE;

  /** Longest key that Parquet has wrapped: 32 bytes, with room for what it may add. */
  private static final int MAX_KEY = 1024;

  private static final byte[] INFO = "sealbook 1 parquet key wrapping".getBytes(StandardCharsets.US_ASCII);
  private static final SecureRandom RANDOM = new SecureRandom();

  @Override
  public void initialize(Configuration conf, String instance, String url, String token) {
    // Keys come from this process's source. Nothing in a configuration has a say.
  }

  @Override
  public String wrapKey(byte[] plain, String name) {
    try {
      Key key = Keys.current(name);
      byte[] nonce = new byte[NONCE];
      RANDOM.nextBytes(nonce);
      byte[] sealed = cipher(Cipher.ENCRYPT_MODE, key, nonce).doFinal(plain);
      return Base64.getEncoder()
          .encodeToString(
              ByteBuffer.allocate(HEAD + sealed.length)
                  .put(FORMAT)
                  .putInt(key.version())
                  .put(nonce)
                  .put(sealed)
                  .array());
    } catch (KeyUnavailableException e) {
      throw new ParquetKeyException(e.getMessage(), Sentence.KEY);
    } catch (GeneralSecurityException e) {
      throw new ParquetKeyException(
          "A Parquet key could not be wrapped; this Java lacks a cipher.", Sentence.REFUSED);
    }
  }

  @Override
  public byte[] unwrapKey(String wrapped, String name) {
    try {
      byte[] data = Base64.getDecoder().decode(wrapped);
      if (data.length < HEAD + TAG || data.length > HEAD + TAG + MAX_KEY || data[0] != FORMAT) {
        throw refused();
      }
      int version = ByteBuffer.wrap(data, 1, 4).getInt();
      if (version < 1) {
        throw refused();
      }
      Key key = Keys.get(name, version);
      return cipher(Cipher.DECRYPT_MODE, key, Arrays.copyOfRange(data, 5, HEAD))
          .doFinal(data, HEAD, data.length - HEAD);
    } catch (KeyUnavailableException e) {
      throw new ParquetKeyException(e.getMessage(), Sentence.KEY);
    } catch (GeneralSecurityException | IllegalArgumentException e) {
      throw refused();
    }
  }

  private static Cipher cipher(int mode, Key key, byte[] nonce) throws GeneralSecurityException {
    byte[] derived = Hkdf.computeHkdf("HMACSHA256", key.secret(), new byte[0], INFO, Key.BYTES);
    Cipher cipher = Cipher.getInstance("AES/GCM/NoPadding");
    cipher.init(mode, new SecretKeySpec(derived, "AES"), new GCMParameterSpec(8 * TAG, nonce));
    cipher.updateAAD(key.name().getBytes(StandardCharsets.UTF_8));
    cipher.updateAAD(ByteBuffer.allocate(4).putInt(key.version()).array());
    return cipher;
  }

  private static ParquetKeyException refused() {
    return new ParquetKeyException(
        "An encrypted Parquet file was not opened: the file or the key is not the one it was written with; use an"
            + " intact copy.",
        Sentence.REFUSED);
  }
}
