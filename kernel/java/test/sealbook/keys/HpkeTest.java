package sealbook.keys;

import static sealbook.Run.refused;
import static sealbook.Run.require;

import com.google.crypto.tink.hybrid.internal.HpkeUtil;
import java.security.GeneralSecurityException;
import java.util.Arrays;
import java.util.HexFormat;

/** RFC 9180, appendix A.1.1: base mode with X25519, whose AEAD is AES-128-GCM. */
public final class HpkeTest {
  private static final String SECRET = "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8";
  private static final String INFO = "4f6465206f6e2061204772656369616e2055726e";
  private static final String ENC = "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431";
  private static final String TEXT =
      "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a";
  private static final String AAD = "436f756e742d30";

  private HpkeTest() {}

  private static byte[] hex(String text) {
    return HexFormat.of().parseHex(text);
  }

  public static void the_vector_of_the_rfc_opens() throws Exception {
    byte[] opened = new Hpke(hex(SECRET), HpkeUtil.AES_128_GCM_AEAD_ID).open(hex(ENC + TEXT), hex(INFO), hex(AAD));
    require(new String(opened).equals("Beauty is truth, truth beauty"), "another text");
  }

  public static void another_info_aad_key_or_ciphertext_does_not_open() throws Exception {
    Hpke hpke = new Hpke(hex(SECRET), HpkeUtil.AES_128_GCM_AEAD_ID);
    byte[] sealed = hex(ENC + TEXT);
    refused(GeneralSecurityException.class, () -> hpke.open(sealed, hex(INFO + "00"), hex(AAD)));
    refused(GeneralSecurityException.class, () -> hpke.open(sealed, hex(INFO), new byte[0]));
    refused(GeneralSecurityException.class, () -> new Hpke(hex(SECRET)).open(sealed, hex(INFO), hex(AAD)));
    for (int i : new int[] {0, 40, sealed.length - 1}) {
      byte[] changed = sealed.clone();
      changed[i] ^= 1;
      refused(GeneralSecurityException.class, () -> hpke.open(changed, hex(INFO), hex(AAD)));
    }
    for (int length : new int[] {0, 31, 32, 40}) {
      refused(GeneralSecurityException.class, () -> hpke.open(Arrays.copyOf(sealed, length), hex(INFO), hex(AAD)));
    }
  }
}
