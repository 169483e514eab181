"""One run of the leak test, in a network namespace of its own: a cluster, a job, all traffic and all files.

``unshare -n python leak_scene.py INSTRUCTIONS``: a JSON file with "directory" (short, private), "marker",
"removed" (a protection, or null), "table" (a URL). Prints where the marker was found.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent

#: Protection -> settings of the driver without it.
UNSET = {
    "tls": {"spark.ssl.rpc.enabled": "false"},
    "io-encryption": {"spark.io.encryption.enabled": "false"},
    "unix-sockets": {"spark.python.unix.domain.socket.enabled": "false"},
    "python-spill": {"spark.python.worker.memory": "1m"},
    "event-log": {"spark.eventLog.dir": "file:{directory}/events"},
}
#: Where the traffic of each could be read would be compressed otherwise.
READABLE = {
    "spark.shuffle.compress": "false",
    "spark.shuffle.spill.compress": "false",
    "spark.broadcast.compress": "false",
    "spark.rdd.compress": "false",
    "spark.checkpoint.compress": "false",
    "spark.eventLog.compress": "false",
    "spark.eventLog.rolling.enabled": "false",
    "spark.sql.shuffle.partitions": "4",
    "spark.sql.adaptive.enabled": "false",
    "spark.shuffle.spill.numElementsForceSpillThreshold": "20000",
    "spark.shuffle.readHostLocalDisk": "false",
    "spark.cores.max": "2",
    "spark.python.worker.reuse": "true",
}


class Sniffer(threading.Thread):
    """Every TCP byte on the loopback interface, in order of arrival, by flow."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 256 << 20)  # SO_RCVBUFFORCE
        self.socket.bind(("lo", 0))
        self.socket.settimeout(0.2)
        self.flows: dict[tuple, bytearray] = defaultdict(bytearray)
        self.going = True

    def run(self) -> None:
        while self.going:
            try:
                frame, address = self.socket.recvfrom(1 << 17)
            except TimeoutError:
                continue
            # On loopback each packet is seen going out and coming in.
            if address[2] == socket.PACKET_OUTGOING or frame[12:14] != b"\x08\x00" or frame[23] != 6:
                continue
            tcp = 14 + (frame[14] & 15) * 4
            ports = struct.unpack_from(">HH", frame, tcp)
            end = 14 + struct.unpack_from(">H", frame, 16)[0]
            flow = (socket.inet_ntoa(frame[26:30]), ports[0], socket.inet_ntoa(frame[30:34]), ports[1])
            self.flows[flow] += frame[tcp + (frame[tcp + 12] >> 4) * 4 : end]

    def dropped(self) -> int:
        return struct.unpack("II", self.socket.getsockopt(263, 6, 8))[1]  # SOL_PACKET, PACKET_STATISTICS

    def hits(self, marker: bytes) -> dict[str, int]:
        found = {}
        for flow, content in list(self.flows.items()):
            if count := bytes(content).count(marker):
                found[f"{flow[0]}:{flow[1]}->{flow[2]}:{flow[3]}"] = count
        return found


class Searcher(threading.Thread):
    """Every file below a directory, also those that are there for a moment only."""

    def __init__(self, root: Path, marker: bytes, spare: tuple[Path, ...]) -> None:
        super().__init__(daemon=True)
        self.root, self.marker, self.spare = root, marker, spare
        self.found: dict[str, int] = {}
        self.seen: dict[int, tuple] = {}
        self.read = 0
        self.going = True

    def run(self) -> None:
        while self.going:
            self.once()
            time.sleep(0.01)

    def once(self) -> None:
        for directory, _, names in os.walk(self.root):
            for name in names:
                path = Path(directory, name)
                if path in self.spare:
                    continue
                try:
                    status = path.lstat()
                    state = (status.st_size, status.st_mtime_ns)
                    if self.seen.get(status.st_ino) == state or not path.is_file() or not status.st_size:
                        continue
                    content = path.read_bytes()
                except OSError:
                    continue
                self.seen[status.st_ino] = state
                self.read += 1
                if count := content.count(self.marker) or inflated(content).count(self.marker):
                    self.found[str(path.relative_to(self.root))] = count


