"""The extension of jupyter_server: what it verified of its kernels, and its user's sealed files, for pages.

jupyter_server loads it through ``jupyter_server_config.d/sealbook.json``, which the wheel installs. It
answers below ``/sealbook/api/``, to whom jupyter_server admits, and never with a secret. What it says of a
kernel comes from the provisioner, which judged the kernel's evidence; no kernel is asked.
"""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "sealbook.jupyter.server"}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Add the handlers; called by jupyter_server when it starts."""
    from sealbook.jupyter.server.handlers import handlers

    app.web_app.add_handlers(".*$", handlers(app.web_app.settings["base_url"]))
