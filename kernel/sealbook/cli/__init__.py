"""The command `sealbook`: its commands, and how every one of them ends.

Exit status: 0 done; 1 refused, or something is missing; 2 the input cannot be used; 130 interrupted.
Errors are one sentence on stderr, never a traceback (``SEALBOOK_TRACEBACK=1`` shows it to developers).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from sealbook import __version__
from sealbook.cli import console
from sealbook.errors import SealbookError

#: What typer raises for wrong arguments. It carries its own copy of click from some version on, so the
#: class is taken from typer's public names.
_ArgumentError: type[Exception] = typer.BadParameter.__mro__[2]

_INTERRUPTED = 130

TRACEBACK_VARIABLE = "SEALBOOK_TRACEBACK"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit.

    Parameters
    ----------
    arguments
        Default: the process's.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    console.begin(json_output="--json" in arguments)
    sys.exit(_run(arguments or ["--help"]))


def _run(arguments: list[str]) -> int:
    from sealbook.cli.app import app

    try:
        status = app(args=arguments, prog_name="sealbook", standalone_mode=False)
        sys.stdout.flush()
    except (typer.Abort, KeyboardInterrupt):
        status = _INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as end:
        # Typer's answer to a broken pipe; it also ends completion in this way.
        if isinstance(end.__context__, BrokenPipeError):
            return _reader_left()
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        sentence, status = _explain(error)
        console.error(sentence)
        return status
    if status == _INTERRUPTED:
        console.error("Interrupted.")
    return status if isinstance(status, int) else 0


def _reader_left() -> int:
    """End quietly: whoever read our output has seen enough."""
    # Python would complain when it flushes what is left.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]
    return 0


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, SealbookError):
        return str(error), error.exit_code
    if isinstance(error, _ArgumentError):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "sealbook"
        text = error.format_message().rstrip(".").replace("\n", " ")  # type: ignore[attr-defined]
        return f"{text}; see `{command} --help`.", 2
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}.", 2
    return (
        f"An error inside sealbook {__version__} ({type(error).__name__}); nothing was done. "
        f"Set {TRACEBACK_VARIABLE}=1 to see where, and report it.",
        1,
    )
