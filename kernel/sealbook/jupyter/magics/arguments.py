"""How a magic's line is read: ``--help``, quoting as in a shell, and errors of one line."""

from __future__ import annotations

import argparse
import functools
import shlex
from collections.abc import Callable, Sequence
from typing import NoReturn, ParamSpec, TypeVar

from sealbook.errors import InputError, SealbookError

_P = ParamSpec("_P")
_R = TypeVar("_R")

_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


class MagicParser(argparse.ArgumentParser):
    """An argument parser that raises sentences and never ends the process.

    Parameters
    ----------
    name
        The magic with its percent signs.
    description
        What the magic does; shown by ``--help`` and, as the magic's docstring, by ``%magic?``.
    """

    def __init__(self, name: str, description: str) -> None:
        super().__init__(
            prog=name,
            description=description,
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument("-h", "--help", action="store_true", help="show this help")

    def read(self, line: str) -> argparse.Namespace | None:
        """Parse the rest of a magic's line.

        Returns
        -------
        argparse.Namespace or None
            None when help was asked for; it has been printed then.

        Raises
        ------
        InputError
            The line does not parse; the sentence says how it should look.
        """
        try:
            words = shlex.split(line)
        except ValueError:
            raise InputError(f"A quotation mark in the line of {self.prog} is not closed.") from None
        # Before parsing, because what is required may be missing from a line that asks for help.
        if {"-h", "--help"} & set(words):
            print(self.format_help())
            return None
        return self.parse_args(words)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print before it exits."""
        raise InputError(f"{message[:1].upper()}{message[1:]}; `{self.prog} --help` shows how to use it.")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Never end the kernel."""
        raise InputError(message or f"`{self.prog} --help` shows how to use it.")


def read_context(pairs: Sequence[str] | None) -> dict[str, str] | None:
    """Turn repeated ``--context NAME=VALUE`` into a dict; None when there was none.

    Raises
    ------
    InputError
        A pair without ``=`` or name, or one name twice.
    """
    if not pairs:
        return None
    context: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise InputError(f"'{pair}' is no context; write --context NAME=VALUE.")
        if name in context:
            raise InputError(f"The context '{name}' is given twice.")
        context[name] = value
    return context


def one_line_errors(magic: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a magic's errors fail the cell, and so the batch run, but show one line instead of a traceback.

    IPython renders an exception with its ``_render_traceback_`` when it has one. The exception itself
    is raised on, so that a cell can catch it by its class. IPython's own ``UsageError``
    would only be printed and leave no error in an executed notebook.
    """

    @functools.wraps(magic)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return magic(*args, **kwargs)
        except SealbookError as error:
            shown = [f"{_RED}{printable(str(error))}{_PLAIN}"]
            error._render_traceback_ = lambda: shown  # type: ignore[method-assign]
            raise

    return run


def printable(text: str) -> str:
    """Return `text` on one line without control characters, which could forge what a terminal shows."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
