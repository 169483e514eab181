"""Where the passphrase of the keyring file comes from: the terminal, or an inherited pipe.

Never from a command line, an environment variable or a file. A program that starts another
(`sealbook lab` starts JupyterLab) hands the passphrase on through a pipe: the environment names
only the descriptor's number, and the pipe is read once, closed, and its content kept in memory.
"""

from __future__ import annotations

import getpass
import os
import select
import stat
import threading
from collections.abc import Callable

from sealbook.errors import InputError, RefusedError

#: Number of the inherited descriptor, as "N" or "N:INODE". The inode lets a grandchild that inherited
#: the variable but not the descriptor notice that its own descriptor N is something else.
DESCRIPTOR_VARIABLE = "SEALBOOK_PASSPHRASE_FD"

#: Shortest passphrase a new keyring file takes; scrypt makes guessing slow, not impossible.
MIN_LENGTH = 8

_MAX_BYTES = 1024
_PATIENCE_SECONDS = 10.0

_claim_lock = threading.Lock()
_claimed: str | None = None


class KeyringLockedError(RefusedError):
    """The keyring needs its passphrase and nobody can be asked for it."""


def inherited() -> str:
    """Return the passphrase that the parent process handed over through a pipe.

    The first call reads and closes the descriptor and removes the variable, so that no later
    child inherits either; further calls answer from memory.

    Raises
    ------
    KeyringLockedError
        No descriptor was handed over.
    InputError
        The variable names something that is not a readable pipe with a passphrase in it.
    """
    global _claimed
    with _claim_lock:
        if _claimed is None:
            named = os.environ.pop(DESCRIPTOR_VARIABLE, None)
            if named is None:
                raise KeyringLockedError(
                    "The keyring is locked: start JupyterLab by `sealbook lab`, which asks for the "
                    f"passphrase, or hand it over through a pipe whose number is in ${DESCRIPTOR_VARIABLE}."
                )
            _claimed = _read_pipe(named)
        return _claimed


def interactive(*, confirm: bool = False) -> Callable[[], str]:
    """Return a source that takes the inherited passphrase, else asks at the terminal.

    Parameters
    ----------
    confirm
        Ask twice, for a keyring that is made now.
    """

    def ask() -> str:
        try:
            return inherited()
        except KeyringLockedError:
            return _from_terminal(confirm=confirm)

    return ask


def hand_over(passphrase: str) -> tuple[int, str]:
    """Put `passphrase` into a pipe for a program that this process is about to become or start.

    Returns
    -------
    tuple of int and str
        The inheritable read end, and the value of :data:`DESCRIPTOR_VARIABLE` that names it.
    """
    data = passphrase.encode()
    if len(data) > _MAX_BYTES:
        raise InputError(f"The passphrase is longer than {_MAX_BYTES} bytes.")
    reader, writer = os.pipe()
    with open(writer, "wb") as file:  # far below PIPE_BUF: cannot block
        file.write(data)
    os.set_inheritable(reader, True)
    return reader, f"{reader}:{os.fstat(reader).st_ino}"


def _read_pipe(named: str) -> str:
    number, _, inode = named.partition(":")
    complaint = InputError(
        f"${DESCRIPTOR_VARIABLE} does not name a readable pipe (numbered 3 or higher) with a passphrase."
    )
    if not number.isdecimal() or int(number) < 3 or (inode and not inode.isdecimal()):
        raise complaint
    descriptor = int(number)
    try:
        status = os.fstat(descriptor)
    except OSError:
        raise complaint from None
    # A regular file would mean that the passphrase lies on a disk.
    if not stat.S_ISFIFO(status.st_mode) or (inode and status.st_ino != int(inode)):
        raise complaint
    data = b""
    try:
        while len(data) <= _MAX_BYTES:
            if not select.select([descriptor], [], [], _PATIENCE_SECONDS)[0]:
                raise complaint
            piece = os.read(descriptor, _MAX_BYTES + 1 - len(data))
            if not piece:
                break
            data += piece
    except OSError:
        raise complaint from None
    finally:
        os.close(descriptor)
    try:
        passphrase = data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise complaint from None
    if not passphrase or len(data) > _MAX_BYTES:
        raise complaint
    return passphrase


def _from_terminal(*, confirm: bool) -> str:
    try:
        # getpass would fall back to an echoing read of stdin; a passphrase in a pipeline is not wanted.
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        raise KeyringLockedError(
            "The keyring is locked and there is no terminal to ask for its passphrase: "
            f"hand it over through a pipe whose number is in ${DESCRIPTOR_VARIABLE}."
        ) from None
    try:
        new = f"Choose a passphrase of {MIN_LENGTH} characters or more (nobody can recover it): "
        passphrase = getpass.getpass(new if confirm else "Passphrase of the sealbook keyring: ")
        if confirm and getpass.getpass("The same again: ") != passphrase:
            raise InputError("The two passphrases differ; nothing was changed.")
    except EOFError:
        raise KeyringLockedError("No passphrase was given; the keyring stays locked.") from None
    return passphrase
