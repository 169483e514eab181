"""What sealing says when it refuses; on purpose it says very little."""

from __future__ import annotations

from sealbook.errors import InputError, RefusedError


class UnsealError(RefusedError):
    """A sealed file was not opened; nothing of its content was returned or written.

    Tampering, truncation, a wrong key, and another key or context than was insisted on all give
    this one sentence: whoever feeds files to an enclave must not learn which check a forgery passed.

    Parameters
    ----------
    name
        The file's name as the caller knows it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} was not unsealed: the file, the key or the context is not the one of the sealing;"
            " use an intact copy and the right context; if a key rotation was cut short, `sealbook rekey`"
            " repairs it; what was sealed to a session/ key opens only while the Jupyter server or papermill"
            " run that made the key lives."
        )


class KeyUnavailableError(RefusedError):
    """The key provider does not hand out the key that was asked for."""


class NotSealedError(InputError):
    """The file does not begin like a sealed file.

    Parameters
    ----------
    name
        The file's name as the caller knows it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not a file sealed by sealbook; check the path.")


class DamagedFileError(InputError):
    """What a sealed file says of itself cannot be read.

    Only where no key is used: there is nothing that a forger could learn from it.

    Parameters
    ----------
    name
        The file's name as the caller knows it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} is cut off or damaged: what it says of itself cannot be read; use an intact copy."
        )


class MissingFileError(InputError, FileNotFoundError):
    """There is no such file; also Python's own error, which file systems and libraries look for."""

    # OSError would show "None" for the errno that this has not.
    __str__ = Exception.__str__
