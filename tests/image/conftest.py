from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

SOUND = Path(__file__).parents[1] / "data/manifests/sound.manifest"

#: What `sealbook image build` writes beside the sound manifest.
FACTS: dict[str, Any] = {
    "format": 1,
    "name": "base",
    "layers": ["base", "data"],
    "gramine": "1.9",
    "python": "3.11.7",
    "packages": {"numpy": "2.4.6", "sealbook": "0.1.0"},
    "programs": ["sh", "["],
    "mrenclave": "ab" * 32,
    "mrsigner": "cd" * 32,
    "isv_prod_id": 1,
    "isv_svn": 1,
    "signed": True,
    "work": "host",
    "manifest": "cd" * 32,
    "owner": "ab" * 32,
    "role": "kernel",
    "tables": None,
    "groups": {
        "interpreter": {"files": 1, "bytes": 100},
        "library OS": {"files": 1, "bytes": 1000},
        "libraries": {"files": 1, "bytes": 2000},
        "programs": {"files": 1, "bytes": 3000},
        "standard library": {"files": 1, "bytes": 4000},
    },
}


@pytest.fixture
def manifest() -> dict[str, Any]:
    """A manifest that the lint has nothing against, for a test to change one thing in."""
    return tomllib.loads(SOUND.read_text())


@pytest.fixture
def facts() -> dict[str, Any]:
    return FACTS | {"groups": dict(FACTS["groups"]), "packages": dict(FACTS["packages"])}
