"""The simulated MRENCLAVE: it changes with everything that can be loaded, and with nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sealbook.attestation import measure, settle_bytecode
from sealbook.errors import InputError
from sealbook.simulated_loader import ISOLATED

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


def _isolated(code: str, *arguments: object) -> str:
    """Run code as the loader runs the measuring: with the kernel's own flags."""
    command = [sys.executable, *ISOLATED, "-c", "import sys\n" + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


_MEASURE_BELOW = """
from pathlib import Path
from sealbook.attestation.simulated import measurement as m
{setup}
try:
    roots = {{k: v for k, v in m.runtime_roots().items() if v.is_relative_to(sys.argv[1])}}
    m.runtime_roots = lambda: roots  # the whole installation takes seconds
    print(m.measure(use_cache=False).mrenclave.hex())
except m.InputError as error:
    print(error)
"""


def _measure_below(directory: Path, setup: str) -> str:
    """Return the measurement of all roots below a directory after `setup`, or why there is none."""
    return _isolated(_MEASURE_BELOW.format(setup=setup), directory)


def _zip(file: Path, text: str) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("inner/module.py"), text)


def test_the_roots_are_what_this_interpreter_loads_from() -> None:
    code = """
import json, cryptography, sealbook
from sealbook.attestation.simulated import runtime_roots
modules = [json.__file__, cryptography.__file__, sealbook.__file__]
print(json.dumps([{k: str(v) for k, v in runtime_roots().items()}, sys.path, modules]))
"""
    roots, path, modules = json.loads(_isolated(code))
    assert roots["python"] == str(Path(sys.executable).resolve())
    for place in (*path, *modules):
        assert any(Path(place).resolve().is_relative_to(root) for root in roots.values()), place
    assert not any(Path(root) == Path.cwd() for root in roots.values())
    assert [roots, path, modules] == json.loads(_isolated(code))


def test_the_archive_of_the_standard_library_is_a_root_although_it_is_absent() -> None:
    code = "from sealbook.attestation.simulated import runtime_roots; print(*runtime_roots().values())"
    archive = next(entry for entry in sys.path if entry.endswith(".zip"))
    assert not Path(archive).exists()
    assert str(Path(archive).resolve()) in _isolated(code).split()


@pytest.mark.parametrize("inner", ["", "/inner"])
def test_an_archive_on_the_path_is_measured_from_its_absence_on(tmp_path: Path, inner: str) -> None:
    archive = tmp_path / "python311.zip"
    setup = f"sys.path.insert(0, {str(archive) + inner!r})"
    absent = _measure_below(tmp_path, setup)
    _zip(archive, "x = 1")
    first = _measure_below(tmp_path, setup)
    _zip(archive, "x = 2")
    second = _measure_below(tmp_path, setup)
    archive.unlink()
    assert len({absent, first, second, _measure_below(tmp_path, "")}) == 4
    assert all(len(digest) == 64 for digest in (absent, first, second))
    assert _measure_below(tmp_path, setup) == absent


@pytest.mark.parametrize("kind", ["directory", "egg"])
def test_what_a_pth_file_names_is_measured(tmp_path: Path, kind: str) -> None:
    packages, target = tmp_path / "site-packages", tmp_path / f"package.{kind}"
    packages.mkdir()
    (packages / "editable.pth").write_text(f"# comment\nimport os\n{target}\n\n")
    setup = f"import site; site.addsitedir({str(packages)!r}); assert {str(target)!r} in sys.path"
    measured = []
    if kind == "directory":
        target.mkdir()
    for text in ("x = 1", "x = 2"):
        if kind == "directory":
            (target / "module.py").write_text(text)
        else:
            _zip(target, text)
        measured.append(_measure_below(tmp_path, setup))
    assert len({*measured, _measure_below(tmp_path, "")}) == 3


def test_pythonpath_is_measured_where_it_counts(tmp_path: Path) -> None:
    code = "from sealbook.attestation.simulated import runtime_roots; print(*runtime_roots().values())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-P", "-c", code]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert str(tmp_path) in listed.stdout.split()


