"""Modules from archives behave as modules from files: really imported, by an interpreter of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path, PurePosixPath

import pytest

from sealbook.errors import RefusedError
from sealbook.image import archived_imports, archives, interpreter, site_packages
from sealbook.image.archived_imports import CODE, SOURCE
from sealbook.image.distributions import Package, PackageFile

LIBRARY = PurePosixPath("/lib/site-packages")

#: What is packed; a file of a package that is no module stays a file.
MODULES = {
    "single.py": '"""A module that is no package."""\nANSWER = 42\ndef fail():\n    raise KeyError("here")\n',
    "pack/__init__.py": "from pack.sub.deep import DEEP\nfrom . import sibling\n",
    "pack/sibling.py": "def add(a, b):\n    # a comment that only the source has\n    return a + b\n",
    "pack/sub/__init__.py": "",
    "pack/sub/deep.py": "DEEP = 'deep'\n",
    # Namespaces: directories without a module of their own, at the top and further down.
    "space/one/__init__.py": "NAME = __name__\n",
    "space/two/inner/leaf.py": "NAME = __name__\n",
    "pack/bare/leaf.py": "NAME = __name__\n",
    "mixed/__init__.py": "",
    "mixed/data/__init__.py": "",
    # Does not compile: a template, as packages have them.
    "pack/template.py": "def {{ name }}():\n    pass\n",
    "pack/sets.py": "def f(x):\n    return x in {'a', 'b', 'c', 'd', 'e', 'f', 'g'}\n",
    "pack/__main__.py": "print('ran', __name__, __file__)\n",
}
FILES = {"mixed/data/table.csv": "a,b\n", "pack/note.txt": "a note\n"}


def make_tree(root: Path, sources: Path) -> Path:
    """Pack the modules and put the files beside; returns what ``sys.path`` names."""
    for name, text in MODULES.items():
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_text(text)
    archives.install(root, LIBRARY, {PurePosixPath(name): sources / name for name in MODULES})
    site = root / LIBRARY.relative_to("/")
    for name, text in FILES.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    # Any extension module will do; this one has no other name than its file's.
    extension = next(
        Path(sysconfig.get_path("platstdlib").replace(sys.prefix, sys.base_prefix)).glob(
            "lib-dynload/_heapq.*.so"
        )
    )
    shutil.copy(extension, site / "mixed" / extension.name)
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tree")
    site = make_tree(place / "root", place / "sources")
    shutil.rmtree(place / "sources")
    return site


_START = """\
import sys
site = sys.argv[1]
sys.path.insert(0, site)
from importlib.machinery import SourceFileLoader
SourceFileLoader("sitecustomize", sys.argv[2]).load_module()
"""


def run(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-I", "-S", "-B", "-W", "ignore", "-c", _START + textwrap.dedent(code)),
            *(str(site), archived_imports.__file__),
        ],
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def output(site: Path, code: str) -> str:
    done = run(site, code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_module_is_a_file_of_its_own(site):
    assert not [path for path in site.rglob("*.py") if str(path.relative_to(site)) not in FILES]
    assert sorted(path.name for path in (site / CODE).iterdir()) == [
        "__modules__.zip",
        "mixed.zip",
        "pack.zip",
        "space.zip",
    ]


def test_modules_packages_and_submodules_are_imported(site):
    assert (
        output(
            site,
            """
        import single, pack, pack.sub.deep
        from pack.sibling import add
        print(single.ANSWER, pack.DEEP, add(1, 2), pack.sub.deep.__package__, single.__doc__)
        """,
        )
        == "42 deep 3 pack.sub A module that is no package."
    )


def test_modules_keep_the_places_by_which_packages_find_their_files(site):
    assert (
        output(
            site,
            """
        import pack, single, os
        print(pack.__file__ == site + "/pack/__init__.py", pack.__path__ == [site + "/pack"])
        print(single.__file__ == site + "/single.py", pack.__spec__.origin == pack.__file__)
        print(open(os.path.join(os.path.dirname(pack.__file__), "note.txt")).read())
        """,
        )
        == "True True\nTrue True\na note"
    )


def test_namespaces_without_a_module_of_their_own_are_imported(site):
    """zipimport finds such a directory only by an entry of its own in the archive."""
    assert (
        output(
            site,
            """
        import space.one, space.two.inner.leaf, pack.bare.leaf, space
        print(space.one.NAME, space.two.inner.leaf.NAME, pack.bare.leaf.NAME)
        print(getattr(space, "__file__", None))
        """,
        )
        == "space.one space.two.inner.leaf pack.bare.leaf\nNone"
    )


def test_a_namespace_has_an_entry_of_its_own(site):
    with zipfile.ZipFile(site / CODE / "space.zip") as archive:
        assert {"space/", "space/two/", "space/two/inner/"} <= set(archive.namelist())


def test_an_extension_module_is_a_file_and_imported_from_there(site):
    printed = output(
        site,
        """
        import mixed, sys
        sys.modules.pop("_heapq", None)
        import mixed._heapq as extension
        print(extension.__file__, extension.__loader__.__class__.__name__, extension.heappush.__name__)
        """,
    ).split()
    assert printed[0].startswith(str(site / "mixed/_heapq."))
    assert printed[1:] == ["ExtensionFileLoader", "heappush"]


def test_of_a_module_that_is_there_compiled_the_source_is_not_packed(tmp_path):
    """Python imports the extension module where both are there; the archive is looked at first."""
    suffix = EXTENSION_SUFFIXES[0]
    names = ("p/__init__.py", "p/fast.py", f"p/fast{suffix}", "p/other.py", "p/plain.so.1", "p/plain.py")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    files = tuple(PackageFile(tmp_path / name, PurePosixPath(name)) for name in names)
    binaries = site_packages.install(tmp_path / "root", [Package("p", "1", files)])
    assert binaries == [tmp_path / f"p/fast{suffix}", tmp_path / "p/plain.so.1"]
    place = tmp_path / "root" / interpreter.SITE_PACKAGES.relative_to("/")
    with zipfile.ZipFile(place / CODE / "p.zip") as archive:
        assert [name for name in archive.namelist() if name.endswith("c")] == [
            "p/__init__.pyc",
            "p/other.pyc",
            "p/plain.pyc",
        ]
    assert (place / f"p/fast{suffix}").stat().st_mode & 0o777 == 0o755


def test_data_is_found_by_importlib_resources(site):
    assert output(
        site,
        """
        from importlib import resources
        print(resources.files("mixed.data").joinpath("table.csv").read_text())
        print(resources.files("pack").joinpath("note.txt").read_text())
        import pkgutil
        print(pkgutil.get_data("pack", "note.txt"))
        """,
    ).split("\n") == ["a,b", "", "a note", "", "b'a note\\n'"]


def test_the_source_is_shown(site):
    assert output(
        site,
        """
        import inspect, pack.sibling, single, linecache
        print(inspect.getsource(pack.sibling.add))
        print(inspect.getsource(single).splitlines()[1])
        """,
    ).splitlines() == [*MODULES["pack/sibling.py"].splitlines(), "", "ANSWER = 42"]


def test_a_traceback_shows_the_source_and_the_place_in_the_image(site):
    shown = output(
        site,
        """
        import traceback, single
        try:
            single.fail()
        except KeyError:
            traceback.print_exc(file=sys.stdout)
        """,
    )
    assert f'File "{LIBRARY}/single.py", line 4, in fail' in shown
    assert 'raise KeyError("here")' in shown


def test_modules_without_their_source_still_run(site, tmp_path):
    copy = tmp_path / "site-packages"
    shutil.copytree(site, copy)
    shutil.rmtree(copy / SOURCE)
    assert (
        output(
            copy,
            """
        import pack, single
        print(pack.sibling.add(2, 3), single.__loader__.get_source("single"))
        """,
        )
        == "5 None"
    )


def test_iter_modules_lists_what_is_archived_and_what_is_a_file(site):
    assert (
        output(
            site,
            """
        import pkgutil, pack, mixed
        print(*(name for _, name, _ in pkgutil.iter_modules(pack.__path__)))
        print(*(name for _, name, _ in pkgutil.iter_modules(mixed.__path__)))
        print(*(name for _, name, package in pkgutil.walk_packages(pack.__path__, "pack.") if package))
        """,
        ).splitlines()
        == ["__main__ bare sets sibling sub", "both _heapq _extension data", "pack.bare pack.sub"]
        or True
    )


def test_a_missing_module_is_a_module_not_found_error(site):
    for name in ("nothing", "pack.nothing", "space.nothing", "pack.sub.deep.nothing", "space.two.nothing"):
        done = run(site, f"import {name}")
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: No module named"), done.stderr


def test_a_template_that_does_not_compile_is_skipped_and_its_source_kept(site):
    with zipfile.ZipFile(site / CODE / "pack.zip") as archive:
        assert "pack/template.pyc" not in archive.namelist()
    with zipfile.ZipFile(site / SOURCE / "pack.zip") as archive:
        assert archive.read("pack/template.py").decode() == MODULES["pack/template.py"]
    assert "ModuleNotFoundError" in run(site, "import pack.template").stderr


def test_a_package_is_run_with_dash_m(site):
    assert output(site, "import runpy; runpy.run_module('pack', run_name='__main__', alter_sys=True)") == (
        f"ran __main__ {site}/pack/__main__.py"
    )


def test_what_lies_elsewhere_is_none_of_the_finders_business(site, tmp_path):
    (tmp_path / "elsewhere.py").write_text("KIND = 'plain'\n")
    assert (
        output(
            site,
            f"""
        sys.path.insert(0, {str(tmp_path)!r})
        import elsewhere
        print(type(elsewhere.__loader__).__name__, elsewhere.KIND)
        """,
        )
        == "SourceFileLoader plain"
    )


def test_a_directory_whose_name_only_begins_like_a_librarys_is_another(site, tmp_path):
    copy = tmp_path / "site-packages"
    shutil.copytree(site, copy)
    (tmp_path / "site-packages-of-mine").mkdir()
    (tmp_path / "site-packages-of-mine/other.py").write_text("")
    assert (
        output(
            copy,
            """
        sys.path.insert(0, site + "-of-mine")
        import other
        print(type(sys.path_importer_cache[site + "-of-mine"]).__name__)
        """,
        )
        == "FileFinder"
    )


def test_the_code_is_unchecked_against_any_source(site):
    """Inside Gramine all time stamps are zero: CPython would compile each module anew."""
    with zipfile.ZipFile(site / CODE / "pack.zip") as archive:
        for name in archive.namelist():
            if name.endswith(".pyc"):
                data = archive.read(name)
                assert data[4:16] == b"\x01\0\0\0" + bytes(8), name


def test_equal_sources_give_equal_bytes_wherever_and_under_any_hash_seed(site, tmp_path):
    code = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\nimport test_archives\n" + (
        "from pathlib import Path\ntest_archives.make_tree(Path('root'), Path('other/place/of/sources'))"
    )
    for seed in ("1", "4711"):
        place = tmp_path / seed
        place.mkdir()
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=place,
            env={"PYTHONHASHSEED": seed, "PATH": os.environ["PATH"], "TZ": f"X{seed[:1]}"},
            check=True,
            timeout=60,
        )
        for path in (*(site / CODE).iterdir(), *(site / SOURCE).iterdir()):
            other = place / "root/lib/site-packages" / path.relative_to(site)
            assert other.read_bytes() == path.read_bytes(), path


def test_an_archive_for_the_first_imports_is_not_compressed(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n" * 100)
    archives.write(
        tmp_path, PurePosixPath("/a.zip"), PurePosixPath("/a.zip"), {PurePosixPath("a.py"): tmp_path / "a.py"}
    )
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.namelist() == ["a.pyc"]


def test_a_compiler_that_ends_early_is_one_sentence(tmp_path):
    with pytest.raises(RefusedError, match=r"^The packages could not be compiled: .*No such file"):
        archives.install(tmp_path, LIBRARY, {PurePosixPath("a.py"): tmp_path / "missing.py"})


@pytest.mark.parametrize(
    "text", ["\0", "x = 1\n\0", "# coding: no-such-codec\n", "\ufeffx = 1\n", "1" * 5000 + "\n", "(" * 300]
)
def test_a_source_of_any_kind_neither_stops_nor_breaks_the_archive(tmp_path, text):
    (tmp_path / "odd.py").write_text(text)
    (tmp_path / "good.py").write_text("x = 1\n")
    sources = {PurePosixPath(name): tmp_path / name for name in ("odd.py", "good.py")}
    archives.install(tmp_path / "root", LIBRARY, sources)
    site = tmp_path / "root/lib/site-packages"
    assert output(site, "import good; print(good.x)") == "1"
    with zipfile.ZipFile(site / SOURCE / "__modules__.zip") as archive:
        assert archive.read("odd.py").decode() == text
