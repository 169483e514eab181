from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside this file


@pytest.fixture
def user(tmp_path) -> Any:
    """A user of one test."""
    from spark_user import temporary_user

    with temporary_user(tmp_path / "home") as user:
        yield user
