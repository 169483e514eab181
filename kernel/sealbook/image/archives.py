"""Packs Python code into archives: a few large files to measure instead of thousands of small ones.

Gramine goes through its whole list of measured files with every entry that it adds, so its start takes time
with the square of their number (measured: 0.03 s for 1,000 files, 0.4 s for 5,000, 5.5 s for 20,000).

The byte code is made here, unchecked against any source (PEP 552), because inside Gramine every file
has the time stamp zero and CPython would compile each module anew. Equal sources give equal archives,
byte for byte. What reads them is :mod:`.archived_imports`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from sealbook.errors import RefusedError
from sealbook.image.archived_imports import CODE, SINGLE, SOURCE

#: The oldest time a zip file can hold; all entries have it.
_EPOCH = (1980, 1, 1, 0, 0, 0)

#: Compiles the files named on stdin: source, place at run time and output, separated by NUL. A process of its
#: own, always in the same state, because marshal writes an object that somebody else refers to differently.
_COMPILE = """
import importlib._bootstrap_external as external, sys
for line in sys.stdin.read().split("\\n"):
    if line:
        source, place, output = line.split("\\0")
        with open(source, "rb") as file:
            text = file.read()
        try:
            code = compile(text, place, "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError):
            continue
        with open(output, "wb") as file:
            file.write(external._code_to_hash_pyc(code, bytes(8), False))
"""


def install(root: Path, library: PurePosixPath, sources: Mapping[PurePosixPath, Path]) -> None:
    """Write the archives of a library: byte code and source, one of each for every package.

    Parameters
    ----------
    root
        The tree.
    library
        The directory in it that ``sys.path`` names.
    sources
        Name below the library and the file.
    """
    packages: dict[str, dict[PurePosixPath, Path]] = defaultdict(dict)
    for name, source in sources.items():
        packages[name.parts[0] if len(name.parts) > 1 else SINGLE][name] = source
    for package, modules in sorted(packages.items()):
        code, texts = _entries(modules, library)
        for directory, entries in ((CODE, code), (SOURCE, texts)):
            _write_zip(root / (library / directory / f"{package}.zip").relative_to("/"), entries)


def write(
    root: Path, archive: PurePosixPath, place: PurePosixPath, sources: Mapping[PurePosixPath, Path]
) -> None:
    """Write byte code into one archive, uncompressed: zlib itself may not be imported yet."""
    code, _ = _entries(sources, place)
    _write_zip(root / archive.relative_to("/"), code, compression=zipfile.ZIP_STORED)


def _entries(
    sources: Mapping[PurePosixPath, Path], place: PurePosixPath
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return byte code and source of modules, as archive entries."""
    code: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="sealbook-image-") as directory:
        outputs = {name: Path(directory, str(number)) for number, name in enumerate(sources)}
        _compile((sources[name], place / name, outputs[name]) for name in sources)
        for name, output in outputs.items():
            if output.exists():
                code[str(name.with_suffix(".pyc"))] = output.read_bytes()
    return code, {str(name): source.read_bytes() for name, source in sources.items()}


def _compile(jobs: Iterable[tuple[Path, PurePosixPath, Path]]) -> None:
    """Compile modules; one that does not compile (a template) gets no output.

    Parameters
    ----------
    jobs
        Source, the place that tracebacks name, and where the byte code goes.

    Raises
    ------
    RefusedError
        The compiler ended early.
    """
    text = "".join(f"{source}\0{place}\0{output}\n" for source, place, output in jobs)
    done = subprocess.run(
        [sys.executable, "-S", "-B", "-c", _COMPILE],
        input=text,
        capture_output=True,
        text=True,
        # The order of sets of constants follows the hash seed.
        env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "PYTHONWARNINGS": "ignore"},
        check=False,
    )
    if done.returncode != 0:
        raise RefusedError(
            f"The packages could not be compiled: {done.stderr.strip().rpartition(chr(10))[2]}"
        )


def _write_zip(path: Path, entries: Mapping[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> None:
    """Write sorted entries without time stamps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # zipimport knows a directory without modules of its own (a namespace) only by an entry of its own.
    directories = {f"{parent}/": b"" for name in entries for parent in PurePosixPath(name).parents[:-1]}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in sorted({**entries, **directories}.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o444 << 16
            entry.create_system = 3  # Unix, whatever this is built on
            entry.compress_type = compression
            archive.writestr(entry, content, compresslevel=9)
