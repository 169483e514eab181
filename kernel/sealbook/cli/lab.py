"""`sealbook lab`: JupyterLab with the keyring's passphrase handed to its broker."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import NoReturn

import typer

from sealbook.cli import console
from sealbook.errors import MissingDependencyError


def lab(context: typer.Context) -> NoReturn:
    """Start JupyterLab; arguments go to it. Asks for the keyring's passphrase where there is one."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise MissingDependencyError("JupyterLab is not installed: `pip install 'sealbook[lab]'`.")
    environment = dict(os.environ)
    passphrase = _passphrase()
    if passphrase is not None:
        from sealbook.broker.passphrase import DESCRIPTOR_VARIABLE, hand_over

        _, environment[DESCRIPTOR_VARIABLE] = hand_over(passphrase)
    sys.stdout.flush()
    sys.stderr.flush()
    # This process becomes JupyterLab: nothing stays between it and the terminal's signals.
    os.execve(sys.executable, [sys.executable, "-m", "jupyterlab", *context.args], environment)  # noqa: S606


def _passphrase() -> str | None:
    """Return the passphrase of the keyring file, tried out; None where none is needed or to be had."""
    from sealbook import paths
    from sealbook.broker import KeyringLockedError, PassphraseFileStore
    from sealbook.broker.passphrase import interactive

    path = paths.keyring_file()
    if not path.exists():
        return None
    ask = interactive()
    try:
        given = ask()
    except KeyringLockedError:
        console.note(
            "Nobody can be asked for the keyring's passphrase, so its keys stay locked in this session."
        )
        return None
    # A typing error is better found here than by the first cell that wants a key.
    PassphraseFileStore(path, lambda: given).read()
    return given
