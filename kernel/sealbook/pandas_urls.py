"""Letting pandas 2 see that ``sealed::path`` is a URL.

fsspec understands it, and so does pandas 3; pandas 2 looks for ``scheme://`` at the beginning and
takes ``sealed::path`` for the name of a local file. One regular expression of pandas is widened
for this one scheme. ``sealed:///path`` and ``sealed://::s3://bucket/path`` work without this.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Sequence
from types import ModuleType

_MODULE = "pandas.io.common"
_PATTERN = "_RFC_3986_PATTERN"
_URL = "sealed::path"


def accept_sealed_urls() -> None:
    """Make pandas take ``sealed::path`` for a URL: now if it is loaded, else when it is."""
    module = sys.modules.get(_MODULE)
    if module is not None:
        _widen(module)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _widen(module: ModuleType) -> None:
    pattern = getattr(module, _PATTERN, None)
    if isinstance(pattern, re.Pattern) and not pattern.match(_URL):
        setattr(module, _PATTERN, re.compile(f"^sealed::|{pattern.pattern}"))


class _Finder(importlib.abc.MetaPathFinder):
    """Waits for the one module, then steps aside."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads the module as its own loader would, and widens the pattern."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _widen(module)
