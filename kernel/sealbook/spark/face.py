"""Spark in one kernel: what the kernel application installs, and costs nothing until Spark is named."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from sealbook import session
from sealbook.errors import RefusedError
from sealbook.spark import interception, present
from sealbook.spark.names import SparkNames
from sealbook.spark.progress import CellWatch

if TYPE_CHECKING:
    from sealbook.attestation import Attester
    from sealbook.spark.driver import Driver
    from sealbook.spark.profiles import Profile


class SparkFace:
    """Joins the driver, the names and the progress of one shell.

    Parameters
    ----------
    shell
        The kernel's.
    attester
        Makes this kernel's evidence.
    """

    def __init__(self, shell: Any, attester: Attester) -> None:
        self._shell = shell
        self._attester = attester
        self._chosen = False
        self.names = SparkNames(shell)
        self._watch = CellWatch(shell.display_pub.publish, lambda: present.current().scale.name)

    def install(self) -> None:
        """Let the names be there, PySpark lead here, and jobs be watched; called before any code runs."""
        _forget_host_settings()
        present.attach(self._make_driver)
        present.on_context.append(self._watch.made)
        present.on_change.append(self.names.refresh)
        interception.install()
        self.names.install()
        self._watch.install(self._shell)
        session.on_default_key.append(self._seal_to)
        present.on_context.append(self._look_at_key)

    def interrupt(self) -> None:
        """Cancel the jobs of the cell that runs; from any thread."""
        self._watch.interrupt()

    def close(self) -> None:
        """End the JVM."""
        driver = present.existing()
        present.attach(None)
        if driver is not None:
            driver.stop("This kernel is shutting down.")

    @property
    def process(self) -> int | None:
        """The JVM's process, if one runs."""
        driver = present.existing()
        return None if driver is None else driver.pid

    def _make_driver(self) -> Driver:
        from sealbook.spark.driver import Driver

        return Driver(self._attester, _find_cluster)

    def _seal_to(self, key: str) -> None:
        """Let Spark seal to the default key that was chosen just now, also in the rest of the same cell."""
        self._chosen = True
        present.notice_end()
        module = sys.modules.get("pyspark.core.context")
        context = None if module is None else module.SparkContext._active_spark_context
        if context is not None and context._jsc:
            self._look_at_key(context)
            context._jsc.hadoopConfiguration().set("sealbook.key", key)

    def _look_at_key(self, context: Any) -> None:
        """Have a changed default key looked at: Hadoop keeps file systems, and they their first one."""
        if self._chosen:
            context._jsc.hadoopConfiguration().set("fs.sealed.impl.disable.cache", "true")


def _forget_host_settings() -> None:
    """Undo what the host's environment says to PySpark; what a cell sets afterwards is the user's."""
    for name in list(os.environ):
        if name == "MASTER" or name.startswith(("SPARK_", "PYSPARK_", "_PYSPARK_", "HADOOP_", "HIVE_")):
            del os.environ[name]


def _find_cluster(name: str) -> Profile | None:
    """Ask the user's side, and believe nothing that is not a profile."""
    from sealbook.broker.names import check_name
    from sealbook.spark import profiles

    found = session.current().cluster(name)
    if found is None:
        return None
    table = dict(found)
    called = check_name(table.pop("name", ""), "a cluster")
    if name and called != name:
        raise RefusedError(f"The user's side answered with another cluster than '{name}'.")
    return profiles.from_table(called, table, f"The cluster '{called}'")
