"""Where Spark and sealbook's own Java part lie, for who runs them and for who measures them."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

from sealbook import jdk
from sealbook.errors import MissingDependencyError

#: Built from ``kernel/java`` by its ``build.py``: Java agent, TLS provider, file system, KMS client.
JAR = Path(__file__).parent / "spark/sealbook.jar"
#: Spark's configuration directory: how it logs, and nothing else. Lies here to be measured.
CONF_DIR = Path(__file__).parent / "spark/conf"


@functools.lru_cache(maxsize=1)
def spark_home() -> Path:
    """Return where the pip package of Spark lies.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    spec = importlib.util.find_spec("pyspark")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("Spark is not installed: `pip install 'sealbook[spark]'`.")
    home = Path(next(iter(spec.submodule_search_locations)))
    if not (home / "jars").is_dir():
        raise MissingDependencyError(
            f"{home} has no jars: install `pyspark`, not `pyspark-client`: `pip install 'sealbook[spark]'`."
        )
    return home


def jar() -> Path:
    """Return sealbook's jar, which must be there.

    Raises
    ------
    MissingDependencyError
        It was not built.
    """
    if not JAR.is_file():
        raise MissingDependencyError(
            f"{JAR} is missing: `python kernel/java/build.py` builds it (with javac of Java {jdk.OLDEST})."
        )
    return JAR
