"""One user's SIMULATED platform: its keys on disk, its collateral, and attesters that quote with them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sealbook.attestation.attester import check_report_data
from sealbook.attestation.collateral import Collateral, MalformedCollateralError, parse_time
from sealbook.attestation.quote import Quote
from sealbook.attestation.simulated.forge import Forge, QuoteSpec, ReportSpec, new_key, public_point
from sealbook.attestation.simulated.measurement import Measurement
from sealbook.attestation.simulated.sgx_extension import SgxExtensionSpec
from sealbook.errors import InputError, RefusedError
from sealbook.files import write_bytes

#: Product id and security version of every sealbook kernel; the version rises with each security fix.
ISV_PROD_ID = 0x5EA1
ISV_SVN = 1

_KEYS = ("root", "pck_ca", "tcb_signer", "pck", "attestation", "enclave_signer")
_CERTIFICATES = ("root", "pck_ca", "tcb_signer", "pck")
_COLLATERAL = "collateral.json"
_COMPLETE = "complete"
_VALIDITY = timedelta(days=30)
_RENEW_BEFORE = timedelta(days=15)


class SimulatedPlatform:
    """Keys, certificates and collateral of a simulated SGX machine; make it with :meth:`load_or_create`."""

    def __init__(
        self, directory: Path, forge: Forge, signer: ec.EllipticCurvePrivateKey, clock: Callable[[], datetime]
    ) -> None:
        self._directory = directory
        self._forge = forge
        self._mrsigner = hashlib.sha256(public_point(signer)).digest()
        self._clock = clock
        self._mutex = threading.Lock()

    @classmethod
    def load_or_create(
        cls, directory: str | os.PathLike[str], *, now: datetime | None = None
    ) -> SimulatedPlatform:
        """Open the platform in `directory`, or make one there.

        Parameters
        ----------
        directory
            Made with mode 0700. Private keys in it have mode 0600. Several processes may do this at once:
            one makes the platform, the others wait and load it.
        now
            A fixed aware time for tests; by default the platform follows the clock.

        Raises
        ------
        InputError
            The directory cannot be used or its files are damaged.
        """
        if now is not None and now.tzinfo is None:
            raise ValueError("now must be an aware datetime")
        clock: Callable[[], datetime] = (lambda: now) if now is not None else (lambda: datetime.now(UTC))
        path = Path(directory)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
            with _locked(path):
                if not (path / _COMPLETE).exists():
                    _create(path, clock())
                forge, signer = _load(path, clock())
        except OSError as error:
            raise InputError(
                f"The simulated platform in {path} cannot be used ({error.strerror or error})."
            ) from None
        except (ValueError, TypeError):
            raise InputError(
                f"The simulated platform in {path} is damaged; delete the directory, and write new policies "
                "for the one that is made next."
            ) from None
        return cls(path, forge, signer, clock)

    @property
    def directory(self) -> Path:
        """Where it lies."""
        return self._directory

    @property
    def root_certificate(self) -> x509.Certificate:
        """What a policy pins."""
        return self._forge.root

    @property
    def mrsigner(self) -> bytes:
        """SHA-256 of the simulated signer's public key, 32 bytes."""
        return self._mrsigner

    @property
    def fmspc(self) -> str:
        """The simulated processor, 12 hex digits."""
        return self._forge.sgx.fmspc.hex()

    def collateral(self) -> Collateral:
        """Return the public collateral, renewed when half its time is over.

        Raises
        ------
        InputError
            The platform's directory cannot be read or written.
        """
        try:
            with self._mutex, _locked(self._directory):
                return self._current_collateral()
        except OSError as error:
            raise InputError(
                f"The simulated platform in {self._directory} cannot be used ({error.strerror or error})."
            ) from None

    def source(self) -> SimulatedCollateralSource:
        """Return this platform as a :class:`~sealbook.attestation.collateral.CollateralSource`."""
        return SimulatedCollateralSource(self)

    def attester(self, measurement: Measurement) -> SimulatedAttester:
        """Return what quotes for a process with this measurement."""
        return SimulatedAttester(self._forge, measurement, self._mrsigner)

    def _current_collateral(self) -> Collateral:
        path = self._directory / _COLLATERAL
        now = self._clock()
        try:
            current = Collateral.from_json(path.read_bytes())
            expires = parse_time(current.statement("tcb_info").get("nextUpdate"), what="nextUpdate")
            if expires - now > _RENEW_BEFORE:
                return current
        except (FileNotFoundError, MalformedCollateralError):
            pass
        self._forge.issue_collateral(issued=now - timedelta(hours=1), validity=_VALIDITY)
        renewed = self._forge.collateral()
        write_bytes(path, renewed.to_json(), mode=0o644)
        return renewed


