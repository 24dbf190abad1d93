"""The models as estimators of scikit-learn: its own checks, clone, pipelines, searches, parameters, classes."""

import pickle
import warnings
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError as ScikitNotFittedError
from sklearn.exceptions import SkipTestWarning
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted

import gatewise as gw
from gatewise.config import ClassifierTraining
from gatewise.errors import ConfigError, DataError, InputError, NotFittedError

QUICK = {"max_steps": 30, "learning_rate": 0.03, "threads": 1}
MODELS = [gw.Classifier, gw.Tagger, gw.Translator, gw.Forecaster, gw.LanguageModel]


def classifier(**settings) -> gw.Classifier:
    return gw.Classifier(**{"hidden_size": 8, "training": QUICK, **settings})


def blobs(examples: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) numbers of unlike scale around one of two centres, and which one it is: 0 or 1."""
    draw = np.random.default_rng(0)
    labels = np.arange(examples) % 2
    return (draw.normal(labels[:, None], 0.2, (examples, 3)) + 5) * [1, 1000, 0.01], labels


def sequences(examples: int = 60) -> tuple[np.ndarray, list[str]]:
    """(N, 6, 2) numbers that rise or fall, and which it is."""
    draw = np.random.default_rng(0)
    rises = np.arange(examples) % 2
    steps = np.linspace(-1, 1, 6)[None, :, None] * np.where(rises, 1, -1)[:, None, None]
    return steps + draw.normal(0, 0.2, (examples, 6, 2)), ["up" if rise else "down" for rise in rises]


TEXTS = ["warm bread and soup", "a loud song", "soup again", "the band plays a song"] * 10
TOPICS = ["food", "music"] * 20


def test_scikit_learns_own_checks():
    """All of them, on matrices; those that need pandas, or an environment variable, where these are."""
    quick = gw.Classifier(8, data={"validation_fraction": 0.0}, training=QUICK | {"max_steps": 20})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        warnings.filterwarnings("ignore", "Estimator Classifier does not inherit from")
        found = check_estimator(quick)
    assert {check["status"] for check in found} <= {"passed", "skipped"}
    assert len(found) > 40
    skipped = {check["check_name"] for check in found if check["status"] == "skipped"}
    assert skipped <= {"check_array_api_input", "check_classifier_data_not_an_array"}


@pytest.mark.parametrize("model", MODELS)
def test_every_key_of_the_configuration_is_a_parameter(model):
    job = model.job_type()
    shallow, deep = model().get_params(deep=False), model().get_params()
    assert set(shallow) == {*type(job.model).model_fields, "data", "training", "random_state"}
    keys = {f"{table}__{key}": value for table in ("data", "training") for key, value in getattr(job, table)}
    assert deep == {**shallow, **keys}
    assert dict(job.model).items() <= shallow.items()


@pytest.mark.parametrize("model", MODELS)
def test_clone_and_repr(model):
    made = model(hidden_size=16, training={"epochs": 3}, random_state=1)
    made.set_params(training__learning_rate=0.5)
    copied: Any = clone(made)
    assert copied is not made
    assert copied.get_params() == made.get_params()
    name = model.__name__
    assert repr(copied) == (f"{name}(hidden_size=16, training={{'epochs': 3, 'learning_rate': 0.5}}, random_state=1)")
    assert repr(model()) == f"{name}()"


def test_set_params():
    section = ClassifierTraining(epochs=7)
    model = gw.Classifier(training=section)
    assert model.set_params(hidden_size=3, training__seed=5, data__lower_case=False) is model
    params = model.get_params()
    assert (params["hidden_size"], params["training__seed"], params["training__epochs"]) == (3, 5, 7)
    assert params["data"] == {"lower_case": False}
    assert section.seed == 0
    model.set_params(training__epochs=4, training={"seed": 1})  # a table before its keys, however they are given
    assert model.get_params()["training"] == {"seed": 1, "epochs": 4}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hiden_size", 'Classifier: unknown parameter "hiden_size"; did you mean "hidden_size"?'),
        ("epochs", 'Classifier: unknown parameter "epochs"; did you mean "training__epochs"?'),
        ("training__epoch", 'Classifier: unknown parameter "training__epoch"; did you mean "training__epochs"?'),
        ("model__hidden_size", 'Classifier: unknown parameter "model__hidden_size"; did you mean "hidden_size"?'),
        ("xyz", 'Classifier: unknown parameter "xyz"; get_params() names those there are'),
    ],
)
def test_unknown_parameters(name, message):
    model = gw.Classifier()
    with pytest.raises(ConfigError) as error:
        model.set_params(**{"hidden_size": 1, name: 1})
    assert str(error.value) == message
    assert model.hidden_size == "auto"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training__epochs": -3}, "Classifier: training.epochs: expected a whole number >= 1 or auto, got -3"),
        ({"training": {"epoch": 3}}, 'Classifier: unknown key "training.epoch"; did you mean "training.epochs"?'),
        ({"training": 3}, "Classifier: training: expected a ClassifierTraining, a dict of its keys, or None, got 3"),
        (
            {"random_state": -1},
            f"Classifier: training.seed: expected a whole number >= 0 and < {2**63}, got -1",
        ),
    ],
)
def test_wrong_values_are_said_by_fit(settings, message):
    model = gw.Classifier().set_params(**settings)
    with pytest.raises(ConfigError) as error:
        model.fit(*blobs())
    assert str(error.value) == message


def test_the_numbers_of_a_search_are_numpys():
    x, y = blobs()
    model = classifier().set_params(
        hidden_size=np.int64(4), bidirectional=np.bool_(False), cell=np.str_("rnn"), training__max_steps=np.int32(2)
    )
    model.fit(x, y)
    assert (model.config.model.hidden_size, model.config.model.cell, model.result.steps) == (4, "rnn", 2)


def test_random_state():
    x, y = blobs()
    first, same, other = (classifier(random_state=seed).fit(x, y).predict_proba(x) for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert np.array_equal(classifier(training=QUICK | {"seed": 1}).fit(x, y).predict_proba(x), first)
    for make in (np.random.RandomState, np.random.default_rng):
        drawn, again = (classifier(random_state=make(3)).fit(x, y).config.training.seed for _ in range(2))
        assert drawn == again > 0


@pytest.mark.parametrize("model", MODELS)
def test_before_it_is_fitted(model):
    made = model()
    with pytest.raises(ScikitNotFittedError):
        check_is_fitted(made)
    for error in (NotFittedError, ScikitNotFittedError, InputError, AttributeError):
        with pytest.raises(error, match=f"{model.__name__}: not trained yet; call fit"):
            _ = made.network
    assert not hasattr(made, "config")


def test_tags():
    assert is_classifier(gw.Classifier())
    tags = get_tags(gw.Classifier())
    assert (tags.input_tags.two_d_array, tags.input_tags.three_d_array, tags.input_tags.string) == (True, True, True)
    assert [get_tags(model()).target_tags.required for model in MODELS] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("classes", "dtype"),
    [
        ([3, 1], np.dtype("<i8")),
        ([-1.0, 2.0], np.dtype("<f8")),
        ([True, False], np.dtype(bool)),
        (["b", "a"], np.dtype("<U1")),
        (["10", "9"], np.dtype("<U2")),
        (np.array(["b", "a"], dtype=object), np.dtype(object)),
        (np.array([7, 5], dtype=np.uint8), np.dtype(np.uint8)),
    ],
)
def test_labels_come_back_as_they_were(tmp_path, classes, dtype):
    x, y = blobs()
    labels = np.asarray(classes)[y]
    model = classifier().fit(x, labels, tmp_path / "run")
    assert model.classes_.dtype == dtype
    assert model.classes_.tolist() == np.unique(labels).tolist()
    assert np.mean(model.predict(x) == labels) == model.score(x, labels) > 0.9
    assert model.predict(x).dtype == dtype
    again = gw.load(tmp_path / "run")
    assert again.classes_.dtype == dtype
    assert np.array_equal(again.predict(x), model.predict(x))
    probabilities = model.predict_proba(x)
    assert probabilities.shape == (len(x), 2)
    assert np.array_equal(model.classes_[probabilities.argmax(1)], model.predict(x))


def test_a_matrix_is_read_as_features_unless_it_is_said_to_be_steps():
    x, y = blobs()
    model = classifier().fit(x, y)
    assert (model.n_features_in_, model.config.data.matrix) == (3, "features")
    assert not hasattr(model, "feature_names_in_")
    assert np.array_equal(model.predict_proba(x), model.predict_proba(x[:, None, :]))
    assert np.array_equal(model.predict(x.tolist()), model.predict(x))
    series = classifier().set_params(data__matrix="steps").fit(x, y)
    assert (series.n_features_in_, series.config.data.matrix) == (1, "steps")
    assert np.array_equal(series.predict_proba(x), series.predict_proba(x[:, :, None]))
    rows = classifier().fit(list(x), y)  # arrays (T_i,) are series
    assert np.array_equal(rows.predict_proba(x), series.predict_proba(x))
    assert np.array_equal(rows.predict(x.tolist()), rows.predict(x))


def test_data_frames():
    x, y = blobs()
    frame = pl.DataFrame(x, schema=["a", "b", "c"])
    model = classifier().fit(frame, pl.Series(y))
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    assert np.array_equal(model.predict(x), model.predict(frame))
    with pytest.raises(DataError) as error:
        model.predict(frame.select("a", "c", "b"))
    assert str(error.value) == "X: its columns are a, c, b; the model was trained on a, b, c"
    texts = classifier().fit(pl.Series(TEXTS), pl.Series(TOPICS))
    assert texts.predict(TEXTS[:2]).tolist() == ["food", "music"]
    with pytest.raises(AttributeError, match="it was trained on texts, which have no features"):
        _ = texts.n_features_in_


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros(4), [0, 1] * 2, "X: expected a matrix (N, F) or sequences (N, T, F), got one dimension. Reshape your "
         "data: X.reshape(-1, 1) if each number is an example, X.reshape(1, -1) if all are one"),
        (np.zeros((2, 0)), [0, 1], "X: 0 feature(s) (shape=(2, 0)) while a minimum of 1 is required."),
        (np.array([[1.0], [np.inf]]), [0, 1], "X[1, 0] is inf; expected a number, no NaN and no infinity"),
        (np.zeros((2, 1)), [0.5, 1],
         "y: expected labels, got continuous numbers such as 0.5; a classifier is for classes"),
        (np.zeros((2, 1)) + 1j, [0, 1], "X: Complex data not supported; give real numbers"),
        (np.zeros((3, 1)), [0, 1], "y has 2 targets for 3 sequences; give one for each"),
        ({"a": 1}, [0], "X: expected texts, lists of words, or arrays of steps, got dict"),
        (3, [0], "X: expected texts, lists of words, or arrays of steps, got int"),
    ],
)  # fmt: skip
def test_what_is_no_matrix(x, y, message):
    with pytest.raises(DataError) as error:
        classifier().fit(x, y)
    assert str(error.value) == message


def test_pipelines_and_pickles():
    x, y = blobs()
    pipeline = make_pipeline(StandardScaler(), classifier())
    pipeline.set_params(classifier__training__max_steps=40).fit(x, y)
    assert pipeline.score(x, y) > 0.95
    again = pickle.loads(pickle.dumps(pipeline))
    assert np.array_equal(again.predict_proba(x), pipeline.predict_proba(x))


@pytest.mark.parametrize("kind", ["texts", "array", "list"])
def test_searching(kind):
    """On texts, on an array (N, T, F), and on a list of arrays (T_i, F)."""
    x, y = (TEXTS, TOPICS) if kind == "texts" else sequences()
    if kind == "list":
        x = [steps[: 4 + row % 3] for row, steps in enumerate(x)]
    search = GridSearchCV(classifier(), {"hidden_size": [1, 8], "training__max_steps": [1, 40]}, cv=2)
    search.fit(x, y)
    assert search.best_params_["training__max_steps"] == 40
    assert search.best_score_ > 0.9
    assert list(search.best_estimator_.classes_) == sorted(set(y))
    assert search.predict(x[:2]).tolist() == list(y[:2])


def test_other_scores_read_the_classes():
    x, y = blobs()
    for scoring in ("roc_auc", "neg_log_loss", "accuracy"):
        assert np.mean(cross_val_score(classifier(), x, np.array(["10", "9"])[y], cv=2, scoring=scoring)) > -0.7


def test_the_other_models_can_be_searched():
    sentences = [text.split() for text in TEXTS]
    tags = [[word[0] for word in words] for words in sentences]
    tagger = gw.Tagger(8, embedding_size=8, spelling_size=0, training=QUICK)
    search = GridSearchCV(tagger, {"training__max_steps": [1, 40]}, cv=2).fit(sentences, tags)
    assert search.best_params_ == {"training__max_steps": 40}
    assert search.best_score_ > 0.6
    series = np.sin(np.arange(160) * np.pi / 4) + np.random.default_rng(0).normal(0, 0.1, 160)
    forecaster = gw.Forecaster(2, context=8, season=None, hidden_size=8, training=QUICK)
    search = GridSearchCV(
        make_pipeline(forecaster), {"forecaster__training__max_steps": [1, 40]}, cv=TimeSeriesSplit(2)
    )
    search.fit(series)
    assert search.best_params_ == {"forecaster__training__max_steps": 40}
    assert search.score(series) == search.best_estimator_[-1].evaluate(series).metrics["skill"].value


def test_scores_are_the_main_figures_of_an_evaluation(tmp_path):
    translations = [text.upper() for text in TEXTS]
    translator = gw.Translator(8, embedding_size=8, data={"tokenizer": "word"}, training=QUICK).fit(TEXTS, translations)
    assert translator.score(TEXTS, translations) == translator.evaluate(TEXTS, translations).metrics["bleu"].value
    path = tmp_path / "text.txt"
    path.write_text("the gate forgets what it reads " * 40)
    model = gw.LanguageModel(8, training=QUICK | {"sample_length": 0, "batch_size": 4}).fit(path)
    assert model.score(path) == -model.evaluate(path).bits_per_char < 0
