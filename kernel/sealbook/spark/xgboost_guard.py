"""What of ``xgboost.spark`` can be protected, and the refusal of the rest before anything starts.

XGBoost's workers find one another through a tracker and then exchange gradients, from which rows can be
guessed, over TCP connections of their own: in clear, open to anybody, and without a setting for TLS. Spark's
protections do not cover them, and in an enclave not even a loopback address is private. One worker has nobody
to exchange anything with. Stock xgboost gives it a tracker all the same, which listens on every address of
the machine; here it trains without, and without a socket.
"""

from __future__ import annotations

import contextlib
import functools
from types import ModuleType
from typing import Any

from sealbook.errors import RefusedError


def guard(module: ModuleType) -> None:
    """Let estimators of ``xgboost.spark.core`` train only as far as that is protected."""
    estimator = module._SparkXGBEstimator
    stock = estimator._fit

    @functools.wraps(stock)
    def fit(self: Any, dataset: Any) -> Any:
        workers = int(self.getOrDefault(self.num_workers))
        if workers > 1:
            raise RefusedError(
                f"XGBoost was not started: its {workers} workers would exchange gradients over connections "
                "without encryption; train with num_workers=1, and give that more cores with the setting "
                "spark.task.cpus."
            )
        return stock(self, dataset)

    @functools.wraps(estimator._get_tracker_args)
    def tracker_arguments(self: Any) -> tuple[bool, dict[str, Any]]:
        # As if the driver had started one, of which the worker need not know.
        return True, {}

    estimator._fit = fit
    estimator._get_tracker_args = tracker_arguments
    # What would connect the worker with the tracker. The worker gets it by its name, so it is a stock class.
    module.CommunicatorContext = contextlib.nullcontext  # type: ignore[attr-defined]
