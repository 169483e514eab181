"""The simulated MRENCLAVE: it changes with everything that can be loaded, and with nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sealbook.attestation import measure, settle_bytecode
from sealbook.attestation.simulated import runtime_roots
from sealbook.errors import InputError

TAG = sys.implementation.cache_tag


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small installation, old enough to be cached."""
    root = tmp_path / "tree"
    for name, text in {
        "package/__init__.py": "x = 1\n",
        "package/data/table.csv": "1,2\n",
        "package/native.so": "\x7fELF",
        f"package/__pycache__/__init__.{TAG}.pyc": "code",
        "package-1.0.dist-info/RECORD": "",
        "extra.pth": "import os\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "alias.py").symlink_to("package/__init__.py")
    return root


def _digest(tree: Path, **options: object) -> bytes:
    return measure(roots={"tree": tree}, cache=tree.parent / "cache.json", **options).mrenclave  # type: ignore[arg-type]


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda t: (t / "package/__init__.py").write_text("x = 2\n"),
    "data": lambda t: (t / "package/data/table.csv").write_text("1,3\n"),
    "shared library": lambda t: (t / "package/native.so").write_text("\x7fELG"),
    "byte code": lambda t: (t / f"package/__pycache__/__init__.{TAG}.pyc").write_text("c0de"),
    "optimised byte code": lambda t: (t / f"package/__pycache__/__init__.{TAG}.opt-1.pyc").write_text("c"),
    "pth": lambda t: (t / "extra.pth").write_text("import sy\n"),
    "metadata": lambda t: (t / "package-1.0.dist-info/RECORD").write_text("x"),
    "new file": lambda t: (t / "sitecustomize.py").write_text(""),
    "new file in a new directory": lambda t: ((t / "n").mkdir(), (t / "n/m.py").write_text("")),
    "removed": lambda t: (t / "extra.pth").unlink(),
    "renamed": lambda t: (t / "extra.pth").rename(t / "other.pth"),
    "moved": lambda t: (t / "extra.pth").rename(t / "package/extra.pth"),
    "link target": lambda t: ((t / "alias.py").unlink(), (t / "alias.py").symlink_to("extra.pth")),
    "link instead of a file": lambda t: (
        (t / "extra.pth").rename(t.parent / "extra.pth"),
        (t / "extra.pth").symlink_to(t.parent / "extra.pth"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_can_be_loaded_changes_the_measurement(tree: Path, change: str) -> None:
    before = _digest(tree)
    CHANGES[change](tree)
    assert _digest(tree) != before
    assert _digest(tree) == _digest(tree, use_cache=False)


@pytest.mark.parametrize(
    "name",
    ["package/__pycache__/__init__.cpython-27.pyc", f"package/__pycache__/test_x.{TAG}-pytest-9.2.0.pyc"],
)
def test_byte_code_this_interpreter_never_loads_changes_nothing(tree: Path, name: str) -> None:
    before = _digest(tree)
    (tree / name).write_text("code")
    assert _digest(tree) == before


def test_equal_trees_in_other_places_and_times_have_equal_measurements(tree: Path) -> None:
    before = measure(roots={"tree": tree}, use_cache=False)
    copy = tree.parent / "elsewhere"
    shutil.copytree(tree, copy, symlinks=True)
    os.utime(copy / "extra.pth", (0, 0))
    again = measure(roots={"tree": copy}, use_cache=False)
    assert again.mrenclave == before.mrenclave
    assert again.files == before.files == 7
    assert measure(roots={"other label": tree}, use_cache=False).mrenclave != before.mrenclave
    assert (
        measure(roots={"tree": tree}, extra_roots={"b": copy}, use_cache=False).mrenclave != before.mrenclave
    )


def test_what_a_link_leads_to_outside_the_roots_is_measured_too(tree: Path) -> None:
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "module.py").write_text("1")
    (tree / "linked").symlink_to(outside)
    before = _digest(tree)
    assert any("linked/0" in root for root in measure(roots={"tree": tree}, use_cache=False).roots)
    (outside / "module.py").write_text("2")
    assert _digest(tree) != before


def test_links_in_a_circle_come_to_an_end(tree: Path) -> None:
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "back").symlink_to(tree)
    (outside / "self").symlink_to(outside)
    (tree / "linked").symlink_to(outside)
    (tree / "dangling").symlink_to(tree / "nowhere")
    assert len(_digest(tree)) == 32


def _age(tree: Path) -> None:
    """Wait until the cache trusts the tree: ctime cannot be set, so this is the only honest way."""
    import time

    time.sleep(2.1)
    _digest(tree)


def test_the_cache_saves_reading_and_never_hides_a_change(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealbook.attestation.simulated import measurement

    before = _digest(tree)
    _age(tree)
    read: list[str] = []
    real = measurement._describe
    # Counts what is read; the reading itself is real.
    monkeypatch.setattr(measurement, "_describe", lambda path: (read.append(path), real(path))[1])
    assert _digest(tree) == before
    assert read == []
    target = tree / "package/__init__.py"
    times = target.stat()
    target.write_text("x = 3\n")
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _digest(tree) != before
    assert sorted(Path(path).name for path in read) == ["__init__.py", "native.so"]


def test_files_that_changed_just_now_are_not_trusted_to_the_cache(tree: Path) -> None:
    _digest(tree)
    assert not (tree.parent / "cache.json").exists()
    _age(tree)
    assert (tree.parent / "cache.json").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version":1,"entries":[]}', b'{"version":1,"entries":{"a":[1]}}', b"\xff" * 100],
)
def test_a_damaged_cache_is_built_again(tree: Path, content: bytes) -> None:
    before = _digest(tree)
    (tree.parent / "cache.json").write_bytes(content)
    assert _digest(tree) == before


def test_a_cache_that_cannot_be_written_is_done_without(tree: Path) -> None:
    (tree.parent / "file").write_text("")
    result = measure(roots={"tree": tree}, cache=tree.parent / "file" / "cache.json")
    assert result.mrenclave == _digest(tree)


def test_a_root_that_is_missing_is_refused(tree: Path) -> None:
    with pytest.raises(InputError, match="cannot be measured"):
        measure(roots={"tree": tree / "nowhere"}, use_cache=False)


def test_the_roots_are_what_this_interpreter_loads_from() -> None:
    import json as standard_module

    import cryptography

    import sealbook

    roots = runtime_roots()
    assert roots["python"] == Path(sys.executable).resolve()
    for module in (standard_module, cryptography, sealbook):
        place = Path(module.__file__).resolve()
        assert any(place.is_relative_to(root) for root in roots.values()), place
    assert not any(root == Path.cwd() for root in roots.values())


def test_a_directory_from_a_pth_file_and_pythonpath_is_measured(tmp_path: Path) -> None:
    packages = tmp_path / "site-packages"
    editable = tmp_path / "editable"
    named = tmp_path / "named"
    for directory in (packages, editable, named):
        directory.mkdir()
    (packages / "editable.pth").write_text(f"# comment\nimport os\n{editable}\n\n")
    code = (
        "import sys; sys.path.append(sys.argv[1]); from sealbook.attestation.simulated import runtime_roots; "
        "print(*runtime_roots().values(), sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(named)}
    listed = subprocess.run(
        [sys.executable, "-c", code, str(packages)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout.splitlines()
    assert {str(packages), str(editable), str(named)} <= set(listed)


def test_settled_byte_code_stays_as_it_is_when_the_code_runs(tmp_path: Path) -> None:
    package = tmp_path / "tree" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from package import other\n")
    (package / "other.py").write_text("x = 1\n")
    (package / "template.py").write_text("{% not python %}\n")
    roots = {"tree": tmp_path / "tree"}
    settle_bytecode(roots)
    before = measure(roots=roots, use_cache=False)
    assert before.files == 5
    subprocess.run([sys.executable, "-c", "import package"], check=True, cwd=tmp_path / "tree")
    settle_bytecode(roots)
    assert measure(roots=roots, use_cache=False).mrenclave == before.mrenclave
