"""The magics: ``%attest``, ``%seal``, ``%%seal``, ``%unseal``, ``%keys`` and ``%scale``.

Sealbook kernels load them by themselves, every other IPython with ``%load_ext sealbook``.

- `commands`: what each magic does; `scale`: what ``%scale`` does;
- `arguments`: how a magic's line is read, and how an error becomes one line;
- `completion`: what the Tab key offers;
- `display`: how results look, as HTML and as text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealbook.jupyter.magics.commands import SealbookMagics
from sealbook.jupyter.magics.completion import install_completer
from sealbook.jupyter.magics.scale import ScaleMagics

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["SealbookMagics", "load_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Give `shell` the magics and their completion; IPython calls this for ``%load_ext sealbook``."""
    shell.register_magics(SealbookMagics, ScaleMagics)
    install_completer(shell)
