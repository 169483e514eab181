"""Checks of decision trees that come out of a file, before compiled code walks them.

scikit-learn follows child and feature indices without looking: a tree with an index out
of range reads foreign memory when it predicts, one with a loop never ends. The types hold
nothing but data, so checking the indices makes them safe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sealbook.sealing.codecs.base import ContentError, loaded, need


def check_trees(model: Any) -> None:
    """Check every decision tree inside a model.

    Raises
    ------
    ContentError
        A child or feature index is out of range, or a child does not come after its parent (as in every
        tree that scikit-learn grows, and which excludes loops).
    """
    if loaded("sklearn.tree") is None and loaded("sklearn.ensemble") is None:
        return
    need("sklearn.ensemble", extra="learn")
    for part in _parts(model, set()):
        _check_part(part)


def _parts(value: Any, seen: set[int]) -> Iterator[Any]:
    """Yield every object that is reachable through attributes and containers, each once."""
    numpy = need("numpy", extra="data")
    pending = [value]
    while pending:
        item = pending.pop()
        if id(item) in seen or isinstance(item, str | bytes | int | float | type | None):
            continue
        seen.add(id(item))
        if isinstance(item, Mapping):
            pending.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            pending.extend(item)
        elif isinstance(item, numpy.ndarray):
            if item.dtype == object:
                pending.extend(item.ravel().tolist())
        else:
            yield item
            pending.extend(getattr(item, "__dict__", {}).values())


def _check_part(part: Any) -> None:
    from sklearn.ensemble._bagging import BaseBagging
    from sklearn.ensemble._forest import BaseForest
    from sklearn.ensemble._gb import BaseGradientBoosting
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.tree import BaseDecisionTree

    if isinstance(part, BaseDecisionTree) and hasattr(part, "tree_"):
        _check_tree(part.tree_, part.n_features_in_)
    elif isinstance(part, BaseForest | BaseGradientBoosting) and hasattr(part, "estimators_"):
        # The ensemble checks the width of its input once, against its own number, for all trees.
        for tree in need("numpy", extra="data").ravel(part.estimators_):
            _require(tree.n_features_in_ == part.n_features_in_)
    elif isinstance(part, BaseBagging) and hasattr(part, "estimators_"):
        _require(len(part.estimators_) == len(part.estimators_features_))
        for tree, features in zip(part.estimators_, part.estimators_features_, strict=True):
            if isinstance(tree, BaseDecisionTree):
                _require(tree.n_features_in_ == len(features) <= part.n_features_in_)
    elif isinstance(part, BaseHistGradientBoosting) and hasattr(part, "_predictors"):
        for predictor in (one for iteration in part._predictors for one in iteration):
            _check_predictor(predictor, part.n_features_in_)


def _check_tree(tree: Any, features: int) -> None:
    """Check a ``sklearn.tree._tree.Tree``; a node without a left child is a leaf."""
    numpy = need("numpy", extra="data")
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    inner = numpy.flatnonzero(left != -1)
    _require(tree.node_count > 0 and tree.n_features == features)
    _check_nodes(inner, left[inner], right[inner], feature[inner], tree.node_count, features)


def _check_predictor(predictor: Any, features: int) -> None:
    """Check a histogram gradient boosting tree, a structured array of nodes."""
    numpy = need("numpy", extra="data")
    nodes = predictor.nodes
    inner = numpy.flatnonzero(nodes["is_leaf"] == 0)
    _require(len(nodes) > 0)
    at = nodes[inner]
    _check_nodes(inner, at["left"], at["right"], at["feature_idx"], len(nodes), features)
    categorical = at[at["is_categorical"] != 0]
    for bitsets in (predictor.raw_left_cat_bitsets, predictor.binned_left_cat_bitsets):
        _require(bitsets.ndim == 2 and bitsets.shape[1] == 8)
        _require(bool((categorical["bitset_idx"] < len(bitsets)).all()))


def _check_nodes(parents: Any, left: Any, right: Any, feature: Any, nodes: int, features: int) -> None:
    for child in (left.astype("int64"), right.astype("int64")):
        _require(bool(((child > parents) & (child < nodes)).all()))
    _require(bool(((feature >= 0) & (feature < features)).all()))


def _require(condition: bool) -> None:
    if not condition:
        raise ContentError(
            "The model holds a decision tree with impossible indices, which would read foreign memory; "
            "it is not sealed and not opened."
        )
