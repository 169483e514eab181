from __future__ import annotations

import sys
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A user whose cluster the tests of one file share."""
    from spark_user import temporary_user

    from sealbook import jdk
    from sealbook.errors import InputError

    try:
        jdk.find_java()
    except InputError as missing:
        pytest.skip(str(missing))
    with temporary_user(tmp_path_factory.mktemp("user") / "home") as user:
        yield user


@pytest.fixture(scope="session")
def here(policy_file: Path) -> Iterator[Any]:
    """A trusted cluster of this session's own user, which notebooks choose by its name; see scaled.py."""
    from scaled import scaled

    with scaled() as user:
        yield user
