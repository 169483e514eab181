"""What libraries would work out in every kernel anew, because a kernel's caches end with it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

from sealbook.errors import RefusedError
from sealbook.image.interpreter import PREFIX
from sealbook.image.tree import put

#: ``MPLCONFIGDIR``.
MATPLOTLIB = PREFIX / "share/matplotlib"

#: The fonts that matplotlib brings, and none of this machine's: looking for those starts a process, too.
_LIST_FONTS = """
import sys
import matplotlib.font_manager as manager
find = manager.findSystemFonts
manager.findSystemFonts = lambda places=None, fontext="ttf": find(places, fontext) if places else []
fonts = manager.FontManager()
# They come out of a set, in another order each time.
fonts.ttflist.sort(key=repr)
fonts.afmlist.sort(key=repr)
manager.json_dump(fonts, f"{sys.argv[1]}/fontlist-v{fonts.__version__}.json")
"""


def install(root: Path) -> None:
    """Write matplotlib's list of fonts into the tree at `root`.

    Raises
    ------
    RefusedError
        matplotlib could not make it.
    """
    with tempfile.TemporaryDirectory(prefix="sealbook-image-") as directory:
        done = subprocess.run(
            [sys.executable, "-I", "-B", "-c", _LIST_FONTS, directory],
            env={"MPLCONFIGDIR": directory, "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        made = sorted(Path(directory).glob("fontlist-*.json"))
        if done.returncode != 0 or not made or "DejaVuSans.ttf" not in made[0].read_text():
            cause = done.stderr.strip().rpartition("\n")[2]
            raise RefusedError(f"matplotlib's fonts could not be listed: {cause}")
        put(made[0], root, PurePosixPath(MATPLOTLIB, made[0].name))
