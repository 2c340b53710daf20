"""Fitted models as functions of a table: `of(estimator, method, parts)` gives `answer(table)` in the shape that the method gives.

`parts`: what the model reads. A linear model takes the parts one by one, so that a category costs one look into a table of what it adds;
trees take the matrix. A model that is not known here is called itself, with the matrix, when transformers before it are.
"""

from __future__ import annotations

import functools

import numpy

from mlrails_runtime.accelerate import Refused, Unusual, features, trees


def of(estimator, method, parts):
    name, package = type(estimator).__name__, type(estimator).__module__.partition(".")[0]
    known = _KNOWN.get(name) if package == "sklearn" else None
    if known is None:
        raise Refused(f"{name} has no fast path")
    if getattr(estimator, "n_outputs_", 1) not in (1, None):
        raise Refused(f"{name} with several outputs")
    return known(estimator, method, parts)


def unknown(estimator, method, parts):
    """The estimator's own method, given the matrix."""
    call = getattr(estimator, method)
    return lambda table: call(numpy.ascontiguousarray(_finite(features.dense(parts, table)).T))


def _finite(values):
    if not numpy.isfinite(values).all():
        raise Unusual
    return values


# Answers from scores, of shape (rows, outputs).


def _probabilities(scores, each=False):
    """Of two classes from one score; of several by softmax, or (`each`) each against the rest."""
    from scipy.special import expit

    if scores.shape[1] == 1:
        made = numpy.empty((len(scores), 2))
        made[:, 1] = expit(scores[:, 0])
        made[:, 0] = 1.0 - made[:, 1]
        return made
    if each:
        made = expit(scores)
        return made / made.sum(axis=1, keepdims=True)
    made = numpy.exp(scores - scores.max(axis=1, keepdims=True))
    return made / made.sum(axis=1, keepdims=True)


def _classes(classes, scores, least=0.0):
    if scores.shape[1] == 1:
        return classes[(scores[:, 0] > least).astype(numpy.intp)]
    return classes[scores.argmax(axis=1)]


# Linear models.


def _scores(estimator, parts):
    coefficients = numpy.atleast_2d(numpy.asarray(estimator.coef_, dtype=float)).T
    intercept = numpy.asarray(estimator.intercept_, dtype=float).reshape(1, -1)
    if coefficients.shape[0] != sum(part.width for part in parts):
        raise Refused("another number of columns than coefficients")
    products, at = [], 0
    for part in parts:
        products.append(part.times(numpy.ascontiguousarray(coefficients[at : at + part.width])))
        at += part.width

    def scores(table):
        made = intercept + products[0](table)
        for product in products[1:]:
            made += product(table)
        return _finite(made)

    return scores


def _linear_classifier(estimator, method, parts):
    scores, classes = _scores(estimator, parts), estimator.classes_
    if method == "predict":
        return lambda table: _classes(classes, scores(table))
    if method == "decision_function":
        if len(classes) == 2:
            return lambda table: scores(table)[:, 0]
        return scores
    if method == "predict_proba":
        each = getattr(estimator, "solver", None) == "liblinear" or getattr(estimator, "multi_class", None) == "ovr"
        return lambda table: _probabilities(scores(table), each)
    raise Refused(f"{type(estimator).__name__}.{method} has no fast path")


def _linear_regression(estimator, method, parts):
    if method != "predict":
        raise Refused(f"{type(estimator).__name__}.{method} has no fast path")
    scores = _scores(estimator, parts)
    if numpy.ndim(estimator.coef_) == 1:
        return lambda table: scores(table)[:, 0]
    return scores


# Trees.


def _forest(estimator, method, parts):
    """A decision tree, or the mean of many."""
    members = getattr(estimator, "estimators_", None)
    classifier = hasattr(estimator, "classes_")
    made, walks = [], []
    for member in [estimator] if members is None else members:
        value = member.tree_.value[:, 0, :]
        if classifier:
            value = value / value.sum(axis=1, keepdims=True)
        made.append(trees.of_tree(member.tree_, value))
        walks.append(member.tree_.apply)
    forest = trees.Forest(made, numpy.float32, walks)

    def mean(table):
        # In the order of the trees, as the forest itself adds.
        return numpy.add.reduce(forest.leaves(_finite(features.dense(parts, table))), axis=0) / forest.trees

    if method == "predict_proba" and classifier:
        return mean
    if method == "predict" and classifier:
        return lambda table: _classes(estimator.classes_, mean(table))
    if method == "predict":
        return lambda table: mean(table)[:, 0]
    raise Refused(f"{type(estimator).__name__}.{method} has no fast path")