def _editable(directory: Path, mapping: dict[str, str], namespaces: dict[str, list[str]]) -> str:
    """Install as `pip install -e` does, with setuptools' own finder; return the set-up that loads it."""
    from setuptools.command.editable_wheel import _finder_template

    packages = directory / "site-packages"
    packages.mkdir(exist_ok=True)
    name = "__editable___project_1_0_finder"
    source = _finder_template("__editable__.project-1.0.finder", mapping, namespaces)
    (packages / f"{name}.py").write_text(source)
    (packages / "__editable__.project-1.0.pth").write_text(f"import {name}; {name}.install()")
    return (
        f"import site; site.addsitedir({str(packages)!r})\n"
        "assert sys.meta_path[-1].__name__ == '_EditableFinder'"
    )


@pytest.mark.parametrize(
    "file",
    [
        "package/__init__.py",
        "package/inner/data.csv",
        "single.py",
        f"__pycache__/single.{TAG}.pyc",
        "plain.py",
    ],
)
def test_what_an_editable_finder_leads_to_is_measured(tmp_path: Path, file: str) -> None:
    project = tmp_path / "project"
    (project / "package").mkdir(parents=True)
    (project / "plain").mkdir()  # no package: the finder then takes plain.py
    (project / "package/__init__.py").write_text("")
    (project / "single.py").write_text("")
    mapping = {name: str(project / name) for name in ("package", "single", "plain")}
    setup = _editable(tmp_path, mapping, {})
    before = _measure_below(tmp_path, setup)
    assert len(before) == 64
    (project / file).parent.mkdir(exist_ok=True)
    (project / file).write_text("changed = 1")
    after = _measure_below(tmp_path, setup)
    assert len(after) == 64
    assert after != before
    (project / "unrelated.txt").write_text("")
    assert _measure_below(tmp_path, setup) == after


UNKNOWN = "class Finder:\n    def find_spec(self, *_): pass\n"


@pytest.mark.parametrize(
    "setup",
    [
        UNKNOWN + "sys.meta_path.append(Finder())",
        UNKNOWN + "sys.meta_path.insert(0, Finder)",
        UNKNOWN + "Finder.__name__ = '_EditableFinder'; sys.meta_path.append(Finder)",
        UNKNOWN + "Finder.__name__ = '_EditableFinder'; Finder.__module__ = '__editable___a_finder'\n"
        "sys.meta_path.append(Finder)",
        "def hook(entry): raise ImportError\nsys.path_hooks.append(hook)",
        "editable namespaces",
        "editable relative",
    ],
)
def test_an_unknown_import_hook_is_refused_with_what_to_do(tmp_path: Path, setup: str) -> None:
    if setup == "editable namespaces":
        setup = _editable(tmp_path, {}, {"ns": [str(tmp_path / "ns")]})
    elif setup == "editable relative":
        setup = _editable(tmp_path, {"package": "src/package"}, {})
    sentence = _measure_below(tmp_path, setup)
    assert sentence.startswith("What Python loads cannot be measured, because the import hook ")
    assert "non-editable" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("entry", ["", "project", "__editable__.project-1.0.finder.__path_hook__"])
def test_a_path_that_depends_on_the_working_directory_is_refused(tmp_path: Path, entry: str) -> None:
    assert "working directory" in _measure_below(tmp_path, f"sys.path.append({entry!r})")


def test_import_hooks_that_load_from_measured_places_only_are_accepted(tmp_path: Path) -> None:
    setup = """
import _distutils_hack, types
from sealbook.pandas_urls import accept_sealed_urls
_distutils_hack.add_shim(); accept_sealed_urls()
six = types.new_class("_SixMetaPathImporter"); six.__module__ = "six"  # the name is all that is looked at
sys.meta_path.append(six())
assert len(sys.meta_path) >= 6
"""
    assert len(_measure_below(tmp_path, setup)) == 64


def test_the_measuring_process_ends_with_the_sentence_only() -> None:
    code = UNKNOWN + "sys.meta_path.append(Finder())\n"
    code += "from sealbook.attestation.simulated.measurement import main; main()"
    command = [sys.executable, *ISOLATED, "-c", "import sys\n" + code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("What Python loads cannot be measured")
    assert done.stderr.count("\n") == 1


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
