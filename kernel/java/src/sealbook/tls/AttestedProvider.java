package sealbook.tls;

import java.security.NoSuchAlgorithmException;
import java.security.PrivateKey;
import java.security.Provider;
import java.security.cert.X509Certificate;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

/**
 * The JCA provider of the TLS protocol {@link #PROTOCOL}, which Spark is configured to use for RPC
 * (`spark.ssl.rpc.protocol`) and Jetty. Spark's own RPC TLS authenticates only the server, trusts everybody where
 * a trust store is missing, and checks no name; here both ends prove what they run, whatever Spark passes in.
 *
 * <p>Each provider belongs to one identity. Where none is registered, there is no such protocol and Spark ends.
 */
public final class AttestedProvider extends Provider {
  private static final long serialVersionUID = 1L;

  /** What to set Spark's TLS protocol to. */
  public static final String PROTOCOL = "AttestedTLS";

  private static final String NAME = "Sealbook";

  /** For a member of a cluster: connections to other members. */
  public AttestedProvider(Identity own, Members members, Refusals refusals) {
    this(
        () -> new OwnKey(own.key, own.certificate()),
        () -> new MemberCheck(own, members, refusals));
  }

  /** For Spark without a cluster, which listens and connects all the same: connections to itself. */
  public AttestedProvider(X509Certificate certificate, PrivateKey key) {
    this(() -> new OwnKey(key, certificate), () -> new SelfCheck(certificate));
  }

  private AttestedProvider(Supplier<OwnKey> keys, Supplier<PeerCheck> checks) {
    super(NAME, "1", "mutual TLS between attested nodes");
    putService(
        new Service(this, "SSLContext", PROTOCOL, AttestedContext.class.getName(), List.of(), Map.of()) {
          @Override
          public Object newInstance(Object parameter) throws NoSuchAlgorithmException {
            return new AttestedContext(keys, checks);
          }
        });
  }
}