def inflated(content: bytes) -> bytes:
    """Everything in a file that is compressed as PySpark does it, one piece after the other."""
    pieces, at = [], content.find(b"\x78\x01")
    while at >= 0 and len(pieces) < 50:
        with contextlib.suppress(zlib.error):
            pieces.append(zlib.decompressobj().decompress(content[at:], 1 << 20))
        at = content.find(b"\x78\x01", at + 1)
    return b"".join(pieces)


def lo_up() -> None:
    with socket.socket() as s:
        request = struct.pack("16sh14s", b"lo", 0, b"")
        flags = struct.unpack("16sh14s", fcntl.ioctl(s, 0x8913, request))[1]  # SIOCGIFFLAGS
        fcntl.ioctl(s, 0x8914, struct.pack("16sh14s", b"lo", flags | 1, b""))  # SIOCSIFFLAGS, IFF_UP


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    directory, marker, removed = Path(told["directory"]), told["marker"], told["removed"]
    os.environ["TMPDIR"] = str(directory / "t")
    (directory / "t").mkdir()
    lo_up()
    sniffer = Sniffer()
    sniffer.start()
    from sealbook.broker import open_keyring
    from sealbook.broker.passphrase import inherited
    from sealbook.cli import cluster as commands
    from sealbook.spark import cluster, node

    if removed in ("tls", "executor-logs"):
        node.AGENT = (str(HERE / "unprotected_node.py"), removed)
    commands.make_policy()
    size = cluster.Size(2, 1, "900m")
    broker = functools.partial(commands.broker_here, "leaks", "127.0.0.1", 18440)
    profile = cluster.up(
        "leaks", size, broker, port=17077, worker_hosts=["127.0.0.2", "127.0.0.3"], patience=150
    )
    # A key that lasts: those of a session go to no node.
    open_keyring(passphrase=inherited).create("leaks", guard=commands._POLICY)
    work = directory / "work"
    work.mkdir()
    instructions = directory / "told.json"
    ready, go = directory / "ready", directory / "go"
    searcher = Searcher(directory, marker.encode(), (instructions, Path(sys.argv[1])))
    searcher.start()
    try:
        (directory / "events").mkdir()
        instructions.write_text(
            json.dumps(
                {
                    "profile": profile.name,
                    "host": "127.0.0.1",
                    "directory": str(work),
                    "job": str(HERE / "jobs.py"),
                    "arguments": {
                        "name": "everywhere",
                        "marker": marker,
                        "ready": str(ready),
                        "go": str(go),
                        "table": told["table"],
                    },
                    "settings": READABLE
                    | {
                        "spark.eventLog.enabled": "true",
                        "spark.eventLog.dir": f"sealed://leaks{directory}/events",
                    },
                    "unset": {
                        key: value.format(directory=directory)
                        for key, value in UNSET.get(removed, {}).items()
                    },
                    "plain_gateway": removed == "py4j-tls",
                }
            )
        )
        program = subprocess.Popen(
            [sys.executable, "-I", "-B", str(HERE / "driver_program.py"), str(instructions)],
            cwd=work,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 200
        while not ready.exists() and program.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        searcher.going = False
        searcher.join()
        searcher.once()
        go.touch()
        out, errors = program.communicate(timeout=60)
        time.sleep(0.5)
        searcher.once()
    finally:
        cluster.down("leaks")
    sniffer.going = False
    sniffer.join()
    print(
        json.dumps(
            {
                "status": program.returncode,
                "result": json.loads(out) if program.returncode == 0 else None,
                "errors": errors[-4000:],
                "traffic": sniffer.hits(marker.encode()),
                "bytes": sum(map(len, sniffer.flows.values())),
                "dropped": sniffer.dropped(),
                "files": searcher.found,
                "read": searcher.read,
            }
        )
    )


if __name__ == "__main__":
    main()
