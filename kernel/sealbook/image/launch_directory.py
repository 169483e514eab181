"""The directory that one start of a kernel runs in: Gramine resolves all URIs of the manifest from there.

It holds links to the image, to the notebook's directory and to the data directory, the encrypted scratch
space, and the one file that the host hands to the kernel. Made by the launcher and removed by it; what a
killed launcher left is removed by the next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sealbook.encoding import canonical_json
from sealbook.image.manifest import DATA, IMAGE, REGISTRATION, SCRATCH, WORK
from sealbook.image.owned_directory import owned_directory

_PREFIX = "launch-"


@contextlib.contextmanager
def launch_directory(
    parent: Path,
    *,
    image: Path,
    work: Path,
    data: Path | None,
    registration: str | Mapping[str, Any],
) -> Iterator[Path]:
    """Make the directory for one start, and remove it afterwards.

    Parameters
    ----------
    parent
        Where launch directories lie, on a file system with room for scratch files.
    work
        The notebook's directory.
    data
        What the encrypted data mount keeps its files in; None for an empty directory.
    registration
        Where the provisioner waits, ``tcp://host:port``; or a node's plan. Public either way.
    """
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with owned_directory(parent, _PREFIX) as place:
        (place / IMAGE).symlink_to(image.absolute(), target_is_directory=True)
        (place / WORK).symlink_to(work.absolute(), target_is_directory=True)
        (place / SCRATCH).mkdir()
        if data is None:
            (place / DATA).mkdir()
        else:
            (place / DATA).symlink_to(data.absolute(), target_is_directory=True)
        parameters = place / REGISTRATION
        parameters.parent.mkdir()
        content = registration if isinstance(registration, Mapping) else {"registration": registration}
        parameters.write_bytes(canonical_json(dict(content)))
        yield place
