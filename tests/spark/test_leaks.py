"""No marker of a job's data leaves it: all traffic between the nodes and all files are searched for it.

And with any one protection taken away the same search finds it, so that it can fail.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from guardian import guard

from sealbook.broker.passphrase import DESCRIPTOR_VARIABLE, hand_over

SCENE = Path(__file__).with_name("leak_scene.py")
MARKER = "MARKERqzx7"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("leaks")]


def namespaces() -> bool:
    """Whether this user may make a network namespace and look at all its traffic."""
    unshare = shutil.which("unshare")
    return (
        os.geteuid() == 0 and unshare is not None and subprocess.run([unshare, "-n", "true"]).returncode == 0
    )


@pytest.fixture
def scene(tmp_path):
    if not namespaces():
        pytest.skip("needs root and `unshare -n`: a network namespace whose traffic can be read")
    # A short name: Unix sockets are in it.
    directory = Path(tempfile.mkdtemp(prefix="lk-", dir="/tmp"))
    guardian = guard(tmp_path / "home", directory)

    def run(removed: str | None = None, table: str = "sealed://leaks{directory}/table") -> dict:
        told = tmp_path / "scene.json"
        told.write_text(
            json.dumps(
                {
                    "directory": str(directory),
                    "marker": MARKER,
                    "removed": removed,
                    "table": table.format(directory=directory),
                }
            )
        )
        reader, number = hand_over("correct horse battery")
        try:
            done = subprocess.run(
                ["unshare", "-n", sys.executable, str(SCENE), str(told)],
                env=os.environ | {"SEALBOOK_HOME": str(tmp_path / "home"), DESCRIPTOR_VARIABLE: number},
                pass_fds=[reader],
                capture_output=True,
                text=True,
                timeout=500,
            )
        finally:
            os.close(reader)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["status"] == 0, found["errors"]
        # It ran on both workers, moved what it should, and all of it was seen.
        assert (
            found["result"]
            | {
                "closure": 400,
                "shuffle": 10,
                "cached": 4000,
                "grouped": 1000,
                "exception": True,
                "executors": 3,
            }
            == found["result"]
        )
        assert found["dropped"] == 0
        assert found["bytes"] > 1_000_000
        assert found["read"] > 50
        return found

    yield run
    guardian.communicate()


def test_no_marker_is_in_any_packet_or_file(scene):
    found = scene()
    assert found["traffic"] == {}
    assert found["files"] == {}


@pytest.mark.parametrize("removed", ["tls", "unix-sockets", "py4j-tls"])
def test_without_this_protection_the_marker_is_in_packets(scene, removed):
    assert scene(removed)["traffic"]


@pytest.mark.parametrize(
    ("removed", "where"),
    [
        ("io-encryption", "/local/"),
        ("python-spill", "/local/"),
        ("event-log", "events/"),
        ("executor-logs", "/stderr"),
    ],
)
def test_without_this_protection_the_marker_is_in_files(scene, removed, where):
    found = scene(removed)
    assert any(where in path for path in found["files"])
    assert found["traffic"] == {}


def test_a_table_that_is_not_sealed_has_the_marker(scene):
    found = scene(table="file:{directory}/table")
    assert any(path.startswith("table/") for path in found["files"])
