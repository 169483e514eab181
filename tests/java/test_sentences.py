"""A kernel's PySpark learns of sealbook's refusals at its import; what they say is in test_sealed_tables."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
from sealbook.spark import interception
interception.install()
import pyspark.sql
captured = sys.modules["pyspark.errors.exceptions.captured"]
from sealbook.spark import sentences
once = captured.convert_exception
sentences.install(captured)
assert captured.convert_exception is once
print(once.__wrapped__.__module__)
"""


def test_pyspark_is_told_once_when_it_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("pyspark.errors.exceptions.captured\n", 0), done.stderr
