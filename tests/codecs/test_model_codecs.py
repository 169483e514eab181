"""Models predict the same after sealing, and a hostile model file runs nothing and reads nothing."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_regression

from sealbook.errors import InputError
from sealbook.sealing.codecs import ContentError, codec_for, codec_named


def sealed_bytes(obj: Any) -> tuple[str, bytes, dict[str, Any]]:
    codec = codec_for(obj)
    payload = codec.prepare(obj)
    file = io.BytesIO()
    payload.write(file)
    return codec.name, file.getvalue(), payload.metadata


def round_trip(obj: Any) -> Any:
    name, content, metadata = sealed_bytes(obj)
    return codec_named(name).read(io.BytesIO(content), metadata)


X, Y = load_iris(return_X_y=True)


# -- scikit-learn -------------------------------------------------------------------------------


def models() -> dict[str, Any]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import (
        BaggingClassifier,
        ExtraTreesRegressor,
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        IsolationForest,
        RandomForestClassifier,
    )
    from sklearn.feature_selection import SelectKBest
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    return {
        "pipeline": make_pipeline(StandardScaler(), SelectKBest(k=2), LogisticRegression()),
        "tree": DecisionTreeClassifier(),
        "tree behind wider features": make_pipeline(PolynomialFeatures(2), DecisionTreeClassifier()),
        "forest": RandomForestClassifier(n_estimators=5),
        "extra trees": ExtraTreesRegressor(n_estimators=5),
        "boosting": GradientBoostingClassifier(n_estimators=5),
        "histogram boosting": HistGradientBoostingClassifier(max_iter=5),
        "bagging": BaggingClassifier(n_estimators=3, max_features=2),
        "isolation forest": IsolationForest(n_estimators=5),
        "calibrated": CalibratedClassifierCV(DecisionTreeClassifier(), cv=2),
        "network": MLPClassifier(max_iter=5),
        "gaussian process": GaussianProcessRegressor(),
        "support vectors": SVC(),
    }


@pytest.mark.parametrize("kind", models())
@pytest.mark.filterwarnings("ignore")
def test_a_scikit_learn_model_predicts_the_same_after_unsealing(kind: str) -> None:
    model = models()[kind].fit(X, Y)
    back = round_trip(model)
    assert type(back) is type(model)
    np.testing.assert_array_equal(back.predict(X), model.predict(X))


def test_an_estimator_that_is_not_fitted_comes_back() -> None:
    from sklearn.linear_model import Ridge

    assert round_trip(Ridge(alpha=3)).alpha == 3


def test_a_model_with_a_function_of_the_user_is_refused() -> None:
    from sklearn.preprocessing import FunctionTransformer

    model = FunctionTransformer(os.path.basename)
    with pytest.raises(InputError, match="does not trust") as caught:
        codec_for(model).prepare(model)
    assert "\n" not in str(caught.value)


def test_a_model_with_a_compiled_neighbour_index_is_refused_with_a_way_out() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(algorithm="kd_tree").fit(X, Y)
    with pytest.raises(InputError, match="algorithm='brute'"):
        codec_for(model).prepare(model)
    brute = KNeighborsClassifier(algorithm="brute").fit(X, Y)
    np.testing.assert_array_equal(round_trip(brute).predict(X), brute.predict(X))


def test_a_sealed_model_that_names_an_untrusted_type_is_not_opened() -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    content = skops.io.dumps(FunctionTransformer(os.system))
    with pytest.raises(ContentError, match=r"does not trust .*system"):
        codec_named("sklearn").read(io.BytesIO(content), {})


def test_a_compressed_model_archive_is_refused() -> None:
    import skops.io
    from sklearn.linear_model import Ridge

    content = skops.io.dumps(Ridge(), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ContentError, match="no readable 'sklearn'"):
        codec_named("sklearn").read(io.BytesIO(content), {})


def forged(model: Any, change: Any) -> bytes:
    """Serialise a model whose first tree was changed, as a hostile sealer would."""
    import skops.io

    change(model)
    return skops.io.dumps(model)


def test_a_tree_with_a_feature_out_of_range_is_not_opened() -> None:
    from sklearn.tree import DecisionTreeClassifier

    def change(model: Any) -> None:
        model.tree_.feature[0] = 1_000_000

    content = forged(DecisionTreeClassifier().fit(X, Y), change)
    with pytest.raises(ContentError, match="impossible indices"):
        codec_named("sklearn").read(io.BytesIO(content), {})


def test_a_tree_that_splits_on_a_negative_feature_is_not_opened() -> None:
    from sklearn.tree import DecisionTreeClassifier

    def change(model: Any) -> None:
        model.tree_.feature[0] = -3

    content = forged(DecisionTreeClassifier().fit(X, Y), change)
    with pytest.raises(ContentError, match="impossible indices"):
        codec_named("sklearn").read(io.BytesIO(content), {})


def test_a_tree_of_another_width_than_its_model_is_not_opened() -> None:
    from sklearn.tree import DecisionTreeClassifier

    def change(model: Any) -> None:
        model.n_features_in_ = 10

    content = forged(DecisionTreeClassifier().fit(X, Y), change)
    with pytest.raises(ContentError, match="impossible indices"):
        codec_named("sklearn").read(io.BytesIO(content), {})


def test_a_histogram_tree_with_a_category_table_out_of_range_is_not_opened() -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    x, y = make_regression(200, 4, random_state=0)

    def change(model: Any) -> None:
        nodes = model._predictors[0][0].nodes
        nodes["is_categorical"][0] = 1
        nodes["bitset_idx"][0] = 1_000_000

    content = forged(HistGradientBoostingRegressor(max_iter=2).fit(x, y), change)
    with pytest.raises(ContentError, match="impossible indices"):
        codec_named("sklearn").read(io.BytesIO(content), {})


@pytest.mark.parametrize("child", [-5, 0, 1_000_000])
def test_a_tree_with_a_child_out_of_range_or_a_loop_is_not_opened(child: int) -> None:
    from sklearn.ensemble import RandomForestClassifier

    def change(model: Any) -> None:
        model.estimators_[1].tree_.children_left[0] = child

    content = forged(RandomForestClassifier(n_estimators=2).fit(X, Y), change)
    with pytest.raises(ContentError, match="impossible indices"):
        codec_named("sklearn").read(io.BytesIO(content), {})


def test_a_forest_that_claims_fewer_features_than_its_trees_is_not_opened() -> None:
    from sklearn.ensemble import RandomForestClassifier

    def change(model: Any) -> None:
        model.n_features_in_ = 1

    content = forged(RandomForestClassifier(n_estimators=2).fit(X, Y), change)
    with pytest.raises(ContentError, match="impossible indices"):
        codec_named("sklearn").read(io.BytesIO(content), {})


def test_a_tree_that_claims_fewer_features_than_it_splits_on_is_not_opened() -> None:
    from sklearn.tree import DecisionTreeClassifier

    def change(model: Any) -> None:
        model.n_features_in_ = 1

    content = forged(DecisionTreeClassifier().fit(X, Y), change)
    with pytest.raises(ContentError, match="impossible indices"):
        codec_named("sklearn").read(io.BytesIO(content), {})


@pytest.mark.parametrize("field", ["left", "right", "feature_idx"])
def test_a_histogram_tree_with_an_index_out_of_range_is_not_opened(field: str) -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    x, y = make_regression(200, 4, random_state=0)

    def change(model: Any) -> None:
        model._predictors[0][0].nodes[field][0] = 1_000_000

    content = forged(HistGradientBoostingRegressor(max_iter=2).fit(x, y), change)
    with pytest.raises(ContentError, match="impossible indices"):
        codec_named("sklearn").read(io.BytesIO(content), {})


def test_a_bagging_model_whose_trees_want_more_features_than_they_get_is_not_opened() -> None:
    from sklearn.ensemble import IsolationForest

    def change(model: Any) -> None:
        model.n_features_in_ = 1

    content = forged(IsolationForest(n_estimators=2).fit(X), change)
    with pytest.raises(ContentError, match="impossible indices"):
        codec_named("sklearn").read(io.BytesIO(content), {})


# -- XGBoost ------------------------------------------------------------------------------------


def test_an_xgboost_classifier_predicts_the_same_and_stays_a_classifier() -> None:
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=3).fit(X, Y)
    before = dict(model.get_booster().attributes())
    back = round_trip(model)
    assert type(back) is xgboost.XGBClassifier
    np.testing.assert_array_equal(back.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(back.classes_, model.classes_)
    assert model.get_booster().attributes() == before


def test_an_xgboost_booster_keeps_its_feature_names() -> None:
    import xgboost

    data = xgboost.DMatrix(X, Y, feature_names=list("abcd"))
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3}, data, 3)
    back = round_trip(booster)
    assert back.feature_names == list("abcd")
    np.testing.assert_array_equal(back.predict(data), booster.predict(data))


def test_an_xgboost_regressor_comes_back_as_one() -> None:
    import xgboost

    model = xgboost.XGBRegressor(n_estimators=2).fit(X, Y)
    assert type(round_trip(model)) is xgboost.XGBRegressor


def test_an_xgboost_model_that_would_not_come_back_is_refused() -> None:
    import xgboost

    class Mine(xgboost.XGBClassifier):
        pass

    for model, sentence in (
        (xgboost.XGBClassifier(), "not trained"),
        (Mine(n_estimators=1).fit(X, Y), "could not be made again"),
        (
            xgboost.XGBRegressor(n_estimators=1, objective=lambda a, b: (a - b, np.ones_like(a))).fit(X, Y),
            "Python function",
        ),
    ):
        with pytest.raises(InputError, match=sentence):
            codec_for(model).prepare(model)


@pytest.mark.parametrize("name", ["os.system", "DMatrix", "XGBModel", None, 3])
def test_a_header_that_names_another_class_is_refused(name: Any) -> None:
    import xgboost

    # A booster's content fits every estimator class, so that only the list of classes refuses.
    _, content, _ = sealed_bytes(xgboost.XGBRegressor(n_estimators=1).fit(X, Y).get_booster())
    with pytest.raises(ContentError):
        codec_named("xgboost").read(io.BytesIO(content), {"class": name})


@pytest.mark.parametrize("content", [b"", b"binf" + bytes(100), b"{nonsense", b"model.json"])
def test_malformed_xgboost_content_is_refused(content: bytes) -> None:
    with pytest.raises(ContentError):
        codec_named("xgboost").read(io.BytesIO(content), {"class": "Booster"})


# -- Keras --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


def small_model(keras: Any) -> Any:
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, Y, epochs=1, verbose=0)
    return model


def test_a_keras_model_predicts_the_same_and_goes_on_training(keras: Any) -> None:
    model = small_model(keras)
    back = round_trip(model)
    np.testing.assert_array_equal(back.predict(X, verbose=0), model.predict(X, verbose=0))
    assert int(back.optimizer.iterations) == int(model.optimizer.iterations) > 0
    back.fit(X, Y, epochs=1, verbose=0)


def test_a_keras_model_can_be_written_to_a_file_that_does_not_seek(keras: Any) -> None:
    class Stream(io.RawIOBase):
        def __init__(self) -> None:
            self.content = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            piece = bytes(data)[:1000]
            self.content += piece
            return len(piece)

    stream = Stream()
    model = small_model(keras)
    codec_for(model).prepare(model).write(stream)  # type: ignore[arg-type]
    back = codec_named("keras").read(io.BytesIO(stream.content), {})
    np.testing.assert_array_equal(back.predict(X, verbose=0), model.predict(X, verbose=0))


def test_a_keras_model_with_a_lambda_is_refused_before_it_is_sealed(keras: Any) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    with pytest.raises(InputError, match="Lambda layer"):
        codec_for(model).prepare(model)


def test_a_keras_model_with_an_unregistered_class_is_refused_before_it_is_sealed(keras: Any) -> None:
    class Mine(keras.layers.Layer):
        pass

    model = keras.Sequential([keras.Input((4,)), Mine(), keras.layers.Dense(1)])
    with pytest.raises(InputError, match=r"Mine.*register_keras_serializable"):
        codec_for(model).prepare(model)


def test_a_keras_model_with_its_own_functions_and_metrics_is_not_mistaken_for_one(keras: Any) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation=keras.activations.relu)])
    model.compile(loss=keras.losses.mean_squared_error, metrics=[keras.metrics.AUC()])
    codec_for(model).prepare(model)


def test_a_keras_file_with_a_lambda_is_not_opened(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    model.save(tmp_path / "m.keras")
    with pytest.raises(ContentError):
        codec_named("keras").read(io.BytesIO((tmp_path / "m.keras").read_bytes()), {})


def test_a_keras_file_that_names_a_foreign_class_is_not_opened(keras: Any) -> None:
    _, content, _ = sealed_bytes(small_model(keras))
    forged_file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(forged_file, "w") as after:
        for name in before.namelist():
            data = before.read(name)
            if name == "config.json":
                config = json.loads(data)
                config["config"]["layers"][1] = {
                    "module": "subprocess",
                    "class_name": "Popen",
                    "config": {"args": ["touch", "pwned"]},
                    "registered_name": None,
                }
                data = json.dumps(config).encode()
            after.writestr(name, data)
    with pytest.raises(ContentError):
        codec_named("keras").read(io.BytesIO(forged_file.getvalue()), {})


def test_a_compressed_keras_file_is_refused(keras: Any) -> None:
    _, content, _ = sealed_bytes(small_model(keras))
    bomb = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as before,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as after,
    ):
        for name in before.namelist():
            after.writestr(name, before.read(name))
    with pytest.raises(ContentError, match="no readable 'keras'"):
        codec_named("keras").read(io.BytesIO(bomb.getvalue()), {})


def test_a_keras_model_without_weights_is_refused(keras: Any) -> None:
    model = keras.Sequential([keras.layers.Dense(1)])
    with pytest.raises(InputError, match="no weights yet"):
        codec_for(model).prepare(model)


def test_vocabularies_of_a_keras_model_come_back_and_never_touch_a_disk(
    keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: set[str] = set()
    mkdtemp = tempfile.mkdtemp

    def watched(*args: Any, **kwargs: Any) -> str:
        made = mkdtemp(*args, **kwargs)
        seen.add(made)
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", watched)
    model = keras.Sequential(
        [keras.Input((1,), dtype="string"), keras.layers.StringLookup(vocabulary=["topsecret", "b"])]
    )
    back = round_trip(model)
    assert back.layers[0].get_vocabulary() == model.layers[0].get_vocabulary()
    assert seen
    assert all(Path(made).is_relative_to("/dev/shm") for made in seen)
    assert not any(Path(made).exists() for made in seen)
    assert tempfile.tempdir == str(tmp_path)
