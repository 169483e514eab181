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

    def run(self, code: str, *, somebody: bool = False) -> list[dict[str, Any]]:
        """Return the contents of what the cell showed, in order, each with its message type.

        `somebody` sits before the notebook and could be asked something; otherwise it is a batch run.
        """
        shown: list[dict[str, Any]] = []
        self.client.execute_interactive(
            code,
            timeout=60,
            allow_stdin=somebody,
            output_hook=lambda m: shown.append({"type": m["msg_type"], **m["content"]}),
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
        (shown,) = [each for each in notebook.run(line) if each["type"] == "display_data"]
        assert "simulated" in shown["data"]["text/plain"].lower()
        assert "no hardware protects it" in shown["data"]["text/html"]


def test_a_batch_run_gets_no_widget_and_somebody_at_the_notebook_gets_a_button(notebook: Notebook) -> None:
    batch = notebook.run("import sealbook\nsealbook.AttestationPanel()")
    assert [each["type"] for each in batch] == ["display_data"]
    assert set(batch[0]["data"]) == {"text/html", "text/plain"}
    live = notebook.run("panel = sealbook.AttestationPanel()\npanel", somebody=True)
    opened = [each for each in live if each["type"] == "comm_open"]
    assert "Attest again now" in opened[-1]["data"]["state"]["_esm"]
    first, second = (each for each in live if each["type"] == "display_data")
    assert "application/vnd.jupyter.widget-view+json" in first["data"]
    assert set(second["data"]) == {"text/html", "text/plain"}


def test_attesting_again_updates_what_every_cell_shows(notebook: Notebook) -> None:
    shown = notebook.run("import sealbook\nsealbook.AttestationPanel()")
    (first,) = (each for each in shown if each["type"] == "display_data")
    name = first["transient"]["display_id"]
    updates = [
        each
        for each in notebook.run("from sealbook import session\n_ = session.current().reattest()")
        if each["type"] == "update_display_data"
    ]
    (mine,) = [each for each in updates if each["transient"]["display_id"] == name]
    assert mine["data"]["text/html"] != first["data"]["text/html"]
    assert "Simulated enclave" in mine["data"]["text/html"]


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
