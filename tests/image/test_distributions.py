"""Which installed files go into an image: what the wheel held, and nothing that somebody edited."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from sealbook.errors import InputError, RefusedError
from sealbook.image.distributions import LEFT_OUT, Package, check_lock, collect, installed_layers


class Site:
    """A directory of installed distributions, made of a few files each."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def install(
        self, name: str, files: dict[str, str], *, version: str = "1.0", requires: tuple[str, ...] = ()
    ) -> None:
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        record = []
        for path, text in (files | {f"{info}/METADATA": metadata, f"{info}/WHEEL": "x"}).items():
            target = self.directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(text)}")
        # What pip adds, without a hash.
        for path in (f"{info}/RECORD", f"{name}/__pycache__/__init__.cpython-311.pyc"):
            record.append(f"{path},,")
        (self.directory / info / "RECORD").write_text("\n".join(record) + "\n")


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    site = Site(tmp_path / "site")
    monkeypatch.syspath_prepend(str(site.directory))
    return site


def names(packages: list[Package]) -> list[str]:
    return [str(package.name) for package in packages]


def targets(packages: list[Package]) -> set[str]:
    return {str(file.target) for package in packages for file in package.files}


def test_a_package_comes_with_all_it_requires_here(site):
    site.install("tree-root", {"root.py": ""}, requires=("Tree.Leaf>=1", 'absent; sys_platform == "win32"'))
    site.install("tree-leaf", {"leaf.py": ""}, version="2.5", requires=('more; extra == "more"', "tree-root"))
    found = collect(["Tree_Root"])
    assert [(package.name, package.version) for package in found] == [
        ("tree-leaf", "2.5"),
        ("tree-root", "1.0"),
    ]
    assert targets(found) >= {"root.py", "leaf.py"}


def test_what_is_of_no_use_in_an_enclave_is_left_out_though_required(site):
    site.install("uses", {"uses.py": ""}, requires=tuple(sorted(LEFT_OUT)))
    assert names(collect(["uses"])) == ["uses"]


def test_a_requirement_that_is_missing_is_named(site):
    site.install("uses", {"uses.py": ""}, requires=("never-heard-of",))
    with pytest.raises(InputError, match=r"^The package never-heard-of is needed and not installed"):
        collect(["uses"])


@pytest.mark.parametrize("edit", ["changed", "same size", "removed", "directory"])
def test_a_file_that_was_edited_after_its_installation_is_refused_by_name(site, edit):
    site.install("victim", {"victim/__init__.py": "safe = 1\n", "victim/data.txt": "data"}, version="3.1")
    path = site.directory / "victim/__init__.py"
    if edit == "changed":
        path.write_text("safe = 1\nimport evil\n")
    elif edit == "same size":
        path.write_text("evil = 1\n")
    else:
        path.unlink()
        if edit == "directory":
            path.mkdir()
    with pytest.raises(RefusedError) as caught:
        collect(["victim"])
    assert str(caught.value).startswith(f"{path} is not the file that victim 3.1 was installed with")
    assert "pip install --force-reinstall victim==3.1" in str(caught.value)


def test_a_missing_file_is_refused_also_where_importlib_does_not_list_it(site):
    """As from Python 3.12 on, and once importlib_metadata is imported, which keyring does."""
    pytest.importorskip("importlib_metadata")
    site.install("victim", {"victim/__init__.py": "", "victim/data.txt": "data"})
    (site.directory / "victim/data.txt").unlink()
    with pytest.raises(RefusedError, match=r"data\.txt is not the file"):
        collect(["victim"])


def test_a_package_without_a_record_is_refused(site):
    site.install("victim", {"victim.py": ""})
    record = site.directory / "victim-1.0.dist-info/RECORD"
    record.write_text("")
    with pytest.raises(RefusedError, match=r"victim 1\.0 was installed without a record"):
        collect(["victim"])
    record.unlink()
    with pytest.raises(RefusedError, match=r"victim 1\.0 was installed without a record"):
        collect(["victim"])


def test_what_an_extra_requires_comes_with_it(site):
    site.install("uses", {"uses.py": ""}, requires=("has-extra[more]",))
    site.install("has-extra", {"x.py": ""}, requires=('by-more; extra == "more"', 'no; extra == "other"'))
    site.install("by-more", {"y.py": ""})
    assert names(collect(["uses"])) == ["by-more", "has-extra", "uses"]


def test_an_edited_data_file_is_refused_too(site):
    site.install("victim", {"victim/__init__.py": "", "victim/data.txt": "data"})
    (site.directory / "victim/data.txt").write_text("other")
    with pytest.raises(RefusedError, match=r"data\.txt is not the file"):
        collect(["victim"])