class SimulatedCollateralSource:
    """The collateral of one simulated platform, for quotes of that platform."""

    def __init__(self, platform: SimulatedPlatform) -> None:
        self._platform = platform

    def collateral_for(self, quote: Quote) -> Collateral:
        """Return the collateral.

        Raises
        ------
        RefusedError
            The quote is of another platform.
        """
        if quote.fmspc != self._platform.fmspc:
            raise RefusedError(
                "There is no collateral for this platform: the quote is not of this simulated platform."
            )
        return self._platform.collateral()


class SimulatedAttester:
    """Quotes for one measurement, as the quoting enclave of hardware would. Thread-safe."""

    tee = "sgx"
    simulated = True

    def __init__(self, forge: Forge, measurement: Measurement, mrsigner: bytes) -> None:
        self._forge = forge
        self._report = ReportSpec(
            mrenclave=measurement.mrenclave, mrsigner=mrsigner, isv_prod_id=ISV_PROD_ID, isv_svn=ISV_SVN
        )

    @property
    def mrenclave(self) -> bytes:
        """The measurement it quotes."""
        return self._report.mrenclave

    def quote(self, report_data: bytes) -> bytes:
        """Return a SIMULATED quote over exactly 64 bytes.

        Raises
        ------
        ValueError
            Another length.
        """
        report = replace(self._report, report_data=check_report_data(report_data))
        return self._forge.quote(report, QuoteSpec())


def _create(path: Path, now: datetime) -> None:
    keys = {name: new_key() for name in _KEYS}
    ppid = b"SIMULATED" + hashlib.sha256(public_point(keys["pck"])).digest()[:7]
    forge = Forge.create(now, keys=keys, sgx=SgxExtensionSpec(ppid=ppid), validity=_VALIDITY)
    for name, key in keys.items():
        encoded = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_bytes(path / f"{name}.key.pem", encoded, mode=0o600)
    for name in _CERTIFICATES:
        certificate: x509.Certificate = getattr(forge, name)
        write_bytes(
            path / f"{name}.cert.pem", certificate.public_bytes(serialization.Encoding.PEM), mode=0o644
        )
    write_bytes(path / _COLLATERAL, forge.collateral().to_json(), mode=0o644)
    write_bytes(path / "README", b"SIMULATED platform of sealbook: no hardware stands behind these keys.\n")
    write_bytes(path / _COMPLETE, b"1\n", mode=0o600)


def _load(path: Path, now: datetime) -> tuple[Forge, ec.EllipticCurvePrivateKey]:
    keys: dict[str, ec.EllipticCurvePrivateKey] = {}
    for name in _KEYS:
        key = serialization.load_pem_private_key((path / f"{name}.key.pem").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("not a P-256 key")
        keys[name] = key
    certificates = {
        name: x509.load_pem_x509_certificate((path / f"{name}.cert.pem").read_bytes())
        for name in _CERTIFICATES
    }
    forge = Forge(
        now=now,
        root_key=keys["root"],
        pck_ca_key=keys["pck_ca"],
        tcb_signer_key=keys["tcb_signer"],
        pck_key=keys["pck"],
        attestation_key=keys["attestation"],
        root=certificates["root"],
        pck_ca=certificates["pck_ca"],
        tcb_signer=certificates["tcb_signer"],
        pck=certificates["pck"],
        root_crl=b"",
        pck_crl=b"",
        tcb_info={},
        qe_identity={},
    )
    return forge, keys["enclave_signer"]


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
