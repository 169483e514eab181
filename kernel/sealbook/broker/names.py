"""Names of clusters and of data owners."""

from __future__ import annotations

import re
from typing import Final

from sealbook.errors import InputError

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


def check_name(name: object, what: str) -> str:
    """Return `name` if it can be one.

    Parameters
    ----------
    what
        What it names, such as "a cluster".

    Raises
    ------
    InputError
        It cannot: names become parts of key names, file names and Kubernetes objects.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r:.60} is not a name for {what}: use a-z, 0-9 and '-', at most 40, not '-' at the ends."
        )
    return name