def _boosted(estimator, method, parts):
    stages = estimator.estimators_
    outputs = stages.shape[1]
    if estimator.init not in (None, "zero"):
        raise Refused("boosting that begins with another estimator")
    start = estimator._raw_predict_init(numpy.zeros((1, estimator.n_features_in_)))
    made, walks = [], []
    for at, stage in enumerate(stages.ravel()):
        # A tree adds to its own class only.
        value = numpy.zeros((stage.tree_.node_count, outputs))
        value[:, at % outputs] = stage.tree_.value[:, 0, 0] * estimator.learning_rate
        made.append(trees.of_tree(stage.tree_, value))
        walks.append(stage.tree_.apply)
    forest = trees.Forest(made, numpy.float32, walks)
    scale = 2.0 if getattr(estimator, "loss", None) == "exponential" else 1.0

    def scores(table):
        return start + numpy.add.reduce(forest.leaves(_finite(features.dense(parts, table))), axis=0)

    return _of_scores(estimator, method, scores, scale, lambda raw: raw)


def _histogram(estimator, method, parts):
    if getattr(estimator, "is_categorical_", None) is not None or getattr(estimator, "_preprocessor", None) is not None:
        raise Refused("boosting of histograms with categories")
    predictors = [one for stage in estimator._predictors for one in stage]
    outputs = len(estimator._predictors[0])
    start = numpy.asarray(estimator._baseline_prediction, dtype=float).reshape(1, -1)
    made, walks = [], []
    for at, predictor in enumerate(predictors):
        nodes = predictor.nodes
        if nodes["is_categorical"].any():
            raise Refused("boosting of histograms with categories")
        feature, threshold, left, right, leaf, missing, depth = trees.of_histogram(nodes)
        value = numpy.zeros((len(nodes), outputs))
        value[:, at % outputs] = leaf[:, 0]
        made.append((feature, threshold, left, right, value, missing, depth))
        walks.append(functools.partial(_own_walk, predictor))
    forest = trees.Forest(made, numpy.float64)

    def scores(table):
        values = features.dense(parts, table)
        if forest.large(values.shape[1]):
            matrix = numpy.ascontiguousarray(values.T)
            sums = numpy.tile(start, (len(matrix), 1))
            for at, walk in enumerate(walks):
                sums[:, at % outputs] += walk(matrix)
            return sums
        return start + numpy.add.reduce(forest.leaves(values), axis=0)

    return _of_scores(estimator, method, scores, 1.0, estimator._loss.link.inverse)


def _own_walk(predictor, matrix):
    # No category is known: neither bitsets nor a map of features.
    return predictor.predict(matrix, numpy.zeros((0, 8), dtype=numpy.uint32), numpy.zeros(0, dtype=numpy.uint32), 1)


def _of_scores(estimator, method, scores, scale, inverse):
    """What boosting answers from its sums."""
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        if method == "predict":
            return lambda table: inverse(scores(table)[:, 0])
    elif method == "predict":
        return lambda table: _classes(classes, scores(table), -1e-300)
    elif method == "predict_proba":
        return lambda table: _probabilities(scores(table) * scale)
    elif method == "decision_function":
        if len(classes) == 2:
            return lambda table: scores(table)[:, 0]
        return scores
    raise Refused(f"{type(estimator).__name__}.{method} has no fast path")


_KNOWN = {
    **dict.fromkeys(
        ("LogisticRegression", "LogisticRegressionCV", "RidgeClassifier", "SGDClassifier", "LinearSVC", "Perceptron"), _linear_classifier
    ),
    **dict.fromkeys(
        (
            "LinearRegression",
            "Ridge",
            "RidgeCV",
            "Lasso",
            "LassoCV",
            "ElasticNet",
            "ElasticNetCV",
            "SGDRegressor",
            "HuberRegressor",
            "BayesianRidge",
            "LinearSVR",
        ),
        _linear_regression,
    ),
    **dict.fromkeys(
        (
            "DecisionTreeClassifier",
            "DecisionTreeRegressor",
            "RandomForestClassifier",
            "RandomForestRegressor",
            "ExtraTreesClassifier",
            "ExtraTreesRegressor",
        ),
        _forest,
    ),
    **dict.fromkeys(("GradientBoostingClassifier", "GradientBoostingRegressor"), _boosted),
    **dict.fromkeys(("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"), _histogram),
}
