"""How models that MLflow saved are asked, by the framework that made them: what MLflow's own wrappers of the flavours do.

`app.py` of such a model calls one function of the first half to make what the model takes of a request's records, where it takes no
DataFrame, and one of the second half to answer. Frameworks are imported where they are needed; MLflow only by the models that are its own.
"""


def array(request, dtype, flat=False):
    """Rows by columns as an array of one dtype; of one dimension when a row is one value (`flat`)."""
    import numpy

    rows = [list(record.values()) for record in request]
    if dtype in ("str", "object"):
        dtype = object
    made = numpy.array(rows, dtype=dtype)
    return made.reshape(len(rows)) if flat else made


def values(request):
    """The one value of each record."""
    return [next(iter(record.values()), None) for record in request]


def records(request):
    """The records themselves, as a model whose type hint says so takes them."""
    return list(request)


def unnamed(request):
    """A DataFrame whose one column has no name but its place."""
    import pandas

    return pandas.DataFrame(values(request))


def estimator(model, rows, method="predict"):
    """Whatever answers by a method: scikit-learn's estimators, those of XGBoost and LightGBM, LightGBM's booster."""
    return getattr(model, method)(rows)


def xgboost_booster(model, rows):
    """XGBoost's booster, which takes a matrix of its own."""
    import xgboost

    return model.predict(xgboost.DMatrix(rows))


def pyfunc(model, rows):
    """What MLflow loaded."""
    return model.predict(rows)
