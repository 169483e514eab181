from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers beside this file


@pytest.fixture
def user(tmp_path) -> Any:
    """A user, and temporary directories of their own with a short name, because sockets lie in them."""
    short = Path(tempfile.mkdtemp(prefix="sb-", dir="/tmp"))
    from spark_user import User

    user = User(tmp_path / "home")
    user.environment["TMPDIR"] = str(short)
    yield user
    shutil.rmtree(short, ignore_errors=True)


@pytest.fixture(scope="session")
def here(policy_file: Path) -> Iterator[Any]:
    """A trusted cluster of this session's own user, which notebooks choose by its name; see scaled.py."""
    from scaled import scaled

    with scaled() as user:
        yield user
