"""Files are either the old one or the new one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from sealbook import files


@pytest.fixture(params=["O_TMPFILE", "named temporary file"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "O_TMPFILE":
        real = os.open

        def without_tmpfile(path: str, flags: int, *args: int) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(files.errno.EOPNOTSUPP, "no O_TMPFILE here")
            return real(path, flags, *args)

        monkeypatch.setattr(files.os, "open", without_tmpfile)
    return str(request.param)


def test_a_written_file_has_the_new_content_and_nothing_is_left_beside_it(way: str, tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"old")
    files.write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["f"]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(way: str, tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), files.atomic_write(target) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_the_mode_is_the_one_asked_for(way: str, tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "secret", b"x", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_killed_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "f"
    target.write_bytes(b"old")
    script = f"""
        import os, signal
        from sealbook import files
        with files.atomic_write({str(target)!r}) as file:
            file.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]
