"""The errors a person meets: one sentence with the cause, and what to do about it.

Every face (magics, command line, papermill, provisioner) prints ``str(error)`` of a
:class:`SealbookError` and nothing else: no traceback, no repr. Whatever must not reach
an attacker or a log must therefore not be in the message.
"""

from __future__ import annotations

import traceback


class SealbookError(Exception):
    """Base of all errors that are meant for a person; ``str(error)`` is one plain sentence."""

    #: Exit status of the command line when this error ends a command.
    exit_code = 1

    @property
    def one_line(self) -> str:
        """The sentence without the line breaks that some have for dialogs which cut a long line."""
        return " ".join(str(self).split())

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows under a cell; see IPython's ``InteractiveShell.showtraceback``."""
        shown = [f"{type(self).__name__}: {self}"]
        for frame, line in traceback.walk_tb(self.__traceback__):
            if frame.f_globals.get("__name__") == "__main__":
                return [*shown, f"(line {line} of the cell)"]
        return shown


class InputError(SealbookError):
    """What the person gave cannot be used: a bad name, a missing file, an unknown field."""

    exit_code = 2


class RefusedError(SealbookError):
    """A check that guards something said no. Nothing was released, written or returned."""


class MissingDependencyError(SealbookError):
    """An optional package is needed for this and is not installed."""
