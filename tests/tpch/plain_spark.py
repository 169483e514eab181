"""Stock Spark in clear, as a program of its own: what sealbook's answers are compared with.

``python plain_spark.py JOB.py ARGUMENTS`` prints what ``run(spark, arguments)`` of the job returns, as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any


def main() -> None:
    """Run the job on a local session that nothing of sealbook has touched."""
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    assert not [name for name in sys.modules if name.split(".")[0] == "sealbook"]
    spec = importlib.util.spec_from_file_location("job", sys.argv[1])
    assert spec is not None
    assert spec.loader is not None
    job: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    result = job.run(spark, json.loads(sys.argv[2]))
    spark.stop()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
