"""What is compared between stock Spark in clear and trusted Spark; ``run`` works on whatever session it gets.

Used by ``plain_spark.py`` and, by its path, in cells of a notebook. It needs nothing of sealbook.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def _queries() -> Any:
    spec = importlib.util.spec_from_file_location("queries", Path(__file__).with_name("queries.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(spark: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the rows of the answers, or what the models say.

    Parameters
    ----------
    arguments
        ``root`` of the tables, ``scale``, ``what`` (some of ``queries``, ``mllib``, ``xgboost``).
    """
    queries = _queries()
    queries.views(spark, arguments["root"])
    found: dict[str, Any] = {}
    if "queries" in arguments["what"]:
        for number in queries.QUERIES:
            found[f"Q{number}"] = queries.rows_as_text(queries.run(spark, number, arguments["scale"]))
    if "mllib" in arguments["what"]:
        found["mllib"] = mllib(spark)
    if "xgboost" in arguments["what"]:
        found["xgboost"] = boosted(spark)
    return found


def training(spark: Any) -> Any:
    """The rows that models learn from: does an order's item come back?

    In one partition and in a fixed order, so that sums of floating point numbers are the same everywhere.
    """
    from pyspark.ml.feature import VectorAssembler

    items = spark.sql(
        "select cast(l_quantity as double) quantity, cast(l_extendedprice as double) price, "
        "cast(datediff(l_shipdate, date '1992-01-01') as double) shipped, "
        "cast(l_returnflag = 'R' as double) label, l_orderkey, l_linenumber from lineitem "
        "where l_orderkey % 8 = 1"
    )
    ordered = items.coalesce(1).sortWithinPartitions("l_orderkey", "l_linenumber")
    features = ["quantity", "price", "shipped"]
    return VectorAssembler(inputCols=features, outputCol="features").transform(ordered)


def mllib(spark: Any) -> dict[str, Any]:
    """Train models of MLlib."""
    from pyspark.ml.classification import DecisionTreeClassifier, LogisticRegression
    from pyspark.ml.clustering import KMeans

    data = training(spark).select("features", "label")
    logistic = LogisticRegression(maxIter=5).fit(data)
    tree = DecisionTreeClassifier(maxDepth=4, seed=7).fit(data)
    means = KMeans(k=3, seed=7, maxIter=5).fit(data)
    return {
        "rows": data.count(),
        "logistic": [*logistic.coefficients.toArray().tolist(), logistic.intercept],
        "tree": tree.toDebugString.partition("\n")[2],
        "means": [centre.tolist() for centre in means.clusterCenters()],
    }


def boosted(spark: Any) -> dict[str, Any]:
    """Train with XGBoost's own estimator for Spark."""
    from xgboost.spark import SparkXGBClassifier

    data = training(spark).select("features", "label")
    model = SparkXGBClassifier(num_workers=1, n_estimators=5, max_depth=4, seed=7).fit(data)
    trees = model.get_booster().get_dump(dump_format="json")
    return {"trees": trees, "right": model.transform(data).where("prediction = label").count()}
