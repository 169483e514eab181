"""scikit-learn models with skops, restricted to a list of trusted types both ways."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar

from sealbook.errors import InputError
from sealbook.sealing.codecs.base import Codec, ContentError, Payload, loaded, need
from sealbook.sealing.codecs.trees import check_trees

#: Types of scikit-learn, NumPy and SciPy that skops leaves to its user's judgement, judged here: they hold
#: data or are pure functions of data, and making one runs no code from the file. Of the compiled ones
#: only trees are here, because their indices can be checked (:mod:`.trees`); k-d trees are not.
TRUSTED_TYPES = (
    "numpy.dtype",
    "numpy.mean",
    "scipy.interpolate._bsplines.BSpline",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.cluster._bisect_k_means._BisectingTree",
    "sklearn.cluster._kmeans._kmeans_single_elkan",
    "sklearn.cluster._kmeans._kmeans_single_lloyd",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.feature_selection._mutual_info.mutual_info_classif",
    "sklearn.feature_selection._mutual_info.mutual_info_regression",
    "sklearn.feature_selection._univariate_selection.chi2",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._univariate_selection.f_regression",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Matern",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.Sum",
    "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
)


class SklearnCodec(Codec):
    """Anything that derives from ``sklearn.base.BaseEstimator``, pipelines included."""

    name: ClassVar[str] = "sklearn"
    holds: ClassVar[str] = "scikit-learn models"

    def can_seal(self, obj: Any) -> bool:  # noqa: D102 - described in Codec
        base = loaded("sklearn.base")
        return base is not None and isinstance(obj, base.BaseEstimator)

    def prepare(self, obj: Any) -> Payload:  # noqa: D102
        skops = need("skops.io", extra="learn")
        try:
            content = skops.dumps(obj)
        except Exception as error:
            raise InputError(
                f"skops cannot save this {type(obj).__name__} without pickle "
                f"({str(error).partition(chr(10))[0].rstrip('.')}); seal its parameters as JSON or arrays."
            ) from None
        untrusted = _untrusted(skops, content)
        if untrusted:
            raise InputError(
                f"This {type(obj).__name__} holds types that sealbook does not trust in a file "
                f"({', '.join(untrusted)}), so it could not be reopened; build it from scikit-learn's own "
                "estimators (nearest neighbours: with algorithm='brute')."
            )
        check_trees(obj)

        def write(file: BinaryIO) -> None:
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]

        return Payload(write)

    def read(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:  # noqa: D102
        skops = need("skops.io", extra="learn")
        with self.reading():
            content = file.read()
            with zipfile.ZipFile(io.BytesIO(content)) as members:
                if any(member.compress_type != zipfile.ZIP_STORED for member in members.infolist()):
                    raise ValueError("compressed members, which sealbook never writes")
            untrusted = _untrusted(skops, content)
            if untrusted:
                raise ContentError(
                    f"The sealed model holds types that sealbook does not trust ({', '.join(untrusted)}); "
                    "it was not opened."
                )
            model = skops.loads(content, trusted=list(TRUSTED_TYPES))
            check_trees(model)
            return model


def _untrusted(skops: Any, content: bytes) -> list[str]:
    return sorted(set(skops.get_untrusted_types(data=content)) - set(TRUSTED_TYPES))
