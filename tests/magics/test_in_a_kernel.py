"""The magics in the real kernel: loaded by themselves, over the attested channel, with session keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from sealbook import sealing


class Notebook:
    """A running kernel and the cells that are sent to it."""

    def __init__(self, name: str, directory: Path) -> None:
        self.manager = KernelManager(kernel_name=name)
        self.manager.start_kernel(cwd=str(directory))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str) -> list[dict[str, Any]]:
        """Return the contents of what the cell showed, in order, each with its message type."""
        shown: list[dict[str, Any]] = []
        self.client.execute_interactive(
            code, timeout=60, output_hook=lambda m: shown.append({"type": m["msg_type"], **m["content"]})
        )
        return [message for message in shown if message["type"] not in ("status", "execute_input")]

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def notebook(kernel_name: str, directory: Path) -> Iterator[Notebook]:
    opened = Notebook(kernel_name, directory)
    yield opened
    opened.close()


def test_attest_works_without_loading_anything_and_says_simulated(notebook: Notebook) -> None:
    for line in ("%attest", "%attest --fresh"):
        (shown,) = notebook.run(line)
        assert shown["type"] == "display_data"
        assert "simulated" in shown["data"]["text/plain"].lower()
        assert "no hardware protects it" in shown["data"]["text/html"]


def test_what_one_notebook_sealed_another_of_the_same_user_opens(
    notebook: Notebook, kernel_name: str, directory: Path
) -> None:
    (shown,) = notebook.run("x = {'marker': 'topsecret'}\n%seal x x.sealed")
    assert "simulated" in shown["data"]["text/plain"]
    assert b"topsecret" not in (directory / "x.sealed").read_bytes()
    other = Notebook(kernel_name, directory)
    try:
        (back,) = other.run("y = %unseal x.sealed\ny['marker']")
        assert back["data"]["text/plain"] == "'topsecret'"
    finally:
        other.close()


def test_a_refusal_is_an_error_of_one_line(notebook: Notebook) -> None:
    (error,) = notebook.run("%unseal missing.sealed")
    assert error["type"] == "error"
    assert len(error["traceback"]) == 1
    assert "missing.sealed" in error["evalue"]
    assert "\n" not in error["traceback"][0]


def test_the_tab_key_works_over_the_channel(notebook: Notebook, directory: Path) -> None:
    (directory / "patients.sealed").touch()
    notebook.run("patients = 1")
    for line, expected in (
        ("%seal pati", "patients"),
        ("df = %unseal pati", "patients.sealed"),
        ("%seal patients p --co", "--context"),
    ):
        reply = notebook.client.complete(line, reply=True, timeout=30)
        assert expected in reply["content"]["matches"], line


def test_an_ordinary_kernel_is_not_attested_and_says_so(directory: Path) -> None:
    ordinary = Notebook("python3", directory)
    try:
        assert not [message for message in ordinary.run("%load_ext sealbook") if message["type"] == "error"]
        (error,) = ordinary.run("%attest")
        assert error["type"] == "error"
        assert "not attested" in error["evalue"]
        ordinary.run("x = 'topsecret'")
        said, error = ordinary.run("%seal x y.sealed")
        assert "not attested" in said["text"]
        assert error["type"] == "error"
        assert not (directory / "y.sealed").exists()
        keys = sealing.InMemoryKeys(sealing.SealingKey.generate("session/default"))
        sealing.write_bytes(directory / "z.sealed", b"secret", key="session/default", keys=keys)
        said, error = ordinary.run("%unseal z.sealed")
        assert "no session key" in error["evalue"]
    finally:
        ordinary.close()
