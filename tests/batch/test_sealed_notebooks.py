"""papermill reads and writes notebooks at sealed:// paths."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from papermill.iorw import papermill_io

import sealbook
from sealbook import sealing, session
from sealbook.batch.io import SealedHandler
from sealbook.broker import Keyring
from sealbook.errors import InputError
from sealbook.sealing import KeyUnavailableError, UnsealError


def notebook(*cells: str) -> Any:
    made = nbformat.v4.new_notebook()
    made.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    made.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return made


@pytest.fixture(autouse=True)
def _open_key(keyring: Keyring) -> None:
    session.current().default_key = "open"


def test_papermill_finds_the_handler_by_its_entry_point() -> None:
    assert papermill_io.get_handler("sealed:///x.ipynb") is SealedHandler


def test_importing_the_handler_imports_neither_papermill_nor_anything_heavy() -> None:
    program = (
        "import sys, sealbook.batch.io;"
        "heavy = {'papermill', 'sealbook.session', 'cryptography', 'IPython', 'pandas'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_notebook_comes_back_and_lies_sealed(tmp_path: Path) -> None:
    path = f"sealed://{tmp_path}/n.ipynb"
    SealedHandler.write("topsecret ü", path)
    assert SealedHandler.read(path) == "topsecret ü"
    assert b"topsecret" not in (tmp_path / "n.ipynb").read_bytes()
    assert sealing.inspect(tmp_path / "n.ipynb").keys == (("open", 1),)


def test_papermill_runs_a_sealed_notebook_into_a_sealed_one(tmp_path: Path) -> None:
    source, target = f"sealed://{tmp_path}/in.ipynb", f"sealed://{tmp_path}/out.ipynb"
    SealedHandler.write(nbformat.writes(notebook("print('top' + 'secret')")), source)
    papermill.execute_notebook(source, target, progress_bar=False)
    executed = nbformat.reads(SealedHandler.read(target), as_version=4)
    assert executed.cells[0].outputs[0].text == "topsecret\n"
    assert not any(b"topsecret" in path.read_bytes() for path in tmp_path.iterdir())


def test_relative_paths_stay_where_papermill_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    SealedHandler.write(nbformat.writes(notebook("1")), "sealed://in.ipynb")
    papermill.execute_notebook(
        "sealed://in.ipynb", "sealed://out.ipynb", cwd=str(tmp_path / "elsewhere"), progress_bar=False
    )
    assert (tmp_path / "out.ipynb").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_second_run_from_another_directory_means_that_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        SealedHandler.pretty_path("sealed://n.ipynb")
        SealedHandler.write(name, "sealed://n.ipynb")
    assert sealbook.unseal(tmp_path / "a" / "n.ipynb") == b"a"
    assert sealbook.unseal(tmp_path / "b" / "n.ipynb") == b"b"


def test_the_key_of_an_output_can_be_named(tmp_path: Path, keyring: Keyring) -> None:
    keyring.create("team/notebooks", guard="none")
    SealedHandler.write("x", f"sealed://{tmp_path}/n.ipynb?key=team/notebooks")
    assert sealing.inspect(tmp_path / "n.ipynb").keys == (("team/notebooks", 1),)
    with pytest.raises(InputError, match="names its own"):
        SealedHandler.read(f"sealed://{tmp_path}/n.ipynb?key=open")


@pytest.mark.parametrize("key", ["guarded", "session/default"])
def test_a_key_that_demands_attestation_is_not_for_papermill(key: str, tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailableError, match=r"outside the attested kernel: .* not attested"):
        SealedHandler.write("x", f"sealed://{tmp_path}/n.ipynb?key={key}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path", ["sealed://", "sealed://x?password=1", "sealed://x?key=a&key=b", "sealed://?key=a"]
)
def test_a_malformed_path_is_refused_with_one_sentence(path: str) -> None:
    for call in (SealedHandler.read, SealedHandler.listdir, lambda path: SealedHandler.write("x", path)):
        with pytest.raises(InputError, match="write sealed://PATH"):
            call(path)


def test_a_tampered_notebook_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.ipynb"
    SealedHandler.write("x" * 100, f"sealed://{path}")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnsealError):
        SealedHandler.read(f"sealed://{path}")


def test_a_sealed_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    sealbook.seal(b"\xff\xfe", tmp_path / "n.ipynb")
    with pytest.raises(InputError, match="holds no notebook"):
        SealedHandler.read(f"sealed://{tmp_path}/n.ipynb")


def test_a_directory_is_listed_as_sealed_paths(tmp_path: Path) -> None:
    for name in ("b.ipynb", "a.ipynb"):
        (tmp_path / name).touch()
    assert SealedHandler.listdir(f"sealed://{tmp_path}") == [
        f"sealed://{tmp_path}/a.ipynb",
        f"sealed://{tmp_path}/b.ipynb",
    ]
    with pytest.raises(InputError, match="not a directory"):
        SealedHandler.listdir(f"sealed://{tmp_path}/a.ipynb")
