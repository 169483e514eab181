"""The Python interpreter of an image: binary, extension modules and the standard library."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path, PurePosixPath

from sealbook.image import archived_imports, archives
from sealbook.image.tree import put, put_stripped

#: Where it lies in the image; ``sys.prefix`` of the kernel.
PREFIX = PurePosixPath("/python")

_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_LIBRARY = PREFIX / "lib" / f"python{_VERSION}"
SITE_PACKAGES = _LIBRARY / "site-packages"
ARCHIVE = PREFIX / "lib" / f"python{sys.version_info.major}{sys.version_info.minor}.zip"
EXECUTABLE = PREFIX / "bin" / "python3"

#: Of the standard library, what no kernel uses: its own tests, window toolkits, and what makes installations.
_LEFT_OUT = frozenset(
    {
        "test",
        "tests",
        "idlelib",
        "idle_test",
        "turtledemo",
        "tkinter",
        "lib2to3",
        "ensurepip",
        "site-packages",
    }
    | {"dist-packages", "__pycache__", "lib-dynload", "turtle.py"}
)

#: What Python imports before ``sitecustomize``, beside what is frozen in its binary; from an archive of its
#: own (``python311.zip``), which the interpreter finds by itself.
_FIRST = frozenset({"encodings", "__future__.py"})

#: Extension modules of the tests, and of what is left out.
_LEFT_OUT_EXTENSIONS = ("_test", "_ctypes_test", "_tkinter", "xxlimited", "_xx")


def binary() -> Path:
    """Return the interpreter that runs this, outside of any virtual environment."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def install(root: Path) -> None:
    """Copy the interpreter that runs this into the tree at `root`.

    Its prefix is found by ``os.py`` and ``lib-dynload``, which therefore stay files
    (Modules/getpath.py of CPython).
    """
    put_stripped(binary(), root, EXECUTABLE)
    standard_library = Path(sysconfig.get_path("stdlib")).resolve()
    dynamic = _dynamic_modules(standard_library)
    for source in sorted(dynamic.glob("*.so")):
        if not source.name.startswith(_LEFT_OUT_EXTENSIONS):
            put_stripped(source, root, _LIBRARY / "lib-dynload" / source.name)
    put(standard_library / "os.py", root, _LIBRARY / "os.py")
    _pack(standard_library, root)


def _dynamic_modules(standard_library: Path) -> Path:
    platform_library = Path(sysconfig.get_path("platstdlib")).resolve() / "lib-dynload"
    # In a virtual environment platstdlib is the environment's own directory.
    return platform_library if platform_library.is_dir() else standard_library / "lib-dynload"


def _pack(standard_library: Path, root: Path) -> None:
    sources = {
        PurePosixPath(source.relative_to(standard_library)): source
        for source in sorted(standard_library.rglob("*.py"))
        if not _LEFT_OUT & set(source.relative_to(standard_library).parts)
        # Debian's asks for a crash reporter.
        and source.name != "sitecustomize.py"
    }
    first = {name: source for name, source in sources.items() if name.parts[0] in _FIRST}
    archives.install(root, _LIBRARY, {name: source for name, source in sources.items() if name not in first})
    first[PurePosixPath("sitecustomize.py")] = Path(archived_imports.__file__)
    archives.write(root, ARCHIVE, ARCHIVE, first)
