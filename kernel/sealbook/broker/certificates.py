"""The two authorities of a broker: one for nodes that proved what they are, one for the broker itself.

Both are derived from reserved keys of the keyring and so are the same whenever the broker starts. They share
nothing: a node's certificate never passes as a broker's, nor the other way round.

A node's certificate carries one extension of our own, :data:`NODE_EXTENSION`, which is canonical JSON::

    {"cluster", "measurement", "membership", "role", "session", "simulated"}

``membership`` is made with the cluster's secret over the certificate's public key. Whoever issued the
certificate but does not have that secret cannot make a member.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealbook.broker.authorities import check_authority
from sealbook.broker.keyring import StoredKey
from sealbook.encoding import canonical_json
from sealbook.errors import InputError

#: Under 2.25 anyone may use the number of a UUID (X.667): 2ea574f7-9d1e-4bd6-a721-469363ac8d72.
NODE_EXTENSION: Final = x509.ObjectIdentifier("2.25.62003589165260313783015266293400767858")

#: Most names and addresses of one node.
MAX_HOSTS: Final = 16

_MEMBERSHIP: Final = b"sealbook cluster membership 1"
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_AUTHORITY_LIFETIME: Final = timedelta(days=3650)
#: Clocks of other machines may be behind.
_BACKDATED: Final = timedelta(minutes=5)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")


@dataclass(frozen=True)
class NodeFacts:
    """What a node's certificate says of it beside its key; all of it public."""

    role: str
    cluster: str
    measurement: str
    simulated: bool
    session: str
    membership: str

    def encode(self) -> bytes:
        """Return the content of the extension."""
        return canonical_json(asdict(self))


class Authority:
    """Issues certificates; nothing of it is kept but the key that it is derived from.

    Parameters
    ----------
    stored
        The reserved key; its newest version counts.
    """

    def __init__(self, stored: StoredKey) -> None:
        name, current = stored.record.name, stored.record.versions[-1]
        info = f"sealbook certificate authority {name} 1".encode()
        seed = HKDF(hashes.SHA256(), 48, salt=None, info=info).derive(stored.version().secret)
        # 128 bits more than the order has: the remainder is uniform for every practical purpose.
        self._key = ec.derive_private_key(int.from_bytes(seed, "big") % (_ORDER - 1) + 1, ec.SECP256R1())
        spki = public_der(self._key.public_key())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"sealbook {name} {current.version}")])
        created = datetime.fromisoformat(current.created).replace(microsecond=0)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self._key.public_key())
            # Everything about it is derived, so that it is the same bytes at every start.
            .serial_number(int.from_bytes(hashlib.sha256(spki).digest()[:16], "big") >> 1)
            .not_valid_before(created - _BACKDATED)
            .not_valid_after(created + _AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        )
        self.certificate = builder.sign(self._key, hashes.SHA256(), ecdsa_deterministic=True)

    @property
    def pem(self) -> str:
        """The authority's own certificate."""
        return pem(self.certificate)

    def issue_node(
        self,
        public_key: ec.EllipticCurvePublicKey,
        facts: NodeFacts,
        hosts: Sequence[str],
        *,
        now: datetime,
        expires: datetime,
    ) -> x509.Certificate:
        """Issue the certificate of a node: client and server, for its hosts."""
        builder = self._leaf(public_key, facts.session, now, expires, hosts)
        return (
            builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                False,
            )
            .add_extension(x509.UnrecognizedExtension(NODE_EXTENSION, facts.encode()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def issue_server(
        self, public_key: ec.EllipticCurvePublicKey, hosts: Sequence[str], *, now: datetime, expires: datetime
    ) -> x509.Certificate:
        """Issue the broker's own certificate: a server's and no client's."""
        builder = self._leaf(public_key, "sealbook broker", now, expires, hosts)
        return builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        ).sign(self._key, hashes.SHA256())

    def _leaf(
        self,
        public_key: ec.EllipticCurvePublicKey,
        name: str,
        now: datetime,
        expires: datetime,
        hosts: Sequence[str],
    ) -> x509.CertificateBuilder:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        return builder


def membership(secret: bytes, spki: bytes) -> str:
    """Return the tag that only who has the cluster's secret can make for this public key."""
    return base64.b64encode(hmac.digest(secret, _MEMBERSHIP + spki, "sha256")).decode()


def node_public_key(spki: bytes) -> ec.EllipticCurvePublicKey:
    """Read a node's TLS key: P-256, in the one encoding there is.

    Raises
    ------
    InputError
        It is another kind of key, or encoded otherwise: evidence binds the bytes, so they must mean one key.
    """
    try:
        key = load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if (
        not isinstance(key, ec.EllipticCurvePublicKey)
        or not isinstance(key.curve, ec.SECP256R1)
        or public_der(key) != spki
    ):
        raise InputError("The TLS key is not a P-256 public key (SubjectPublicKeyInfo, DER).")
    return key


def check_hosts(hosts: object) -> list[str]:
    """Return `hosts` if they are names and addresses that a certificate can carry; raises InputError."""
    if (
        not isinstance(hosts, list | tuple)
        or len(hosts) > MAX_HOSTS
        or len(set(map(str, hosts))) != len(hosts)
        or not all(isinstance(host, str) and (_is_address(host) or _HOST.fullmatch(host)) for host in hosts)
    ):
        raise InputError(f"The hosts of a node are at most {MAX_HOSTS} different names and addresses.")
    return list(hosts)


def fingerprint(certificate: x509.Certificate | bytes) -> str:
    """Return the SHA-256 of a certificate's DER, lower-case hex."""
    der = certificate if isinstance(certificate, bytes) else certificate.public_bytes(Encoding.DER)
    return hashlib.sha256(der).hexdigest()


def authority_id(ca_pem: str) -> bytes:
    """Return what names a broker's authority: the SHA-256 of its public key (DER), 32 bytes.

    Raises
    ------
    InputError
        `ca_pem` is not one certificate in PEM.
    """
    return hashlib.sha256(public_der(check_authority(ca_pem).public_key())).digest()


def public_der(key: Any) -> bytes:
    """Return a public key as SubjectPublicKeyInfo, DER."""
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def pem(certificate: x509.Certificate) -> str:
    """Return a certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM).decode()


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    return [
        x509.IPAddress(ipaddress.ip_address(host)) if _is_address(host) else x509.DNSName(host)
        for host in hosts
    ]


def _is_address(host: str) -> bool:
    try:
        # A zone ("%eth0") has no place in a certificate.
        return "%" not in host and bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
