"""A running kernel and the cells that are sent to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager


class Notebook:
    """A kernel started as a Jupyter server starts it, and cells that are run in it."""

    def __init__(self, name: str, directory: Path, **kwargs: Any) -> None:
        self.manager = KernelManager(kernel_name=name)
        self.manager.start_kernel(cwd=str(directory), **kwargs)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def messages(
        self, code: str, *, timeout: float = 120, during: Callable[[dict[str, Any]], None] | None = None
    ) -> list[dict[str, Any]]:
        """Run a cell and return all that it sent; `during` is called with each message as it comes."""
        found: list[dict[str, Any]] = []

        def collect(message: dict[str, Any]) -> None:
            found.append(message)
            if during is not None:
                during(message)

        self.client.execute_interactive(code, timeout=timeout, output_hook=collect)
        return found

    def run(self, code: str, **kwargs: Any) -> tuple[str, str]:
        """Return what a cell printed and showed, and the error that ended it or nothing."""
        messages = self.messages(code, **kwargs)
        error = [
            f"{m['content']['ename']}: {m['content']['evalue']}" for m in messages if m["msg_type"] == "error"
        ]
        return "".join(map(_text, messages)), "".join(error)

    def value(self, expression: str, before: str = "", **kwargs: Any) -> str:
        """Return how an expression prints; the cell must not fail."""
        printed, error = self.run(f"{before}\nprint('\\n=>', {expression})", **kwargs)
        assert not error, error
        return printed.rpartition("=> ")[2].partition("\n")[0]

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def _text(message: dict[str, Any]) -> str:
    if message["msg_type"] == "stream":
        return str(message["content"]["text"])
    if message["msg_type"] in ("display_data", "execute_result"):
        return str(message["content"]["data"].get("text/plain", "")) + "\n"
    return ""
