"""What stands in an `app.py` that no phases were cut for: a request's records as others take them, and models that others saved.

The first half makes of records what a plain function or a model takes, where that is neither records nor a DataFrame. The second asks
models as MLflow's own wrappers of their flavours do. Frameworks are imported where they are needed; MLflow only by models that are its own.
"""


def array(request, dtype, flat=False):
    """Rows by columns as an array of one dtype; of one dimension when a row is one value (`flat`)."""
    import numpy

    rows = [list(record.values()) for record in request]
    if dtype in ("str", "object"):
        dtype = object
    made = numpy.array(rows, dtype=dtype)
    return made.reshape(len(rows)) if flat else made


def columns(request):
    """A list per column. A record that leaves an optional one out has None there."""
    names = {name: None for record in request for name in record}
    return {name: [record.get(name) for record in request] for name in names}


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
