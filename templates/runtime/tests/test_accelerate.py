"""Fast paths against the estimators themselves: what agrees, what is left to them, what is not kept. Needs scikit-learn and pandas."""

import pathlib
import sys
import unittest
import warnings

import numpy
import pandas
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, PolynomialFeatures, RobustScaler, StandardScaler

sys.path.append(str(pathlib.Path(__file__).parents[2] / "worker"))
from mlrails_runtime import accelerate  # noqa: E402
from mlrails_worker import accelerate as proof  # noqa: E402


def customers(count=300):
    chance = numpy.random.default_rng(3)
    frame = pandas.DataFrame(
        {
            "age": chance.integers(18, 90, count),
            "spend": chance.gamma(2.0, 20.0, count),
            "score": chance.normal(size=count),
            "plan": chance.choice(["basic", "pro", "team"], count).astype(object),
            "region": chance.choice(["north", "south", None], count).astype(object),
        }
    )
    frame.loc[chance.random(count) < 0.1, "score"] = numpy.nan
    return frame, (frame["age"] / 60 + (frame["plan"] == "pro") > 1.2).astype(int)


def prepared(encoder=None, scaler=None):
    numbers = make_pipeline(SimpleImputer(strategy="median"), scaler or StandardScaler())
    encoder = encoder or OneHotEncoder(handle_unknown="ignore")
    return ColumnTransformer([("numbers", numbers, ["age", "spend", "score"]), ("words", encoder, ["plan", "region"])])


X, y = customers()


class Accelerate(unittest.TestCase):
    def said(self, estimator, method, X=X, y=y):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.fit(X, y)
        return proof.compare(getattr(estimator, method), accelerate.compiled(estimator, method), X[:100])

    def test_what_is_known_agrees_on_ten_thousand_rows(self):
        unknown = {"handle_unknown": "use_encoded_value", "unknown_value": -1, "encoded_missing_value": -2}
        for estimator, method in [
            (make_pipeline(prepared(), LogisticRegression()), "predict_proba"),
            (make_pipeline(prepared(OneHotEncoder(drop="first", handle_unknown="ignore"), RobustScaler()), Ridge()), "predict"),
            (make_pipeline(prepared(OrdinalEncoder(**unknown), MinMaxScaler(clip=True)), LogisticRegression()), "predict"),
            (make_pipeline(prepared(), RandomForestClassifier(20, random_state=0)), "predict_proba"),
            (make_pipeline(prepared(), GradientBoostingClassifier(n_estimators=20)), "decision_function"),
        ]:
            with self.subTest(estimator=estimator, method=method):
                said = self.said(estimator, method)
                self.assertEqual((said["kept"], said["rows"]), (True, 10_000), said)
                self.assertLess(said["worst"], 1e-9)

    def test_a_matrix_with_gaps_agrees_for_many_and_for_few(self):
        numbers = X[["age", "spend", "score"]].to_numpy()
        model = HistGradientBoostingRegressor(max_iter=30).fit(numbers, y)
        plan = accelerate.compiled(model, "predict")
        for rows in (numbers[:1], numbers[:50], numpy.tile(numbers, (5, 1))):
            numpy.testing.assert_allclose(plan(rows), model.predict(rows), rtol=0, atol=1e-12)

    def test_a_plan_that_differs_is_not_kept(self):
        model = make_pipeline(prepared(), LogisticRegression()).fit(X, y)
        plan = accelerate.compiled(model, "predict_proba")
        model[-1].coef_ = model[-1].coef_ + 1e-6
        said = proof.compare(model.predict_proba, plan, X[:100])
        self.assertFalse(said["kept"])
        self.assertIn("answers differ by", said["why"])

    def test_a_plan_that_answers_an_error_is_not_kept(self):
        model = make_pipeline(prepared(OneHotEncoder(handle_unknown="error")), LogisticRegression()).fit(X, y)
        lenient = make_pipeline(prepared(), LogisticRegression()).fit(X, y)
        said = proof.compare(model.predict_proba, accelerate.compiled(lenient, "predict_proba"), X[:100])
        self.assertFalse(said["kept"])
        self.assertIn("ValueError", said["why"])

    def test_what_is_not_known_is_refused_by_name(self):
        model = make_pipeline(SimpleImputer(), PolynomialFeatures(), Ridge()).fit(X[["age", "spend"]], y)
        with self.assertRaisesRegex(accelerate.Refused, "PolynomialFeatures"):
            accelerate.compiled(model, "predict")

    def test_what_is_unusual_is_the_estimator_s(self):
        model = make_pipeline(prepared(OneHotEncoder(handle_unknown="error")), LogisticRegression()).fit(X, y)
        expected = model.predict_proba(X[:3])
        seen = []
        plan = accelerate.compiled(model, "predict_proba")
        undo = accelerate.replace(model, "predict_proba", lambda rows: seen.append(plan(rows)) or seen[-1])
        numpy.testing.assert_allclose(model.predict_proba(X[:3]), expected, rtol=0, atol=1e-12)
        self.assertEqual(len(seen), 1)
        with self.assertRaisesRegex(ValueError, "unknown categories"):
            model.predict_proba(X[:3].assign(plan="never seen"))
        with self.assertRaisesRegex(ValueError, "(?i)infinity"):
            model.predict_proba(X[:3].assign(spend=numpy.inf))
        with self.assertRaisesRegex(ValueError, "columns are missing"):
            model.predict_proba(X[:3].drop(columns="age"))
        # Other order, and one column more: scikit-learn goes by name.
        other = X[:3][X.columns[::-1]].assign(more=1)
        numpy.testing.assert_allclose(model.predict_proba(other), expected, rtol=0, atol=1e-12)
        self.assertEqual(len(seen), 1)
        undo()
        self.assertNotIn("predict_proba", model.__dict__)

    def test_only_what_was_proven_is_installed(self):
        model = make_pipeline(prepared(), LogisticRegression()).fit(X, y)
        values = {"model": {"inner": model}, "other": 3}
        path = "model['inner']"
        self.assertIsNone(accelerate.install(values, {path: {"predict": {"kept": False}}}))
        undo = accelerate.install(values, {path: {"predict": {"kept": True}, "predict_proba": {"kept": False}}})
        self.assertEqual([name for name in accelerate.METHODS if name in model.__dict__], ["predict"])
        undo()
        self.assertNotIn("predict", model.__dict__)

    def test_golden_rows_decide_at_last(self):
        model = make_pipeline(prepared(), LogisticRegression()).fit(X, y)
        for still, kept in ((True, True), (False, False)):

            def replay(still=still):
                model.predict_proba(X[:20])
                return still

            said = proof.prove({"model": model}, replay)["model"]["predict_proba"]
            self.assertEqual(said["kept"], kept, said)
            self.assertNotIn("predict_proba", model.__dict__)


if __name__ == "__main__":
    unittest.main()
