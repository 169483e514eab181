"""The SGX extension of a PCK certificate, in DER.

Intel, "SGX PCK Certificate and CRL Profile Specification", section 3. `cryptography` can
carry an extension it does not know but has no encoder for a sequence of mixed types with an
ENUMERATED, hence the few lines of DER here. They make simulated certificates and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

OID = "1.2.840.113741.1.13.1"


@dataclass(frozen=True)
class SgxExtensionSpec:
    """What a PCK says about its platform; every field can be forged.

    Attributes
    ----------
    ppid, cpu_svn, platform_instance_id
        16 bytes; the instance id is left out when None.
    pce_id, fmspc
        2 and 6 bytes.
    dynamic_platform, cached_keys, smt_enabled
        The configuration of multi-package platforms; left out when all are None.
    """

    ppid: bytes = b"SIMULATED-PPID-0"
    cpu_svn: bytes = bytes([11, 11, 2, 2, 255, 1]) + bytes(10)
    pce_svn: int = 13
    pce_id: bytes = b"\0\0"
    fmspc: bytes = bytes.fromhex("00005ea10000")
    sgx_type: int = 0
    platform_instance_id: bytes | None = None
    dynamic_platform: bool | None = None
    cached_keys: bool | None = None
    smt_enabled: bool | None = None

    def der(self) -> bytes:
        """Return the extension's value."""
        tcb = [_pair(f"2.{i + 1}", _integer(svn)) for i, svn in enumerate(self.cpu_svn)]
        tcb += [_pair("2.17", _integer(self.pce_svn)), _pair("2.18", _octets(self.cpu_svn))]
        items = [
            _pair("1", _octets(self.ppid)),
            _pair("2", _sequence(*tcb)),
            _pair("3", _octets(self.pce_id)),
            _pair("4", _octets(self.fmspc)),
            _pair("5", _tlv(0x0A, bytes([self.sgx_type]))),
        ]
        if self.platform_instance_id is not None:
            items.append(_pair("6", _octets(self.platform_instance_id)))
        flags = [
            _pair(f"7.{i}", _tlv(0x01, b"\xff" if flag else b"\0"))
            for i, flag in enumerate((self.dynamic_platform, self.cached_keys, self.smt_enabled), 1)
            if flag is not None
        ]
        if flags:
            items.append(_pair("7", _sequence(*flags)))
        return _sequence(*items)


def _pair(suffix: str, value: bytes) -> bytes:
    return _sequence(_object_identifier(f"{OID}.{suffix}"), value)


def _tlv(tag: int, value: bytes) -> bytes:
    length = len(value)
    if length < 128:
        return bytes([tag, length]) + value
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + value


def _sequence(*items: bytes) -> bytes:
    return _tlv(0x30, b"".join(items))


def _octets(value: bytes) -> bytes:
    return _tlv(0x04, value)


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _object_identifier(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    body = bytearray([40 * first + second])
    for number in rest:
        chunk = [number & 0x7F]
        while number := number >> 7:
            chunk.append(0x80 | (number & 0x7F))
        body += bytes(reversed(chunk))
    return _tlv(0x06, bytes(body))
