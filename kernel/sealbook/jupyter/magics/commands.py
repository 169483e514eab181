"""What each magic does."""

from __future__ import annotations

import difflib
import sys
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class
from IPython.display import display

from sealbook import artifacts, session
from sealbook.errors import InputError, RefusedError
from sealbook.jupyter.magics.arguments import MagicParser, one_line_errors, read_context
from sealbook.jupyter.magics.display import KeysView
from sealbook.jupyter.magics.scale import SCALE

_CONTEXT_HELP = "bind the file to public text; may be repeated"

ATTEST = MagicParser("%attest", "Show what the verifier found about this kernel.")
ATTEST.add_argument(
    "--fresh",
    action="store_true",
    help="make new evidence and have it verified now; else the last is shown",
)

SEAL = MagicParser(
    "%seal",
    "Seal an object into a file: a DataFrame, an array, a model, text, bytes, a JSON value,\n"
    "or a pathlib.Path of a file or directory. `%%seal PATH` seals the text of its cell.",
)
SEAL.add_argument("name", metavar="NAME", help="the variable that holds the object")
SEAL.add_argument("path", metavar="PATH", help="the sealed file to write")

SEAL_CELL = MagicParser("%%seal", "Seal the text of this cell into a file; the cell is not run.")
SEAL_CELL.add_argument("path", metavar="PATH", help="the sealed file to write")

for _parser in (SEAL, SEAL_CELL):
    _parser.add_argument("-k", "--key", metavar="KEY", help="the key to seal to (default: see %%keys)")
    _parser.add_argument("-c", "--context", metavar="NAME=VALUE", action="append", help=_CONTEXT_HELP)

UNSEAL = MagicParser("%unseal", "Open a sealed file and return the object in it: `df = %unseal data.sealed`.")
UNSEAL.add_argument("path", metavar="PATH", help="the sealed file")
UNSEAL.add_argument("-k", "--key", metavar="KEY", help="insist that the file is sealed to this key")
UNSEAL.add_argument(
    "-c", "--context", metavar="NAME=VALUE", action="append", help="insist on this context; may be repeated"
)
UNSEAL.add_argument("--to", metavar="PATH", help="write the content to this path instead of returning it")

KEYS = MagicParser("%keys", "List the keys that this kernel may use, and what guards them.")
KEYS.add_argument("--default", metavar="KEY", help="from now on seal to KEY when no key is named")

#: By what a person types; completion looks here.
PARSERS = {
    "%attest": ATTEST,
    "%seal": SEAL,
    "%%seal": SEAL_CELL,
    "%unseal": UNSEAL,
    "%keys": KEYS,
    "%scale": SCALE,
}


@magics_class
class SealbookMagics(Magics):
    """The magics of sealbook."""

    @line_magic
    @one_line_errors
    def attest(self, line: str) -> None:
        """Show the attestation result; fail when there is none."""
        arguments = ATTEST.read(line)
        if arguments is None:
            return
        now = session.current()
        result = now.reattest() if arguments.fresh else now.result
        if result is None:
            # An error, not a remark: a batch run whose notebook says %attest must not go on.
            raise RefusedError(
                f"This kernel is not attested: nothing vouches for what it runs; {session.HOW_TO_ATTEST}."
            )
        # Loaded here and not with the kernel, whose start would wait for it.
        from sealbook.jupyter.panel import AttestationPanel

        panel = AttestationPanel()
        display(panel)
        facts = panel.facts
        if facts.note:
            raise RefusedError(facts.note)
        # A kernel that its policy admits without evidence goes on: the policy's author said so by name.
        (facts.result or result).require()

    @line_cell_magic
    @one_line_errors
    def seal(self, line: str, cell: str | None = None) -> None:
        """Seal a variable, or the text of the cell."""
        parser = SEAL if cell is None else SEAL_CELL
        arguments = parser.read(line)
        if arguments is None:
            return
        obj = self._variable(arguments.name) if cell is None else cell
        context = read_context(arguments.context)
        _warn_if_unattested()
        display(artifacts.seal(obj, arguments.path, key=arguments.key, context=context))

    @line_magic
    @one_line_errors
    def unseal(self, line: str) -> Any:
        """Return what is sealed in a file."""
        arguments = UNSEAL.read(line)
        if arguments is None:
            return None
        context = read_context(arguments.context)
        _warn_if_unattested()
        return artifacts.unseal(arguments.path, key=arguments.key, context=context, to=arguments.to)

    @line_magic
    @one_line_errors
    def keys(self, line: str) -> None:
        """List keys, or choose the default one."""
        arguments = KEYS.read(line)
        if arguments is None:
            return
        _warn_if_unattested()
        now = session.current()
        if arguments.default is not None:
            now.default_key = arguments.default
        display(KeysView.of(now))

    def _variable(self, name: str) -> Any:
        names: dict[str, Any] = {} if self.shell is None else self.shell.user_ns
        if name in names:
            return names[name]
        near = difflib.get_close_matches(name, [known for known in names if not known.startswith("_")], 1)
        hint = f"did you mean '{near[0]}'?" if near else "run the cell that makes it first."
        raise InputError(f"There is no variable '{name}' in this notebook; {hint}")


def _warn_if_unattested() -> None:
    now = session.current()
    if not now.attested:
        keys = "keys that demand no attestation" if now.result is None else "keys whose policy accepts that"
        print(
            f"This kernel is not attested: its host can read what it works on. Only {keys} are available.",
            file=sys.stderr,
        )


# What `%magic?` shows is the same text as `%magic --help`.
SealbookMagics.attest.__doc__ = ATTEST.format_help()
SealbookMagics.seal.__doc__ = SEAL.format_help() + "\n" + SEAL_CELL.format_help()
SealbookMagics.unseal.__doc__ = UNSEAL.format_help()
SealbookMagics.keys.__doc__ = KEYS.format_help()
