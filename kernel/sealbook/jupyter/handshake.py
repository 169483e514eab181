"""How a kernel registers: four messages in clear, of which nothing is secret and all is bound.

::

    kernel (enclave)                          provisioner (user's side)
    ---------------                           -------------------------
    hello {protocol}                      ->
                                          <-  challenge {client key, nonce, audience, broker}
    makes its CURVE keys, binds its ports
    evidence {kernel key, ports, evidence} -> verifies, before anything connects
                                          <-  verdict {accepted, sentence}

Whatever the host changes on the way changes what one end expects in REPORTDATA, and the
evidence is refused. A kernel that cannot attest itself says so in place of a quote
(:mod:`sealbook.attestation.unattested`): nothing is proven then, and only a policy that names this goes on.
After the verdict both ends derive the Jupyter HMAC key from their CURVE keys: it is never sent
and never stored.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from zmq.utils import z85

from sealbook.encoding import canonical_json, parse_json
from sealbook.errors import InputError, RefusedError
from sealbook.jupyter.curve import CurveKeys

#: 2: the registration carries `evidence`, which need not be a quote; the challenge may be signed and
#: names the key of encrypted mounts.
PROTOCOL = "sealbook-kernel/2"

#: A quote with its certificate chain has about 5 KiB; as base64 in JSON far below this.
MAX_MESSAGE = 64 * 1024

PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")

#: Whom the evidence is for; a quote made for another audience does not verify here.
AUDIENCE = "jupyter-client"

#: Afterwards, on the control channel: asks a kernel to attest itself anew; its reply, which proves nothing.
ATTEST_REQUEST = "sealbook_attest_request"
ATTEST_REPLY = "sealbook_attest_reply"

_CHALLENGE_CONTEXT = b"sealbook kernel challenge v1\0"
_MAX_KEY_NAME = 160

_SESSION_KEY_INFO = b"sealbook jupyter session key v1"
_Z85_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


@dataclass(frozen=True)
class Challenge:
    """What the provisioner asks of a kernel. Reaches the kernel as untrusted input, bound by its quote.

    Attributes
    ----------
    client_key
        The one CURVE public key the kernel is to admit (Z85).
    nonce
        32 bytes, used once.
    audience
        Who will verify.
    broker
        Address of the key broker, a CURVE server that proves `client_key`.
    data_key
        Name of the key that opens the kernel's encrypted mounts, or empty.
    signature
        Of the image's owner over everything else (Ed25519), or empty; see :mod:`sealbook.broker.ownership`.
    """

    client_key: str
    nonce: bytes
    audience: str
    broker: str
    data_key: str = ""
    signature: bytes = b""

    def encode(self) -> bytes:
        """Encode for the wire."""
        return canonical_json(
            {"type": "challenge"}
            | asdict(self)
            | {"nonce": self.nonce.hex(), "signature": self.signature.hex()}
        )

    def signed(self, key: Ed25519PrivateKey) -> Challenge:
        """Return this challenge with its owner's signature."""
        return replace(self, signature=key.sign(self._signed_part()))

    def check_signature(self, owner: bytes) -> None:
        """Check that the owner with this public key (32 bytes) asks; raises RefusedError otherwise."""
        try:
            Ed25519PublicKey.from_public_bytes(owner).verify(self.signature, self._signed_part())
        except (InvalidSignature, ValueError):
            raise RefusedError(
                "This image answers only to its owner, and the owner did not sign this challenge: start the "
                "kernel where the keyring is that the image was built with."
            ) from None

    def _signed_part(self) -> bytes:
        fields = asdict(replace(self, signature=b"")) | {"nonce": self.nonce.hex(), "signature": ""}
        return _CHALLENGE_CONTEXT + canonical_json(fields)

    @classmethod
    def decode(cls, frame: bytes) -> Challenge:
        """Decode a challenge; raises InputError for anything else."""
        names = ("client_key", "nonce", "audience", "broker", "data_key", "signature")
        fields = decode(frame, "challenge", names)
        data_key, signature = fields["data_key"], fields["signature"]
        if not isinstance(data_key, str) or len(data_key) > _MAX_KEY_NAME:
            raise InputError("A challenge has a data key that is no key's name.")
        return cls(
            client_key=_curve_key(fields["client_key"]),
            nonce=_hex(fields["nonce"], 32),
            audience=_text(fields["audience"]),
            broker=_text(fields["broker"]),
            data_key=data_key,
            signature=b"" if signature == "" else _hex(signature, 64),
        )


