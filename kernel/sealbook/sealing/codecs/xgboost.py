"""XGBoost models as UBJSON, XGBoost's own binary format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar

from sealbook.errors import InputError
from sealbook.sealing.codecs.base import Codec, Payload, loaded, need

#: Classes that may be made again. The header names one of them; it never names anything to import.
_CLASSES = (
    "Booster",
    "XGBClassifier",
    "XGBRegressor",
    "XGBRanker",
    "XGBRFClassifier",
    "XGBRFRegressor",
)


class XGBoostCodec(Codec):
    """``xgboost.Booster`` and XGBoost's scikit-learn estimators, trained.

    As with ``save_model`` of XGBoost itself, a reopened estimator predicts the same, but
    parameters that only matter for training (such as ``max_depth``) are not kept.
    """

    name: ClassVar[str] = "xgboost"
    holds: ClassVar[str] = "XGBoost models"

    def can_seal(self, obj: Any) -> bool:  # noqa: D102 - described in Codec
        xgboost = loaded("xgboost")
        return xgboost is not None and isinstance(obj, xgboost.Booster | getattr(xgboost, "XGBModel", ()))

    def prepare(self, obj: Any) -> Payload:  # noqa: D102
        xgboost = need("xgboost", extra="learn")
        name = type(obj).__name__
        if name not in _CLASSES or type(obj) is not getattr(xgboost, name):
            raise InputError(
                f"A {name} could not be made again when it is unsealed; seal its booster "
                "(.get_booster()) or one of XGBoost's own classes."
            )
        booster = obj
        if not isinstance(obj, xgboost.Booster):
            if not obj.__sklearn_is_fitted__():
                raise InputError("The XGBoost model is not trained yet; fit it before sealing.")
            if callable(obj.objective) or callable(obj.eval_metric):
                raise InputError(
                    "The XGBoost model has a Python function as objective or metric, which is not sealed; "
                    "seal its booster (.get_booster())."
                )
            # A copy: the attribute that XGBModel.load_model looks for must not stay in the user's model.
            booster = obj.get_booster().copy()
            booster.set_attr(scikit_learn=json.dumps({"_estimator_type": obj._get_type()}))
        content = booster.save_raw("ubj")

        def write(file: BinaryIO) -> None:
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]

        return Payload(write, {"class": name})

    def read(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:  # noqa: D102
        xgboost = need("xgboost", extra="learn")
        with self.reading():
            name = metadata["class"]
            if name not in _CLASSES:
                raise ValueError("an unknown class")
            content = bytearray(file.read())
            # XGBoost also reads a binary format that predates UBJSON; only an object is what was sealed.
            if not content.startswith(b"{"):
                raise ValueError("not UBJSON")
            model = getattr(xgboost, name)()
            model.load_model(content)
            return model
