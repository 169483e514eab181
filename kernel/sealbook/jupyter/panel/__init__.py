"""The attestation panel in a notebook: ``sealbook.AttestationPanel()`` and what ``%attest`` shows.

- `facts`: what is shown, asked of the side that verified;
- `static`: all of it as HTML and as text, complete by themselves;
- `panel`: the panel, which keeps every place it is shown at up to date;
- `live`: the bar with the button above it, where somebody sits before the notebook.
"""

from __future__ import annotations

from sealbook.jupyter.panel.panel import AttestationPanel
from sealbook.jupyter.panel.static import ChainView

__all__ = ["AttestationPanel", "ChainView"]
