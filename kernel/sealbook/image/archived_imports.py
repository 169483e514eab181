"""Imports modules from archives; runs inside an image, as its ``sitecustomize``.

Gramine reads and hashes a measured file completely when it is first looked up, and to list a directory is
to look up all of it. Code therefore lies in archives, one for each package and apart from its source, so that
few files are measured and little is read, and no directory is listed to find a module: ``.code/NAME.zip``
holds byte code, ``.source/NAME.zip`` what tracebacks and ``??`` show. Extension modules and data stay files
where they always are, and modules keep the ``__file__`` by which packages find their data.
"""

from __future__ import annotations

import os
import sys
import zipimport

# Not importlib.util, which has the same names: it would import a hundred modules before anything else.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import (
    EXTENSION_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    spec_from_file_location,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, ModuleType
    from typing import Any

#: Below the standard library and below site-packages.
CODE, SOURCE = ".code", ".source"

#: Archive of the modules that are no packages.
SINGLE = "__modules__"

#: The standard library and site-packages.
_LIBRARIES = [entry for entry in sys.path if os.path.isdir(f"{entry}/{CODE}")]  # noqa: PTH112 - see below


class ArchivedLoader(SourceFileLoader):
    """Loads a module's code from an archive, and everything else from where ``__file__`` says."""

    def __init__(self, fullname: str, path: str, code: zipimport.zipimporter) -> None:
        super().__init__(fullname, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code that was compiled when the image was built."""
        return self._code.get_code(fullname)

    def get_source(self, fullname: str) -> str | None:
        """Return the source, or None if the image has none of it."""
        place = f"{self._code.archive}/{self._code.prefix}".replace(f"/{CODE}/", f"/{SOURCE}/", 1)
        try:
            return zipimport.zipimporter(place.rstrip("/")).get_source(fullname)
        except zipimport.ZipImportError:
            return None


class ArchivedFinder:
    """The finder of one directory: of what an archive has of it, and of its extension modules."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._library = next(entry for entry in reversed(_LIBRARIES) if path.startswith(entry))

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> Any:
        """Find a module; an archive has none of which there is an extension module, too."""
        name = fullname.rpartition(".")[2]
        place = f"{self._path}/{name}"
        namespace = False
        for archive in self._archives(name):
            found = archive.find_spec(fullname)
            if found is not None and found.loader is not None:
                return self._spec(
                    fullname, place, archive, package=found.submodule_search_locations is not None
                )
            namespace = namespace or found is not None
        for suffix in EXTENSION_SUFFIXES:
            if os.path.isfile(place + suffix):  # noqa: PTH113 - importing pathlib takes longer
                loader = ExtensionFileLoader(fullname, place + suffix)
                return spec_from_file_location(fullname, place + suffix, loader=loader)
        if not namespace and not os.path.isdir(place):  # noqa: PTH112 - see above
            return None
        # A directory without a module of its own, such as google or jaraco, in the archive or with data only.
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = [place]
        return spec

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """Yield name and whether it is a package; :func:`pkgutil.iter_modules` asks."""
        from pkgutil import iter_importer_modules  # type: ignore[attr-defined]

        files = FileFinder(self._path, (ExtensionFileLoader, EXTENSION_SUFFIXES))
        seen = set()
        for finder in (files, *self._archives(None)):
            for name, package in iter_importer_modules(finder, prefix):
                if name not in seen:
                    seen.add(name)
                    yield name, package

    def _spec(self, fullname: str, place: str, archive: zipimport.zipimporter, *, package: bool) -> Any:
        file = f"{place}/__init__.py" if package else f"{place}.py"
        return spec_from_file_location(
            fullname,
            file,
            loader=ArchivedLoader(fullname, file, archive),
            submodule_search_locations=[place] if package else None,
        )

    def _archives(self, name: str | None) -> Iterator[zipimport.zipimporter]:
        """Yield the archives' views of this directory; at the top, of what may hold the module `name`."""
        relative = self._path[len(self._library) + 1 :]
        for top in [relative.partition("/")[0]] if relative else [name, SINGLE] if name else []:
            try:
                yield zipimport.zipimporter(f"{self._library}/{CODE}/{top}.zip/{relative}".rstrip("/"))
            except zipimport.ZipImportError:
                continue


def _hook(path: str) -> ArchivedFinder:
    if not any(path == entry or path.startswith(f"{entry}/") for entry in _LIBRARIES):
        raise ImportError(path)
    return ArchivedFinder(path)


def install() -> None:
    """Let the libraries be searched by :class:`ArchivedFinder`."""
    sys.path_hooks.insert(0, _hook)
    sys.path_importer_cache.clear()


if __name__ == "sitecustomize":
    install()