def test_a_record_with_a_weak_hash_is_refused(site):
    site.install("victim", {"victim.py": ""})
    record = site.directory / "victim-1.0.dist-info/RECORD"
    record.write_text(record.read_text().replace("sha256=", "md5="))
    with pytest.raises(RefusedError, match="is not the file"):
        collect(["victim"])


def test_a_file_that_no_wheel_brought_does_not_get_in(site):
    site.install("victim", {"victim/__init__.py": ""})
    (site.directory / "victim/planted.py").write_text("import evil")
    (site.directory / "victim/__pycache__").mkdir()
    (site.directory / "victim/__pycache__/__init__.cpython-311.pyc").write_text("planted")
    assert targets(collect(["victim"])) == {"victim/__init__.py", "victim-1.0.dist-info/METADATA"}


@pytest.mark.parametrize(
    "path",
    [
        "../../bin/script",
        "/etc/passwd",
        "startup.pth",
        "p/__pycache__/x.cpython-311.pyc",
        "p/tests/test_p.py",
        "p/include/p.h",
        "p/p.pyi",
        "p/p.pyx",
        "p/lib.a",
        "p-1.0.dist-info/direct_url.json",
        "p-1.0.dist-info/licenses/LICENSE",
        "tornado/test/runtests.py",
    ],
)
def test_what_no_kernel_needs_is_pruned(site, path):
    site.install("p", {"p/__init__.py": ""})
    record = site.directory / "p-1.0.dist-info/RECORD"
    record.write_text(record.read_text() + f"{path},sha256={'A' * 43},1\n")
    assert targets(collect(["p"])) == {"p/__init__.py", "p-1.0.dist-info/METADATA"}


@pytest.mark.parametrize(
    "path",
    ["p/test/interface.py", "p/x.pth", "p/data.json", "p/lib.so.1", "p-1.0.dist-info/entry_points.txt"],
)
def test_what_a_package_may_need_stays(site, path):
    site.install("p", {"p/__init__.py": "", path: "x"})
    assert path in targets(collect(["p"]))


def test_stubs_stay_where_packages_import_by_them(site):
    site.install("lazy-loader", {"lazy_loader.py": ""})
    site.install("p", {"p/__init__.py": "", "p/__init__.pyi": ""}, requires=("lazy-loader",))
    assert "p/__init__.pyi" in targets(collect(["p"]))


def test_sealbook_itself_is_what_is_imported_here():
    (package,) = [each for each in collect(["sealbook"]) if each.name == "sealbook"]
    import sealbook

    place = Path(sealbook.__file__).parent
    files = {str(file.target): file.source for file in package.files}
    assert files["sealbook/jupyter/gramine_kernel.py"] == place / "jupyter/gramine_kernel.py"
    assert not [target for target in files if "__pycache__" in target]
    for target, source in files.items():
        if not target.partition("/")[0].endswith(".dist-info"):
            assert source == place.parent / target


def test_the_layers_that_are_installed_are_found(monkeypatch):
    from sealbook.image import distributions

    monkeypatch.setattr(distributions, "LAYERS", {"a": ("pytest",), "b": ("pytest", "not-there"), "c": ()})
    assert installed_layers() == ("a", "c")


# -- locks -----------------------------------------------------------------------------------------


PACKAGES = [Package("ipykernel", "7.3.0", ()), Package("sealbook", "0.1.0", ()), Package("zope-x", "1", ())]


def lock(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "lock.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "ipykernel==7.3.0\nzope-x==1\n",
        "# a lock\nIPyKernel==7.3.0 \\\n    --hash=sha256:00\nZope.X==1 ; python_version < '4'\n",
        "ipykernel==7.2 ; python_version < '3.12'\nipykernel==7.3.0 ; python_version >= '3.12'\nzope_x==1\n",
    ],
)
def test_a_lock_that_agrees_is_taken(tmp_path, text):
    check_lock(PACKAGES, lock(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("ipykernel==7.3.1\nzope-x==1", "ipykernel 7.3.0 is installed and .* locks 7.3.1: install from"),
        ("ipykernel==7.3.1\nipykernel==7.2", "locks 7.2 or 7.3.1"),
        ("ipykernel==7.3.0.1\nzope-x==1", "ipykernel 7.3.0 is"),
        ("ipykernel==7.3.0", "zope-x 1 is installed and .* locks no version of it"),
        ("ipykernel>=7.3.0\nzope-x==1", "locks no version of it"),
        ("#ipykernel==7.3.0\nzope-x==1", "locks no version of it"),
        ("", "pip install --require-hashes -r"),
    ],
)
def test_a_lock_that_disagrees_is_refused_with_what_to_do(tmp_path, text, cause):
    with pytest.raises(RefusedError, match=cause):
        check_lock(PACKAGES, lock(tmp_path, text))


def test_a_lock_that_cannot_be_read_is_one_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"^The lock file .* cannot be read\.$"):
            check_lock(PACKAGES, path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        check_lock(PACKAGES, tmp_path / "binary")
