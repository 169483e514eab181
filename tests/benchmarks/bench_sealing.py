"""Sealing speed beside openssl, age and tink: GB per CPU-second on one file, all from one run.

CPU time is user and system time of what did the work; wall time of a shared machine says little.
The figures of a run are medians of rounds in which every contestant has its turn, so that what
else the machine does falls on all of them.

Run with ``python tests/benchmarks/bench_sealing.py [--quick]``. The files (five times the size of the
sealed one) lie in ``$SEALBOOK_BENCH_DIR``, by default in the directory for temporary files.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sealbook.sealing import InMemoryKeys, SealingKey, seal_file, unseal_file
from sealbook.sealing.segments import REST, SEGMENT, SegmentCipher

DIRECTORY_VARIABLE = "SEALBOOK_BENCH_DIR"
GB = 1e9
KEYS = InMemoryKeys(SealingKey.generate("bench"))


def measure(quick: bool = False) -> list[dict[str, Any]]:
    """Return one row for each figure.

    Parameters
    ----------
    quick
        256 MiB and one round instead of 2 GiB and three: shows that it runs, not how fast it is.

    Returns
    -------
    list of dict
        name, value, baseline, ratio, target, holds (None where the machine cannot tell), note.
    """
    size, rounds = (256 << 20, 1) if quick else (2 << 30, 3)
    with (
        tempfile.TemporaryDirectory(dir=os.environ.get(DIRECTORY_VARIABLE), prefix="bench-sealing-") as disk,
        tempfile.TemporaryDirectory(dir=_memory_directory(3 * size), prefix="bench-sealing-") as memory,
    ):
        return _measure(Path(disk), Path(memory), size, rounds)


def _memory_directory(size: int) -> str | None:
    """Where two threads are compared with one: a disk slower than one thread would hide the second."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > size
    return str(memory) if roomy else os.environ.get(DIRECTORY_VARIABLE)


def _measure(where: Path, memory: Path, size: int, rounds: int) -> list[dict[str, Any]]:
    plain, sealed, out = where / "plain", where / "sealed", where / "out"
    _random_file(plain, size)
    contestants: dict[str, Callable[[], float]] = {
        "openssl": lambda: _openssl_speed()[0],
        "seal": lambda: _cpu(size, lambda: seal_file(plain, out, key="bench", keys=KEYS, threads=1)),
        "unseal": lambda: _cpu(size, lambda: unseal_file(sealed, out, keys=KEYS, threads=1)),
        "cipher 1": lambda: _wall(size, lambda: _encrypt_in_memory(size, 1)),
        "cipher 2": lambda: _wall(size, lambda: _encrypt_in_memory(size, 2)),
        "openssl scaling": lambda: _openssl_speed(2)[1] / _openssl_speed(1)[1],
    }
    seal_file(plain, sealed, key="bench", keys=KEYS)
    contestants |= _age(plain, where, size) | _tink(plain, where, size)
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contest in contestants.items():
            # Replacing 2 GiB frees 2 GiB; that is nobody's work.
            out.unlink(missing_ok=True)
            os.sync()
            figures[name].append(contest())
    speed = {name: statistics.median(values) for name, values in figures.items()}
    speed |= _two_threads(plain, memory, size, rounds + 2)

    rows = []

    def row(
        name: str, value: float, baseline: float, target: float, unit: str, note: str, *, known: bool = True
    ) -> None:
        rows.append(
            {
                "name": name,
                "value": f"{value:.2f} {unit}",
                "baseline": f"{baseline:.2f} {unit}",
                "ratio": f"{value / baseline:.2f}x",
                "target": f"at least {target:g}x",
                "holds": value / baseline >= target if known else None,
                "note": note,
            }
        )

    per_cpu, per_second = "GB per CPU-second", "GB/s"
    gib = f"{size / (1 << 30):g} GiB"
    for way in ("seal", "unseal"):
        note = f"{gib}, one thread; openssl speed -evp aes-256-gcm, 16 KiB blocks"
        row(f"{way} a file, against `openssl speed`", speed[way], speed["openssl"], 0.85, per_cpu, note)
    scaling = speed["openssl scaling"]
    free = f"two openssl processes on this machine now: {scaling:.2f}x one"
    # Where two processes of openssl's do not scale either, nothing is known of two threads here.
    known = scaling >= 1.6
    for way in ("seal", "unseal"):
        note = f"{gib} in a memory file system, where no disk is the limit; {free}"
        one, two = speed[f"{way} wall 1"], speed[f"{way} wall 2"]
        row(f"{way} a file, two threads against one", two, one, 1.6, per_second, note, known=known)
    note = f"no files; {free}"
    one, two = speed["cipher 1"], speed["cipher 2"]
    row("encrypt segments, two threads against one", two, one, 1.6, per_second, note, known=known)
    for name, target in (("age", 1.3), ("tink", 4.0)):
        for way in ("seal", "unseal"):
            if f"{name} {way}" in speed:
                durable = "too" if name == "tink" else "leaves that to the kernel"
                note = f"{gib}, same file, ours until it is on the disk; {name} {durable}"
                row(
                    f"{way} a file, against {name}", speed[way], speed[f"{name} {way}"], target, per_cpu, note
                )
    memory = _memory(plain, where)
    rows.append(
        {
            "name": "memory to seal and unseal a file",
            "value": f"{memory:.0f} MiB",
            "baseline": "the interpreter's own",
            "ratio": f"+{memory:.0f} MiB",
            "target": "at most +64 MiB",
            "holds": memory <= 64,
            "note": f"{gib}, default threads",
        }
    )
    return rows


