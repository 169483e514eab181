package sealbook.keys;

import com.google.crypto.tink.hybrid.internal.HpkeContext;
import com.google.crypto.tink.hybrid.internal.HpkeKemPrivateKey;
import com.google.crypto.tink.hybrid.internal.HpkePrimitiveFactory;
import com.google.crypto.tink.hybrid.internal.HpkeUtil;
import com.google.crypto.tink.subtle.X25519;
import com.google.crypto.tink.util.Bytes;
import java.security.GeneralSecurityException;
import java.util.Arrays;

/**
 * RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM: the receiver's side, by Tink.
 *
 * <p>Tink's HybridDecrypt takes keysets; the classes below it, which it keeps in a package called internal, take
 * raw keys. The Spark of a sealbook release is one minor version, so its Tink is known, and the
 * RFC's vectors are among the tests.
 */
final class Hpke {
  private static final int ENCAPSULATED = 32;

  private final HpkeKemPrivateKey key;
  private final byte[] aead;

  Hpke(byte[] privateKey) throws GeneralSecurityException {
    this(privateKey, HpkeUtil.AES_256_GCM_AEAD_ID);
  }

  /** For the RFC's vectors, which have other AEADs with this KEM. */
  Hpke(byte[] privateKey, byte[] aead) throws GeneralSecurityException {
    this.key = new HpkeKemPrivateKey(
        Bytes.copyFrom(privateKey), Bytes.copyFrom(X25519.publicFromPrivate(privateKey)));
    this.aead = aead.clone();
  }

  /** Decrypt the encapsulated key and ciphertext in `sealed`. */
  byte[] open(byte[] sealed, byte[] info, byte[] aad) throws GeneralSecurityException {
    if (sealed.length < ENCAPSULATED) {
      throw new GeneralSecurityException("too short");
    }
    HpkeContext context = HpkeContext.createRecipientContext(
        Arrays.copyOf(sealed, ENCAPSULATED),
        key,
        HpkePrimitiveFactory.createKem(HpkeUtil.X25519_HKDF_SHA256_KEM_ID),
        HpkePrimitiveFactory.createKdf(HpkeUtil.HKDF_SHA256_KDF_ID),
        HpkePrimitiveFactory.createAead(aead),
        info);
    return context.open(Arrays.copyOfRange(sealed, ENCAPSULATED, sealed.length), aad);
  }
}
