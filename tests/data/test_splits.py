"""Splits: every rule, the report, and every way in which a split can be wrong."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from gatewise.data.examples import Examples
from gatewise.data.splits import Rule, Split, make_split
from gatewise.errors import DataError

Make = Callable[..., Examples]
MakeArrays = Callable[..., list[np.ndarray]]


def parts_of(split: Split) -> list[Examples]:
    return [part for part in (split.training, split.validation, split.test) if part is not None]


def error_of(examples: Examples, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        make_split(examples, **settings)
    return str(caught.value)


# Rules


@settings(deadline=None)
@given(
    labels=st.lists(st.sampled_from("abc"), min_size=20, max_size=60),
    validation=st.sampled_from([0.1, 0.25, 3]),
    test=st.sampled_from([None, 0.2, 4]),
    rule=st.sampled_from(["random", "stratified", "group", "time"]),
    seed=st.integers(0, 5),
)
def test_every_example_is_in_one_part(
    labels: list[str], validation: float, test: float | None, rule: Rule, seed: int, numbered: Make
):
    labels = ["a", "b", "c", *labels] * 2
    examples = numbered(labels, groups=[str(i) for i in range(len(labels))], times=np.arange(len(labels))[::-1].copy())
    try:
        split = make_split(examples, validation=validation, test=test, rule=rule, seed=seed)
    except DataError as error:
        if "in training" not in str(error):
            raise
        reject()  # by chance all of a label went elsewhere
    assert sorted(place for part in parts_of(split) for place in part.places) == sorted(examples.places)
    for part, amount in ((split.validation, validation), (split.test, test)):
        if amount is None:
            assert part is None
        else:
            assert part is not None
            assert len(part) == (round(amount * len(labels)) if amount < 1 else amount)
    again = make_split(examples, validation=validation, test=test, rule=rule, seed=seed)
    assert [part.places for part in parts_of(again)] == [part.places for part in parts_of(split)]


def test_seeds_differ(numbered: Make):
    examples = numbered(["a", "b"] * 20)
    for rule in ("random", "stratified"):
        drawn = [make_split(examples, rule=rule, seed=seed).validation for seed in (0, 1)]
        assert drawn[0] is not None
        assert drawn[1] is not None
        assert drawn[0].places != drawn[1].places


def test_stratified_has_equal_shares(numbered: Make):
    labels = ["a"] * 600 + ["b"] * 300 + ["c"] * 99 + ["d"]
    random = np.random.default_rng(0)
    split = make_split(numbered(random.permutation(labels).tolist()), validation=0.1, test=0.2)
    assert split.validation is not None
    assert split.test is not None
    assert len(split.validation) == 100
    assert len(split.test) == 200
    for label, count in (("a", 600), ("b", 300), ("c", 99)):
        assert abs(Counter(split.validation.labels)[label] - count / 10) <= 1
        assert abs(Counter(split.test.labels)[label] - count / 5) <= 1
    assert Counter(split.training.labels)["d"] == 1
    assert split.report.rules == (
        "validation: 100 of the 1000 examples, drawn at random with equal shares of each label",
        "test: 200 of the 1000 examples, drawn at random with equal shares of each label",
    )


def test_stratified_with_several_labels_keeps_each_in_training(made: Make):
    random = np.random.default_rng(0)
    label_sets = [tuple(sorted(set(random.choice(list("abcdefghij"), 3).tolist()))) for _ in range(60)]
    split = make_split(
        made([str(i) for i in range(60)], label_sets, target_kind="labels"), validation=0.4, rule="stratified"
    )
    assert {label for labels in split.training.label_sets for label in labels} == set("abcdefghij")


def test_groups_stay_whole(numbered: Make):
    groups = [f"g{i % 13}" for i in range(100)]
    split = make_split(numbered(["a", "b"] * 50, groups=groups), validation=20, test=20)
    kept = [set(part.groups or ()) for part in parts_of(split)]
    assert len(kept) == 3
    assert sum(map(len, kept)) == 13
    assert split.report.counts == {"training": 69, "validation": 15, "test": 16}
    assert split.report.rules[0] == "validation: 15 of the 100 examples, whole groups drawn at random"


def test_groups_larger_than_the_part(numbered: Make):
    split = make_split(numbered(["a", "b"] * 4, groups=["g"] * 3 + ["h"] * 5), validation=1)
    assert split.validation is not None
    assert split.validation.groups == ["g"] * 3


def test_translations_that_share_a_sentence_stay_together(made: Make):
    pairs = [("Hi.", "Salut."), ("hi. ", "Bonjour."), ("Hello.", "BONJOUR."), ("Good day.", "Bonjour.")]
    pairs += [(f"word {i}", f"mot {i}") for i in range(16)]
    examples = made([a for a, _ in pairs], [b for _, b in pairs], target_kind="text")
    for seed in range(5):
        split = make_split(examples, validation=5, seed=seed)
        assert split.validation is not None
        assert len(split.validation) == 5
        assert len({place in split.validation.places for place in examples.places[:4]}) == 1
        assert split.report.leaks == {"validation in training": 0, "validation translations in training": 0}


def test_leaks_of_translations(made: Make):
    training = made(["Hi.", "Go."], ["Salut.", "Va !"], target_kind="text", source="train.tsv")
    test = made(["go.", "Hello."], ["Pars !", "Salut."], target_kind="text", source="test.tsv")
    report = make_split(training, validation=None, test=test).report
    assert report.leaks == {"test in training": 1, "test translations in training": 1}
    assert report.warnings == (
        "1 of 2 test examples are in training, too (test.tsv: row 1 is train.tsv: row 2): "
        "a figure on them shows memory",
        "1 of 2 test translations are in training, too (test.tsv: row 2 is train.tsv: row 1): "
        "a figure on them shows memory",
    )


def test_time_takes_the_latest_and_keeps_one_time_together(numbered: Make):
    times = np.array([6, 1, 3, 3, 4, 2, 3, 5])
    split = make_split(numbered(["a", "b"] * 4, times=times), validation=2, test=2)
    in_parts = [sorted(part.times.tolist()) for part in parts_of(split) if part.times is not None]
    assert in_parts == [[1, 2, 3, 3, 3], [4], [5, 6]]


def test_parts_that_are_given(numbered: Make):
    training, test = numbered(["a", "b"] * 10), numbered(["a", "b"], source="test.csv")
    split = make_split(training, validation=None, test=test)
    assert split.training is training
    assert split.test is test
    assert split.validation is None
    assert split.report.rules == ()
    assert split.report.counts == {"training": 20, "test": 2}
    split = make_split(training, validation=0.2, test=test)
    assert split.report.counts == {"training": 16, "validation": 4, "test": 2}


# The report


def test_duplicates_and_leaks_are_counted(made: Make):
    training = made(["One  two", "three", "one TWO", "ﬁve"], ["a", "b", "a", "b"], source="train.csv")
    test = made(["three", "four", "five"], ["a", "b", "b"], source="test.csv")
    report = make_split(training, validation=None, test=test).report
    assert report.duplicates == {"training": 1, "test": 0}
    assert report.leaks == {"test in training": 2}
    assert report.label_counts == {"training": {"a": 2, "b": 2}, "test": {"b": 2, "a": 1}}
    assert report.warnings == (
        "training: 1 of 4 examples repeat an earlier one (train.csv: row 3 repeats train.csv: row 1)",
        "2 of 3 test examples are in training, too (test.csv: row 1 is train.csv: row 2): "
        "a figure on them shows memory",
    )
    assert json.loads(json.dumps(report.to_json()))["leaks"] == {"test in training": 2}


def test_leaks_of_words_and_arrays(made: Make, arrays: MakeArrays):
    words = [["a", "b"], ["c"], ["A", "b"]]
    report = make_split(made(words, [["X", "Y"], ["X"], ["X", "Y"]], "words", "tags"), validation=None).report
    assert report.duplicates == {"training": 1}
    steps = arrays(3, 4, 5)
    steps += [steps[1].copy(), steps[2].reshape(2, 5)[:, :2].copy()]
    report = make_split(made(steps, ["a", "b", "a", "b", "a"], "steps"), validation=None).report
    assert report.duplicates == {"training": 1}


def test_several_translations_are_no_duplicates(made: Make):
    examples = made(["Run!", "Run!", "run!", "Go."], ["Cours !", "Courez !", "Courez !", "Va !"], target_kind="text")
    assert make_split(examples, validation=None).report.duplicates == {"training": 1}


def test_tags_that_only_the_test_has(made: Make):
    training = made([["a", "b"]], [["X", "Y"]], "words", "tags")
    test = made([["c", "d", "e"]], [["X", "Z", "Z"]], "words", "tags")
    assert make_split(training, validation=None, test=test).report.warnings == (
        "test: 2 of 3 tags do not occur in training and count as wrong: Z",
    )


# What is wrong


def test_label_that_only_the_test_has(numbered: Make):
    test = numbered(["a", "sport"], source="test.csv")
    assert error_of(numbered(["a", "b"]), validation=None, test=test) == (
        'test.csv: row 2: the label "sport" of test is not in training, which has a, b; '
        "correct it, or give training an example of it"
    )


def test_one_class_only(made: Make, numbered: Make):
    expected = 'made.csv: training has one class only, the label "spam"; there is nothing to learn'
    assert error_of(numbered(["spam"] * 9), validation=None) == expected
    assert error_of(made([["a"]], [["X"]], "words", "tags"), validation=None) == (
        'made.csv: training has one class only, the tag "X"; there is nothing to learn'
    )
    assert error_of(made(["a"], [()], target_kind="labels"), validation=None) == "made.csv: no example has a label"


def test_empty_parts(numbered: Make):
    few = numbered(["a", "b", "a", "b"])
    assert error_of(few, validation=0.1) == (
        "made.csv: validation = 0.1 of 4 examples is none; give a larger share, a number of examples, or a file"
    )
    assert error_of(few, validation=2, test=3, rule="random") == (
        "made.csv: validation = 2 and test = 3 of 4 examples leaves none for training"
    )
    assert error_of(few, validation=3) == (
        "made.csv: validation = 3 of 4 examples leaves too few for training, which needs one of each of 2 labels"
    )
    assert error_of(few, validation=numbered([], source="dev.csv")) == "dev.csv: validation has no example"
    assert error_of(few, validation=None, test=1.5) == "test: expected a share below 1 or a number of examples, got 1.5"
    assert error_of(few, validation=None, test=-1) == "test: expected a share below 1 or a number of examples, got -1"


def test_rules_that_do_not_fit(made: Make, numbered: Make):
    examples = numbered(["a", "b"] * 5)
    assert error_of(examples, rule="fair") == (
        'rule: expected one of auto, random, stratified, group, time, got "fair"'
    )
    assert error_of(examples, rule="group") == (
        "made.csv: a split by group needs groups; name their column, or give another rule"
    )
    assert error_of(examples, rule="time") == (
        "made.csv: a split by time needs times; name their column, or give another rule"
    )
    assert error_of(made(["a"] * 10, ["b"] * 10, target_kind="text"), rule="stratified") == (
        "made.csv: a stratified split needs labels; give rule = random, group or time"
    )
    assert error_of(numbered(["a", "b"] * 5, groups=["g"] * 10)) == (
        "made.csv: 1 group cannot be split into 2 parts; give another rule"
    )
    assert error_of(numbered(["a", "b"] * 5, times=np.zeros(10, dtype=np.int64))) == (
        "made.csv: validation = 1 of 10 examples leaves none for validation"
    )


def test_parts_of_different_kinds(made: Make, numbered: Make, arrays: MakeArrays):
    steps = made(arrays(3, 4), ["a", "b"], "steps", feature_names=("x", "y"), source="test.npz")
    assert error_of(numbered(["a", "b"]), validation=None, test=steps) == (
        "test.npz: does not go with made.csv: input_kind is steps, and text there"
    )
    others = made(arrays(3, 4), ["a", "b"], "steps", feature_names=("x", "z"))
    assert error_of(others, validation=None, test=steps) == (
        "test.npz: does not go with made.csv: feature_names is x, y, and x, z there"
    )
