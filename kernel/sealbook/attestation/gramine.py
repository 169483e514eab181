"""Quotes and mount keys from Gramine's pseudo-files under ``/dev/attestation``.

As Gramine 1.9 has them ("Attestation and Secret Provisioning", "/dev/attestation pseudo-filesystem")::

    attestation_type   read    "dcap", or "none" for an image built without remote attestation
    user_report_data   write   64 bytes; fewer are padded and more are cut, both silently
    quote              read    made when it is opened, over what user_report_data holds then
    keys/NAME          write   exactly 16 bytes: the key of the encrypted mounts with that key_name

Gramine without SGX has only ``keys``. The files are one per process and not thread-safe, so a lock is held
from writing the report data until the quote is read. What the quote says is still compared, because
a quote passes through services of the host.
"""

from __future__ import annotations

import hmac
import os
import re
import threading
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sealbook.attestation.attester import Attester, check_report_data
from sealbook.attestation.policy import GRAMINE_DIRECT
from sealbook.attestation.quote import MalformedQuoteError, Quote
from sealbook.attestation.unattested import UnattestedAttester
from sealbook.errors import InputError, RefusedError

#: Where Gramine puts them.
DIRECTORY = Path("/dev/attestation")
#: The one kind of quote that sealbook's verifier reads.
DCAP = "dcap"
#: Gramine's own limit for a quote (QUOTE_MAX_SIZE of its attestation pseudo-files).
MAX_QUOTE_BYTES = 8192
#: AES-128, the only cipher of Gramine's encrypted files.
MOUNT_KEY_BYTES = 16
#: A sealbook key, as the broker releases it.
APP_KEY_BYTES = 32

_MAX_TYPE_BYTES = 64
_MOUNT_KEY_INFO = b"sealbook gramine mount key v1\0"
#: Without a leading underscore: Gramine's own keys, which every enclave of this platform can get, have one.
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

#: One for the process: there is one set of pseudo-files.
_lock = threading.Lock()


class GramineAttester:
    """Quotes of this SGX enclave. Thread-safe.

    Parameters
    ----------
    directory
        Where the pseudo-files are.

    Raises
    ------
    RefusedError
        They are not there, cannot be read, or the image was built without DCAP attestation.
    """

    tee = "sgx"
    simulated = False

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory
        kind = _read(directory / "attestation_type", _MAX_TYPE_BYTES)
        if kind != DCAP.encode():
            raise RefusedError(
                f"This image was built with the attestation type '{_shown(kind)}' and makes no quote: build "
                f'it anew with sgx.remote_attestation = "{DCAP}" (`sealbook image build`).'
            )

    def quote(self, report_data: bytes) -> bytes:
        """Return a quote over exactly 64 bytes.

        Raises
        ------
        ValueError
            `report_data` has another length; Gramine would pad or cut it silently.
        RefusedError
            Gramine made no quote, or not one over these bytes.
        """
        wanted = check_report_data(report_data)
        with _lock:
            _write(self._directory / "user_report_data", wanted)
            raw = _read(self._directory / "quote", MAX_QUOTE_BYTES)
        try:
            parsed = Quote.parse(raw)
        except MalformedQuoteError as error:
            raise RefusedError(
                f"What Gramine gave as a quote is none: {str(error).rstrip('.')}; see whether the host's "
                "quoting service (AESM) is set up for DCAP, `sealbook doctor` helps."
            ) from None
        if not hmac.compare_digest(parsed.report.report_data, wanted):
            raise RefusedError(
                "Gramine's quote carries other report data than was asked for: something else in this "
                "process writes to its attestation files; restart the kernel."
            )
        return raw


