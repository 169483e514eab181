"""Local Spark as a kernel's driver has it: sealbook's JVM, gateway, settings and keys, without a kernel."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyspark import SparkConf, SparkContext
from pyspark.errors.exceptions import captured
from pyspark.sql import SparkSession

from sealbook import jdk, spark_files
from sealbook.sealing import InMemoryKeys, SealingKey
from sealbook.spark import credentials, jvm, sentences, settings
from sealbook.spark.driver import forget_context
from sealbook.spark.gateway import DriverJvm
from sealbook.spark.keysource import KeyCallback


class CountedKeys(InMemoryKeys):
    """Keys that count how often each is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[tuple[str, int]] = Counter()

    def current(self, name: str) -> SealingKey:
        self.asked[name, 0] += 1
        return super().current(name)

    def get(self, name: str, version: int) -> SealingKey:
        self.asked[name, version] += 1
        return super().get(name, version)


class LocalSpark:
    """A session, its keys, and what its JVM printed."""

    def __init__(self, session: SparkSession, driver: DriverJvm, keys: CountedKeys) -> None:
        self.session, self.driver, self.keys = session, driver, keys

    @property
    def counters(self) -> Any:
        return self.driver.gateway.jvm.sealbook.fs.Counters

    def printed(self) -> str:
        return self.driver._output._kept.decode(errors="replace")


@contextmanager
def local_spark(jar: Path, directory: Path, extra: Mapping[str, str] | None = None) -> Iterator[LocalSpark]:
    """Start Spark with two threads; keys `data` (the default) and `lab/patients` exist."""
    keys = CountedKeys()
    keys.create("data")
    keys.create("lab/patients")
    # Sockets lie there, whose names are short.
    short = Path(tempfile.mkdtemp(prefix="sb-"))
    (short / "t").mkdir()
    (short / "b").mkdir()
    conf = {
        **settings.settings(None),
        "spark.master": "local[2]",
        "spark.app.name": "a test",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": settings.sealed_url(directory / "warehouse"),
        settings.CHECKPOINTS: settings.sealed_url(directory / "checkpoints"),
        "spark.hadoop.sealbook.key": "data",
        **(extra or {}),
    }
    settings.require(conf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spark_files, "JAR", jar)
        patch.delenv("PYSPARK_PYTHON", raising=False)
        # As in a kernel, which does it when the module is imported; undone afterwards.
        patch.setattr(captured, "convert_exception", captured.convert_exception)
        sentences.install(captured)
        command = jvm.command(
            jdk.find_java(),
            role=credentials.LOCAL,
            main="sealbook.spark.DriverMain",
            heap="1g",
            options=jvm.definitions(conf),
            temporary=short / "t",
        )
        assert str(jar) in command[command.index("-cp") + 1]  # and not one that was built some time ago
        environment = jvm.environment(local_dirs=short / "b", temporary=short / "t", host="127.0.0.1")
        driver = DriverJvm(command, environment, credentials.local_frame)
        try:
            callback = KeyCallback(lambda: keys)
            driver.gateway.jvm.sealbook.keys.Keys.setCallback(callback)
            context = SparkContext(
                conf=SparkConf(loadDefaults=False, _jvm=driver.gateway.jvm).setAll(list(conf.items())),
                gateway=driver.gateway,
            )
            yield LocalSpark(SparkSession(context), driver, keys)
        finally:
            forget_context()
            driver.stop()
            shutil.rmtree(short, ignore_errors=True)
