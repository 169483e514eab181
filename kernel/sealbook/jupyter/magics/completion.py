"""What the Tab key offers in a magic's line: options, variables, key names and paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from sealbook import session
from sealbook.errors import SealbookError
from sealbook.jupyter.magics.commands import PARSERS

#: A line with one of the magics, at its start or as an expression after `=`.
_LINE = re.compile(r"\s*(?:[\w.,\s\[\]'\"]+=\s*)?(%{1,2}(?:attest|seal|unseal|keys|scale))(\s.*)$", re.DOTALL)

#: Options whose value is a key name, and those whose value is a path.
_KEY_OPTIONS = {"-k", "--key", "--default"}
_PATH_OPTIONS = {"--to"}
_MAX_OFFERS = 200


def install_completer(shell: Any) -> None:
    """Let IPython's completer call :func:`offers`."""

    def complete(_: Any, event: Any) -> list[str]:
        return offers(event.text_until_cursor, event.symbol, shell.user_ns)

    shell.set_hook("complete_command", complete, re_key=_LINE.pattern)


def offers(line: str, symbol: str, variables: Mapping[str, Any]) -> list[str]:
    """Return what may stand at the cursor.

    Parameters
    ----------
    line
        The line up to the cursor.
    symbol
        The word that is being typed, the end of `line`; may be empty.
    variables
        The notebook's names.
    """
    match = _LINE.match(line)
    if match is None:
        return []
    name, rest = match.groups()
    parser = PARSERS.get(name)
    if parser is None:
        return []
    done = rest[: len(rest) - len(symbol)].split()
    options = {option: action for action in parser._actions for option in action.option_strings}
    before = done[-1] if done else ""
    if before in _KEY_OPTIONS & options.keys():
        found: Iterable[str] = _keys()
    elif before in _PATH_OPTIONS & options.keys():
        found = _paths(symbol)
    elif before in options and options[before].nargs != 0:
        found = ()  # the value of --context is the user's own
    elif symbol.startswith("-"):
        found = options
    else:
        found = _positional(name, _count_positional(done, options), symbol, variables)
    return sorted(offer for offer in found if offer.startswith(symbol))[:_MAX_OFFERS]


def _count_positional(words: list[str], options: Mapping[str, Any]) -> int:
    count, skip = 0, False
    for word in words:
        if skip:
            skip = False
        elif word in options:
            skip = options[word].nargs != 0
        else:
            count += 1
    return count


def _positional(name: str, position: int, symbol: str, variables: Mapping[str, Any]) -> Iterable[str]:
    if name == "%seal" and position == 0:
        return [
            known
            for known, value in variables.items()
            if not known.startswith("_") and not callable(value) and not isinstance(value, ModuleType)
        ]
    if (name, position) == ("%scale", 0):
        return ["cluster", "local"]
    if (name, position) in {("%seal", 1), ("%%seal", 0), ("%unseal", 0)}:
        return _paths(symbol)
    return ()


def _keys() -> list[str]:
    try:
        return [entry.name for entry in session.current().key_entries() if entry.usable]
    except (SealbookError, OSError):
        return []  # nothing may be raised or asked for while somebody types


def _paths(symbol: str) -> list[str]:
    """Return the paths that begin with `symbol`; without those that would need quotes."""
    directory, slash, _ = symbol.rpartition("/")
    try:
        with os.scandir(Path(directory + slash or ".").expanduser()) as found:
            entries = list(found)
    except OSError:
        return []
    return [
        f"{directory}{slash}{entry.name}{'/' if entry.is_dir() else ''}"
        for entry in entries
        if not re.search(r"\s", entry.name) and (not entry.name.startswith(".") or symbol.endswith("."))
    ]
