"""Frozen values of frameworks: saved, loaded, still equal; and what differs is found. Boosters' fast paths. Each class needs its framework."""

import importlib.util
import pathlib
import pickle
import sys
import tempfile
import unittest

sys.path.append(str(pathlib.Path(__file__).parents[2] / "worker"))
from mlrails_runtime import accelerate, values  # noqa: E402
from mlrails_worker import accelerate as proof  # noqa: E402
from mlrails_worker import equal  # noqa: E402


def has(*modules):
    return all(importlib.util.find_spec(module) for module in modules)


class Frozen:
    def check(self, value, format):
        """`value` is kept in `format`, and comes back equal from there; training hands it on as a pickle before."""
        value = pickle.loads(pickle.dumps(value))
        with tempfile.TemporaryDirectory() as folder:
            path, chosen = values.save(value, f"{folder}/value")
            loaded = values.load(path, chosen)
        self.assertEqual(chosen, format)
        self.assertIsNone(equal.difference(value, loaded))
        self.assertIs(type(loaded), type(value))
        return loaded


@unittest.skipUnless(has("xgboost", "lightgbm", "pandas"), "xgboost, lightgbm and pandas are not installed")
class Boosters(Frozen, unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        import numpy
        import pandas

        chance = numpy.random.default_rng(3)
        cls.X = pandas.DataFrame(chance.normal(size=(300, 4)), columns=list("abcd"))
        cls.X.loc[chance.random(300) < 0.1, "c"] = numpy.nan
        cls.words = cls.X.assign(word=pandas.Categorical(chance.choice(["x", "y"], 300)))
        cls.y = (cls.X["a"] + chance.normal(size=300) > 0).astype(int)

    def xgboost(self, rounds=20, X=None, **settings):
        import xgboost

        X = self.X if X is None else X
        table = xgboost.DMatrix(X, label=self.y, enable_categorical=True)
        return xgboost.train({"nthread": 1, **settings}, table, rounds, **({"evals": [(table, "t")], "verbose_eval": False}))

    def lightgbm(self, X=None, **options):
        import lightgbm

        settings = {"objective": "binary", "verbose": -1, "num_threads": 1}
        return lightgbm.train(settings, lightgbm.Dataset(self.X if X is None else X, self.y), 30, **options)

    def test_boosters_are_kept_in_their_own_formats(self):
        self.check(self.xgboost(objective="binary:logistic"), "xgboost")
        self.check(self.xgboost(booster="dart", rate_drop=0.2), "xgboost")
        self.check(self.xgboost(X=self.words), "xgboost")
        self.check(self.lightgbm(), "lightgbm")
        self.check(self.lightgbm(self.words), "lightgbm")

    def test_what_their_own_formats_would_lose_is_not_lost(self):
        import lightgbm

        stopped = self.xgboost()
        stopped.set_attr(best_iteration="3")
        self.assertEqual(self.check(stopped, "xgboost").best_iteration, 3)
        test = lightgbm.Dataset(self.X[:50], 1 - self.y[:50])
        stopped = self.lightgbm(valid_sets=[test], callbacks=[lightgbm.early_stopping(2, verbose=False)])
        loaded = self.check(stopped, "joblib")
        self.assertEqual((loaded.best_iteration, loaded.num_trees()), (stopped.best_iteration, stopped.num_trees()))

    def test_wrappers_are_kept_whole(self):
        import lightgbm
        import xgboost

        self.check(xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(self.X, self.y), "joblib")
        self.check(lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(self.X, self.y), "joblib")

    def test_another_model_is_another(self):
        self.assertIsNotNone(equal.difference(self.xgboost(), self.xgboost(eta=0.31)))
        self.assertIsNotNone(equal.difference(self.lightgbm(), self.lightgbm(self.words)))

    def test_plans_answer_as_they_do(self):
        import lightgbm
        import numpy
        import xgboost

        three = numpy.digitize(self.X["a"], [-0.5, 0.5])
        letters = numpy.array(["no", "yes"])[self.y]
        quiet = {"n_estimators": 10, "n_jobs": 1, "verbose": -1}
        cases = [
            (self.xgboost(objective="binary:logistic"), "inplace_predict"),
            (self.lightgbm(), "predict"),
            (xgboost.XGBRegressor(n_estimators=10, n_jobs=1).fit(self.X, self.y), "predict"),
            (xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(self.X, three), "predict_proba"),
            (lightgbm.LGBMRegressor(**quiet).fit(self.X, self.y), "predict"),
            (lightgbm.LGBMClassifier(**quiet).fit(self.X, letters), "predict"),
            (lightgbm.LGBMClassifier(**quiet).fit(self.X, letters), "predict_proba"),
            (lightgbm.LGBMClassifier(**quiet).fit(self.X, three), "predict_proba"),
        ]
        chance = numpy.random.default_rng(0)
        for estimator, method in cases:
            plan, original = accelerate.compiled(estimator, method), getattr(estimator, method)
            for kind in ("golden", "mixed", "moved", "missing"):
                for count in (1, 50):
                    rows = proof.vary(self.X, count, kind, chance)
                    want, got = original(rows), plan(rows)
                    self.assertEqual((want.dtype, want.shape), (got.dtype, got.shape))
                    numpy.testing.assert_array_equal(want, got, f"{type(estimator).__name__}.{method}, {kind}")

    def test_what_a_plan_does_not_expect_the_booster_answers(self):
        import numpy

        for booster, method in ((self.xgboost(), "inplace_predict"), (self.lightgbm(), "predict")):
            plan = accelerate.compiled(booster, method)
            for unusual in (self.X[list("abdc")], self.X.astype("float32"), self.X * numpy.inf, self.X.to_numpy(), self.words):
                with self.assertRaises(accelerate.Unusual):
                    plan(unusual[:3])
            with self.assertRaises(accelerate.Refused):
                accelerate.compiled(self.xgboost(X=self.words) if method == "inplace_predict" else self.lightgbm(self.words), method)
            original = getattr(booster, method)(self.X[:5])
            undo = accelerate.install({"model": booster}, {"model": {method: {"kept": True}}})
            numpy.testing.assert_array_equal(getattr(booster, method)(self.X[:5]), original)
            self.assertIn(method, vars(booster))
            undo()
            self.assertNotIn(method, vars(booster))


@unittest.skipUnless(has("onnx"), "onnx is not installed")
class Graphs(Frozen, unittest.TestCase):
    def graph(self, value):
        from onnx import TensorProto, helper

        made = helper.make_graph([], "empty", [], [], [helper.make_tensor("w", TensorProto.FLOAT, [2], [value, float("nan")])])
        model = helper.make_model(made)
        model.metadata_props.add(key="by", value="a test")
        return model

    def test_a_graph_is_kept_in_its_own_format(self):
        self.check(self.graph(1.0), "onnx")
        self.assertIsNotNone(equal.difference(self.graph(1.0), self.graph(2.0)))


@unittest.skipUnless(has("torch"), "torch is not installed")
class Tensors(Frozen, unittest.TestCase):
    def test_a_state_dict_is_kept_in_its_own_format(self):
        from torch import nn

        module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.check(module.state_dict(), "torch")
        self.check(module.half().state_dict(), "torch")

    def test_tensors_of_all_kinds(self):
        import torch

        self.check(
            {
                "nan": torch.tensor(float("nan")),
                "bool": torch.tensor([True]),
                "bfloat16": torch.ones(2, dtype=torch.bfloat16),
                "complex": torch.tensor([1 + 2j]),
                "empty": torch.zeros(0, 3),
                "transposed": torch.arange(12).reshape(3, 4).T,
                "sparse": torch.eye(3).to_sparse(),
            },
            "torch",
        )
        self.check({"quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, values.format_of(object()))

    def test_a_whole_module_is_kept_too(self):
        from torch import nn

        self.check(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), values.format_of(object()))

    def test_tensors_that_differ(self):
        import torch

        one = torch.tensor([0.0, 1.0])
        for other in (torch.tensor([0.0, 1.0000001]), torch.tensor([-0.0, 1.0]), one.double(), one[None], one.clone().requires_grad_()):
            self.assertIn("['w']", equal.difference({"w": one}, {"w": other}))


if __name__ == "__main__":
    unittest.main()