def open_attester(directory: Path = DIRECTORY) -> Attester:
    """Return what this kernel attests itself with, as far as Gramine offers anything.

    Returns
    -------
    Attester
        :class:`GramineAttester` under SGX. Where Gramine has none of its attestation files, as without
        SGX, an :class:`~sealbook.attestation.unattested.UnattestedAttester`, which says that there is no
        evidence.

    Raises
    ------
    RefusedError
        One of the files is there and attesting with them fails. A kernel that should attest itself never
        falls back to saying that it cannot.
    """
    if any(_is_there(directory / name) for name in ("attestation_type", "user_report_data", "quote")):
        return GramineAttester(directory)
    return UnattestedAttester(GRAMINE_DIRECT)


def mount_key(app_key: bytes, name: str) -> bytes:
    """Derive the key of an encrypted mount from a key of the broker.

    Gramine warns not to use one key for a mount and in the application, so the broker's key itself is
    never given to Gramine: HKDF-SHA-256 (RFC 5869) with the mount's key name in the info.

    Parameters
    ----------
    app_key
        32 bytes.
    name
        The mount's ``key_name``.

    Returns
    -------
    bytes
        16 bytes.
    """
    _check_key_name(name)
    if not isinstance(app_key, bytes) or len(app_key) != APP_KEY_BYTES:
        raise ValueError(f"a key to derive from has {APP_KEY_BYTES} bytes")
    info = _MOUNT_KEY_INFO + name.encode()
    return HKDF(hashes.SHA256(), MOUNT_KEY_BYTES, salt=None, info=info).derive(app_key)


def set_mount_key(name: str, key: bytes, directory: Path = DIRECTORY) -> None:
    """Give Gramine the key of the encrypted mounts with ``key_name`` `name`.

    Call it before anything opens a file there: a file that is opened for writing without the key stays
    unusable.

    Parameters
    ----------
    key
        16 bytes, from :func:`mount_key` or made in the enclave.

    Raises
    ------
    InputError
        `name` is no name of such a key.
    RefusedError
        The image has no such mount, or Gramine does not take the key.
    """
    _check_key_name(name)
    if not isinstance(key, bytes) or len(key) != MOUNT_KEY_BYTES:
        raise ValueError(f"the key of an encrypted mount has {MOUNT_KEY_BYTES} bytes")
    path = directory / "keys" / name
    if not _is_there(path):
        raise RefusedError(
            f"This image has no encrypted mount with the key '{name}': build it anew with "
            "`sealbook image build`, or start this kernel in Gramine."
        )
    _write(path, key)


def _check_key_name(name: str) -> None:
    if not isinstance(name, str) or not _KEY_NAME.fullmatch(name):
        raise InputError(
            "The key of an encrypted mount is named with letters, digits, '-' and '_', not first '_'."
        )


def _is_there(path: Path) -> bool:
    """Tell whether a name exists; whatever keeps that from being known is an error and not a no."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _failed(path, "looked up", error) from None
    return True


def _read(path: Path, limit: int) -> bytes:
    """Read a whole pseudo-file of at most `limit` bytes."""
    content = b""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Ends at the end of the file, or with one byte too many: then nothing is asked for any more.
            while piece := os.read(descriptor, limit + 1 - len(content)):
                content += piece
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _failed(path, "read", error) from None
    if len(content) > limit:
        raise RefusedError(f"Gramine's {path} has more than the {limit} bytes that are accepted.")
    return content


def _write(path: Path, data: bytes) -> None:
    """Write a pseudo-file with one call, because each call replaces what the one before it wrote."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _failed(path, "written", error) from None
    if written != len(data):
        raise RefusedError(f"Gramine's {path} took {written} bytes of {len(data)}; restart the kernel.")


def _failed(path: Path, done: str, error: OSError) -> RefusedError:
    # The operating system's words and the name only: never what was to be written.
    return RefusedError(
        f"Gramine's {path} cannot be {done} ({error.strerror or type(error).__name__}), so this kernel "
        "cannot attest itself or open its encrypted files; `sealbook doctor` says what this machine lacks."
    )


def _shown(kind: bytes) -> str:
    return "".join(c if c.isprintable() else "?" for c in kind.decode("ascii", errors="replace"))