def _cpu(size: int, work: Callable[[], object], who: int = resource.RUSAGE_SELF) -> float:
    """Return GB per CPU-second, user and system."""
    before = resource.getrusage(who)
    work()
    after = resource.getrusage(who)
    return size / GB / (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def _wall(size: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return size / GB / (time.perf_counter() - start)


def _two_threads(plain: Path, memory: Path, size: int, rounds: int) -> dict[str, float]:
    """Return GB per second of wall time with one thread and with two, sealing and unsealing.

    Back to back and after an untimed round, because a memory file system's first use of a page costs
    more than its encryption.
    """
    source, sealed, out = memory / "plain", memory / "sealed", memory / "out"
    shutil.copyfile(plain, source)
    seal_file(source, sealed, key="bench", keys=KEYS)
    figures: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for way in ("seal", "unseal"):
            for threads in (1, 2):

                def work(way: str = way, threads: int = threads) -> None:
                    if way == "seal":
                        seal_file(source, out, key="bench", keys=KEYS, threads=threads)
                    else:
                        unseal_file(sealed, out, keys=KEYS, threads=threads)

                figure = _wall(size, work)
                out.unlink()
                if number:
                    figures.setdefault(f"{way} wall {threads}", []).append(figure)
    return {name: statistics.median(values) for name, values in figures.items()}


def _random_file(path: Path, size: int) -> None:
    block = os.urandom(64 << 20)
    with path.open("wb") as file:
        for _ in range(size // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def _openssl_speed(processes: int = 1) -> tuple[float, float]:
    """Return GB per CPU-second and per second of wall time, as `openssl speed` counts them."""

    def speed(*options: str) -> float:
        command = ["openssl", "speed", "-seconds", "1", "-bytes", "16384", *options, "-evp", "aes-256-gcm"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"^AES-256-GCM\s+([\d.]+)k", text, re.MULTILINE | re.IGNORECASE)
        assert found, text
        return float(found[1]) * 1000 / GB

    if processes > 1:
        return 0.0, speed("-elapsed", "-multi", str(processes))
    return speed(), speed("-elapsed")


def _encrypt_in_memory(size: int, threads: int) -> None:
    """Encrypt as many bytes with `threads` threads, no file: shows what the interpreter lets through."""
    cipher = SegmentCipher(bytes(32), b"")

    def work() -> None:
        plain, sealed = bytearray(REST), bytearray(SEGMENT)
        for index in range(size // SEGMENT // threads):
            cipher.encrypt_into(index, False, plain, sealed)

    helpers = [threading.Thread(target=work) for _ in range(threads)]
    for helper in helpers:
        helper.start()
    for helper in helpers:
        helper.join()


def _age(plain: Path, where: Path, size: int) -> dict[str, Callable[[], float]]:
    """The `age` command with a recipient of its own, if it is installed."""
    if not shutil.which("age") or not shutil.which("age-keygen"):
        return {}
    identity, encrypted, back = where / "identity", where / "plain.age", where / "back"
    done = subprocess.run(["age-keygen", "-o", identity], capture_output=True, text=True, check=True)
    found = re.search(r"age1\w+", done.stderr + identity.read_text())
    assert found
    recipient = found[0]

    def run(*arguments: str | Path) -> float:
        return _cpu(size, lambda: subprocess.run(["age", *arguments], check=True), resource.RUSAGE_CHILDREN)

    def seal() -> float:
        encrypted.unlink(missing_ok=True)
        return run("-r", recipient, "-o", encrypted, plain)

    def unseal() -> float:
        figure = run("-d", "-i", identity, "-o", back, encrypted)
        back.unlink()
        return figure

    return {"age seal": seal, "age unseal": unseal}


def _tink(plain: Path, where: Path, size: int) -> dict[str, Callable[[], float]]:
    """Tink's own streaming AEAD with the same segments, if it is installed."""
    try:
        import tink
        from tink import streaming_aead
    except ImportError:
        return {}
    streaming_aead.register()
    handle = tink.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
    primitive = handle.primitive(streaming_aead.StreamingAead)
    encrypted, back = where / "plain.tink", where / "back"

    def copy(source: Any, target: Any, path: Path) -> None:
        with source, target:
            while piece := source.read(SEGMENT):
                target.write(piece)
        # As sealing does: otherwise the kernel does the rest later, on nobody's account.
        with path.open("rb") as file:
            os.fsync(file.fileno())

    def seal() -> float:
        encrypted.unlink(missing_ok=True)

        def work() -> None:
            copy(plain.open("rb"), primitive.new_encrypting_stream(encrypted.open("wb"), b""), encrypted)

        return _cpu(size, work)

    def unseal() -> float:
        def work() -> None:
            copy(primitive.new_decrypting_stream(encrypted.open("rb"), b""), back.open("wb"), back)

        figure = _cpu(size, work)
        back.unlink()
        return figure

    return {"tink seal": seal, "tink unseal": unseal}


_MEMORY = """
import re, sys
from pathlib import Path
from sealbook.sealing import InMemoryKeys, SealingKey, seal_file, unseal_file

def most():
    # Not ru_maxrss: a child begins with its parent's.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

keys = InMemoryKeys(SealingKey("k", 1, bytes(32)))
before = most()
seal_file(sys.argv[1], sys.argv[2], key="k", keys=keys)
unseal_file(sys.argv[2], sys.argv[3], keys=keys)
print(most() - before)
"""


def _memory(plain: Path, where: Path) -> float:
    paths = [plain, where / "m-sealed", where / "m-back"]
    done = subprocess.run([sys.executable, "-c", _MEMORY, *paths], capture_output=True, text=True, check=True)
    for path in paths[1:]:
        path.unlink()
    return round(float(done.stdout), 1)


if __name__ == "__main__":
    print(json.dumps(measure(quick="--quick" in sys.argv), indent=1))