@dataclass(frozen=True)
class Registration:
    """What a kernel answers: its evidence and how to reach it.

    Attributes
    ----------
    kernel_key
        The kernel's CURVE public key (Z85), made in the enclave.
    ip, transport, ports
        Where its five channels listen.
    evidence
        DCAP quote over :func:`channel_claims`, or the statement that there is none.
    """

    kernel_key: str
    ip: str
    transport: str
    ports: Mapping[str, int]
    evidence: bytes

    @property
    def where(self) -> dict[str, Any]:
        """The kernel's addresses, as :func:`channel_claims` binds them."""
        return {"ip": self.ip, "transport": self.transport, "ports": dict(self.ports)}

    def encode(self) -> bytes:
        """Encode for the wire."""
        return canonical_json(
            {
                "type": "evidence",
                "kernel_key": self.kernel_key,
                **self.where,
                "evidence": base64.b64encode(self.evidence).decode(),
            }
        )

    @classmethod
    def decode(cls, frame: bytes) -> Registration:
        """Decode a registration; raises InputError for anything else."""
        fields = decode(frame, "evidence", ("kernel_key", "ip", "transport", "ports", "evidence"))
        ports = fields["ports"]
        if not isinstance(ports, dict) or set(ports) != set(PORTS):
            raise InputError("The kernel's registration does not name its five ports.")
        if not all(type(port) is int and 0 < port < 65536 for port in ports.values()):
            raise InputError("The kernel's registration has a port outside 1 to 65535.")
        if fields["transport"] != "tcp":
            raise InputError("The kernel's registration names a transport other than tcp.")
        try:
            ip = str(ipaddress.ip_address(_text(fields["ip"])))
        except ValueError:
            raise InputError("The kernel's registration names no IP address.") from None
        try:
            evidence = base64.b64decode(_text(fields["evidence"]), validate=True)
        except ValueError:
            raise InputError("The kernel's registration has evidence that is not base64.") from None
        return cls(_curve_key(fields["kernel_key"]), ip, "tcp", ports, evidence)


def channel_claims(challenge: Challenge, kernel_key: bytes, where: Mapping[str, Any]) -> dict[str, bytes]:
    """Return what REPORTDATA binds beside role, audience and nonce: both ends and every address.

    Parameters
    ----------
    challenge
        As sent by one end and as received by the other.
    kernel_key
        The kernel's CURVE public key.
    where
        ``ip``, ``transport`` and ``ports`` of the kernel.
    """
    return {
        "protocol": PROTOCOL.encode(),
        "kernel-curve-key": kernel_key,
        "client-curve-key": challenge.client_key.encode(),
        "broker": challenge.broker.encode(),
        "data-key": challenge.data_key.encode(),
        "channels": canonical_json(where),
    }


def session_key(own: CurveKeys, peer: bytes, nonce: bytes) -> bytes:
    """Derive the HMAC key of the Jupyter messages from the CURVE keys of both ends.

    X25519 (RFC 7748) of one's secret and the other's public key, then HKDF-SHA-256 (RFC 5869)
    with the nonce as salt. CURVE already authenticates every frame; the signature stays on
    because jupyter_client and ipykernel expect one.

    Returns
    -------
    bytes
        44 characters of base64.

    Raises
    ------
    InputError
        The peer's key is one of the few that give the same result for every secret (RFC 7748, section 6.1).
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(z85.decode(own.secret)).exchange(
            X25519PublicKey.from_public_bytes(z85.decode(peer))
        )
    except ValueError:
        raise InputError("The other end's CURVE key is of low order: nothing secret can be agreed.") from None
    derived = HKDF(hashes.SHA256(), 32, salt=nonce, info=_SESSION_KEY_INFO).derive(shared)
    return base64.b64encode(derived)


def hello() -> bytes:
    """Return the kernel's first message."""
    return canonical_json({"type": "hello", "protocol": PROTOCOL})


def decode_hello(frame: bytes) -> None:
    """Check a kernel's first message; raises InputError for anything else."""
    if decode(frame, "hello", ("protocol",))["protocol"] != PROTOCOL:
        raise InputError(f"A kernel speaks another protocol than {PROTOCOL}.")


def verdict(accepted: bool, sentence: str) -> bytes:
    """Return the provisioner's last message."""
    return canonical_json({"type": "verdict", "accepted": accepted, "sentence": sentence})


def decode(frame: bytes, kind: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Parse a message that must be of this kind and have exactly these fields.

    Raises
    ------
    InputError
        If it is anything else.
    """
    fields = parse_json(frame, what=f"A {kind} message", max_bytes=MAX_MESSAGE)
    if not isinstance(fields, dict) or fields.pop("type", None) != kind or set(fields) != set(names):
        raise InputError(f"A registration message is not a {kind} of {PROTOCOL}.")
    return fields


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InputError("A registration message has an empty field or one that is not text.")
    return value


def _hex(value: Any, length: int) -> bytes:
    try:
        decoded = bytes.fromhex(_text(value))
    except ValueError:
        decoded = b""
    if len(decoded) != length:
        raise InputError(f"A registration message has a field that is not {length} bytes of hex.")
    return decoded


def _curve_key(value: Any) -> str:
    text = _text(value)
    try:
        # Several texts decode to the same bytes modulo 2^32; only the one that encodes back is a key.
        valid = bool(_Z85_KEY.fullmatch(text)) and z85.encode(z85.decode(text)).decode() == text
    except (ValueError, struct.error):
        valid = False
    if not valid:
        raise InputError("A registration message has a CURVE key that is not 40 characters of Z85.")
    return text
