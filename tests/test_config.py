"""Configurations: TOML to validated sections and back, and the exact text of every refusal."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.config import (
    JOBS,
    ClassifierJob,
    LanguageModelConfig,
    LanguageModelJob,
    TextConfig,
    TrainingConfig,
    commented_toml,
    dump_toml,
    load_toml,
    validate,
)
from gatewise.errors import ConfigError


def job(mapping: dict[str, Any], **options: dict[str, Any]) -> LanguageModelJob:
    return validate(LanguageModelJob, mapping, source="config.toml", options=options)


def refusal(mapping: dict[str, Any], **options: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        job(mapping, **options)
    return str(caught.value)


def test_names_that_others_rely_on():
    assert list(LanguageModelJob.model_fields) == ["data", "model", "training"]
    assert {"reset", "hidden_size"} <= set(LanguageModelConfig.model_fields)
    assert {"epochs", "checkpoint_every", "learning_rate", "seed"} <= set(TrainingConfig.model_fields)


def test_what_is_not_named_has_its_default():
    assert job({}) == LanguageModelJob()
    assert job({"training": {"epochs": 3}}).training == TrainingConfig(epochs=3)
    assert validate(TrainingConfig, {"epochs": 3}, source="fit") == TrainingConfig(epochs=3)


def test_a_whole_number_serves_where_a_number_is_expected():
    assert job({"training": {"learning_rate": 1}}).training.learning_rate == 1.0


def test_none_leaves_a_key_open():
    assert job({"training": {"clip_norm": "none"}}).training.clip_norm is None
    assert job({"training": {"clip_norm": 2.0}}, training={"clip_norm": "none"}).training.clip_norm is None
    assert job({"training": {"sample_prompt": "none"}}).training.sample_prompt == "none"


def test_options_win_over_the_file_and_the_file_over_the_defaults():
    file = {"model": {"hidden_size": 8, "num_layers": 2}, "training": {"epochs": 5}}
    found = job(file, model={"hidden_size": "16"}, training={"learning_rate": "0.5"}, data={"lower_case": True})
    assert (found.model.hidden_size, found.model.num_layers) == (16, 2)
    assert (found.training.epochs, found.training.learning_rate) == (5, 0.5)
    assert found.data.lower_case
    assert found.training.batch_size == TrainingConfig().batch_size


def test_keys_that_must_agree_are_compared_after_the_options_are_in():
    assert job({"model": {"tied": True, "hidden_size": 32}}, model={"embedding_size": "32"}).model.tied


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"training": {"epochs": "ten"}}, 'training.epochs: expected a whole number >= 1, got "ten"'),
        ({"training": {"epochs": 0}}, "training.epochs: expected a whole number >= 1, got 0"),
        ({"training": {"epochs": 1.5}}, "training.epochs: expected a whole number >= 1, got 1.5"),
        ({"training": {"epochs": True}}, "training.epochs: expected a whole number >= 1, got true"),
        ({"training": {"epochs": "none"}}, 'training.epochs: expected a whole number >= 1, got "none"'),
        ({"training": {"patience": 0}}, "training.patience: expected a whole number >= 1 or none, got 0"),
        ({"training": {"learning_rate": 0}}, "training.learning_rate: expected a number > 0, got 0"),
        ({"training": {"learning_rate": float("inf")}}, "training.learning_rate: expected a number > 0, got inf"),
        ({"training": {"momentum": 1.0}}, "training.momentum: expected a number >= 0 and < 1, got 1.0"),
        ({"data": {"lower_case": "yes"}}, 'data.lower_case: expected true or false, got "yes"'),
        ({"data": {"lower_case": 1}}, "data.lower_case: expected true or false, got 1"),
        ({"training": {"sample_prompt": 3}}, "training.sample_prompt: expected a text, got 3"),
        (
            {"model": {"reset": "befor"}},
            'model.reset: expected one of after, before, got "befor"; did you mean "before"?',
        ),
        ({"model": {"reset": "cudnn"}}, 'model.reset: expected one of after, before, got "cudnn"'),
        ({"model": 3}, "model: expected a table of keys, got 3"),
        ({"model": {"hidden_size": list(range(99))}}, None),
    ],
)
def test_wrong_value(mapping, message):
    expected = message or f"model.hidden_size: expected a whole number >= 1, got {str(list(range(99)))[:77]}..."
    assert refusal(mapping) == f"config.toml: {expected}"


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"training": {"learning_rat": 1}},
            'unknown key "training.learning_rat"; did you mean "training.learning_rate"?',
        ),
        (
            {"training": {"learning-rate": 1}},
            'unknown key "training.learning-rate"; did you mean "training.learning_rate"?',
        ),
        ({"training": {"hidden_size": 1}}, 'unknown key "training.hidden_size"; did you mean "model.hidden_size"?'),
        ({"data": {"hiden_size": 1}}, 'unknown key "data.hiden_size"; did you mean "model.hidden_size"?'),
        ({"hidden_size": 1}, 'unknown key "hidden_size"; did you mean "model.hidden_size"?'),
        ({"traning": {"epochs": 1}}, 'unknown key "traning"; did you mean "training"?'),
        ({"xyz": 1}, 'unknown key "xyz"; known here: data, model, training'),
        (
            {"data": {"xyz": 1}},
            'unknown key "data.xyz"; known here: tokenizer, vocabulary_size, lower_case, letters_only, max_characters, '
            "validation_fraction, windows",
        ),
    ],
)
def test_unknown_key(mapping, message):
    assert refusal(mapping) == f"config.toml: {message}"


def test_unknown_key_of_a_single_section():
    with pytest.raises(ConfigError) as caught:
        validate(LanguageModelConfig, {"hiden_size": 8}, source="LanguageModel")
    assert str(caught.value) == 'LanguageModel: unknown key "hiden_size"; did you mean "hidden_size"?'


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"model": {"tied": True}}, "model: tied needs embedding_size = hidden_size; got 64 and 256"),
        (
            {"model": {"tied": True, "input": "one-hot"}},
            'model: tied needs input = "embedding": one-hot tokens have no embedding to share',
        ),
        (
            {"data": {"tokenizer": "bpe", "vocabulary_size": 100}},
            "data: a bpe tokenizer needs vocabulary_size >= 256, one for each byte; got 100",
        ),
        ({"training": {"momentum": 0.9}}, 'training: momentum needs optimizer = "sgd"; got "adamw"'),
        (
            {"training": {"patience": 3}, "data": {"validation_fraction": 0}},
            "training.patience needs data.validation_fraction > 0: without validation it cannot stop",
        ),
    ],
)
def test_keys_that_do_not_agree(mapping, message):
    assert refusal(mapping) == f"config.toml: {message}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": "ten"}, '--training.epochs: expected a whole number >= 1, got "ten"'),
        ({"epochs": "0"}, "--training.epochs: expected a whole number >= 1, got 0"),
        ({"learning_rate": "-1"}, "--training.learning-rate: expected a number > 0, got -1.0"),
        ({"learning_rate": "nan"}, "--training.learning-rate: expected a number > 0, got nan"),
        ({"device": "gpu"}, '--training.device: expected one of auto, cpu, cuda, mps, got "gpu"; did you mean "cpu"?'),
    ],
)
def test_wrong_option_names_the_option_and_not_the_file(options, message):
    assert refusal({"training": {"epochs": 3}}, training=options) == message


def test_option_that_is_no_text():
    assert refusal({}, training={"sample_prompt": "\udcff"}).startswith("--training.sample-prompt: 'utf-8' codec can't")


def test_an_error_in_the_file_beside_a_right_option_names_the_file():
    assert refusal({"training": {"epochs": 0}}, training={"seed": "1"}).startswith("config.toml: training.epochs: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"[training]\nepochs = 3\nseed 4\n",
            "not valid TOML at line 3, column 6: expected '=' after a key in a key/value pair",
        ),
        (b"[training", "not valid TOML at line 1, column 10: expected ']' at the end of a table declaration"),
        (b"a = 1\nb = '''\n\n", "not valid TOML at line 2, column 8: expected \"'''\""),
        (b"[training]\nepochs = none\n", "not valid TOML at line 2, column 10: invalid value"),
        (b"a = 1\na = 2\n", "not valid TOML at line 2, column 6: cannot overwrite a value"),
        (b"# caf\xe9\n", "not valid UTF-8 at byte 5; save the file as UTF-8"),
    ],
)
def test_broken_toml(tmp_path: Path, content, message):
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_toml(path)
    assert str(caught.value) == f"{path}: {message}"


def test_toml_that_is_not_there(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        load_toml(tmp_path / "missing.toml")
    assert str(caught.value) == f"{tmp_path / 'missing.toml'}: no such configuration file"
    with pytest.raises(ConfigError) as caught:
        load_toml(tmp_path)
    assert str(caught.value) == f"{tmp_path}: is a folder; expected a TOML file"


def test_toml_with_a_byte_order_mark(tmp_path: Path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbf[training]\r\nepochs = 3\r\n")
    assert load_toml(path) == {"training": {"epochs": 3}}


def test_commented_toml_has_every_key_and_loads_back_to_the_defaults():
    text = commented_toml(LanguageModelJob)
    assert job(tomllib.loads(text)) == LanguageModelJob()
    for section in (TextConfig, LanguageModelConfig, TrainingConfig):
        for key, field in section.model_fields.items():
            assert f"\n# {key} = " in text if field.default is None else f"\n{key} = " in text
    uncommented = text.replace("\n# max_characters", "\nmax_characters")
    assert job(tomllib.loads(uncommented)) == LanguageModelJob()
    assert "# Passes over the training text.\n#   a whole number >= 1\nepochs = 10\n" in text


@given(
    prompt=st.text(st.characters(exclude_categories=["Cs"])),
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    clip=st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    seed=st.integers(0, 2**63 - 1),
    lower=st.booleans(),
)
def test_dump_loads_back(prompt, rate, clip, seed, lower):
    training = TrainingConfig(sample_prompt=prompt, learning_rate=rate, clip_norm=clip, seed=seed)
    given_job = LanguageModelJob(data=TextConfig(lower_case=lower), training=training)
    assert job(tomllib.loads(dump_toml(given_job))) == given_job


def test_dump_leaves_room_for_a_line_before_it():
    assert tomllib.loads("format = 1\n\n" + dump_toml(LanguageModelJob()))["format"] == 1


def test_example_is_the_recipe_of_the_tutorials():
    path = Path(__file__).parents[1] / "examples" / "time_machine.toml"
    recipe = validate(LanguageModelJob, load_toml(path), source=str(path))
    assert recipe == LanguageModelJob(
        data=TextConfig(lower_case=True, letters_only=True, max_characters=10_000, validation_fraction=0.0),
        model=LanguageModelConfig(input="one-hot", hidden_size=256),
        training=TrainingConfig(
            epochs=500,
            batch_size=32,
            sequence_length=35,
            optimizer="sgd",
            learning_rate=1.0,
            schedule="constant",
            clip_norm=1.0,
            sample_length=50,
            sample_prompt="time traveller",
        ),
    )


@pytest.mark.parametrize("task", JOBS)
def test_every_task_documents_every_key_and_loads_back_to_its_defaults(task):
    kind = JOBS[task]
    assert kind.task == task
    assert list(kind.model_fields) == ["data", "model", "training"]
    text = commented_toml(kind)
    assert validate(kind, tomllib.loads(text), source="printed") == validate(kind, {}, source="defaults")
    for table in kind.model_fields.values():
        for key, field in table.annotation.model_fields.items():  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
            assert field.description, f"{key} has no meaning"
            assert f"{key} = " in text


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"model": {"hidden_size": 0}}, "model.hidden_size: expected a whole number >= 1 or auto, got 0"),
        (
            {"model": {"hidden_size": "aut"}},
            'model.hidden_size: expected a whole number >= 1 or auto, got "aut"; did you mean "auto"?',
        ),
        ({"model": {"dropout": 1.0}}, "model.dropout: expected a number >= 0 and < 1 or auto, got 1.0"),
        (
            {"training": {"patience": 0}},
            "training.patience: expected a whole number >= 1 or auto or none, got 0",
        ),
        ({"data": {"labels": "two"}}, 'data.labels: expected one of one, several or auto, got "two"'),
        ({"data": {"tokenizer": "bpe", "vocabulary_size": 9}}, "data: a bpe tokenizer needs vocabulary_size >= 256"),
    ],
)
def test_a_wrong_value_where_auto_is_one(mapping, message):
    with pytest.raises(ConfigError) as error:
        validate(ClassifierJob, mapping, source="config.toml")
    assert str(error.value).startswith(f"config.toml: {message}")


def test_numbers_auto_and_none_from_the_command_line():
    options = {"model": {"hidden_size": "12", "dropout": "0.25"}, "training": {"patience": "none", "epochs": "auto"}}
    found = validate(ClassifierJob, {}, source="command line", options=options)
    assert (found.model.hidden_size, found.model.dropout) == (12, 0.25)
    assert (found.training.patience, found.training.epochs) == (None, "auto")
    assert validate(ClassifierJob, tomllib.loads(dump_toml(found)), source="dumped") == found
