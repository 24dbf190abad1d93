"""choices: what "auto" becomes, and that what was given stays."""

import pytest

from gatewise.config import ClassifierConfig, ClassifierJob, ClassifierTraining
from gatewise.training.choices import Choices, settled


@pytest.mark.parametrize(
    ("examples", "batch_size", "epochs", "every", "patience"),
    [
        (50, 16, 100, 40, 5),
        (300, 16, 100, 57, 8),
        (900, 16, 71, None, 17),
        (11_776, 32, 11, None, 5),
        (1_000_000, 64, 3, None, 5),
    ],
)
def test_a_training_by_the_number_of_examples(examples, batch_size, epochs, every, patience):
    choices = Choices(ClassifierJob())
    choices.choose_training(examples, validates=True)
    training = choices.job.training
    assert (training.batch_size, training.epochs) == (batch_size, epochs)
    assert (training.validate_every, training.patience) == (every, patience)
    assert len(choices.reasons) == 3 + (every is not None)


def test_reasons():
    choices = Choices(ClassifierJob())
    choices.choose_training(11_776, validates=True)
    assert choices.choose("model", "hidden_size", 128, "11,776 examples of 9 words") == 128
    assert choices.reasons == [
        "batch size 32: 11,776 examples",
        "epochs 11: 368 batches in each, 4,048 steps in all",
        "patience 5: a quarter of 11 validations, 5 at least",
        "hidden size 128: 11,776 examples of 9 words",
    ]


def test_what_was_given_stays():
    given = ClassifierJob(
        model=ClassifierConfig(hidden_size=7),
        training=ClassifierTraining(epochs=2, batch_size=5, patience=None, validate_every=7),
    )
    choices = Choices(given)
    choices.choose_training(1000, validates=True)
    assert choices.choose("model", "hidden_size", 128, "") == 7
    choices.drop("model", "hidden_size", 1)
    assert choices.job == given
    assert choices.reasons == []


def test_patience_goes_by_the_validations_that_were_asked_for():
    choices = Choices(ClassifierJob(training=ClassifierTraining(validate_every=10)))
    choices.choose_training(300, validates=True)
    assert choices.job.training.patience == 47
    assert choices.reasons[-1] == "patience 47: a quarter of 190 validations, 5 at least"


def test_without_validation_there_is_no_patience():
    choices = Choices(ClassifierJob())
    choices.choose_training(1000, validates=False)
    assert (choices.job.training.validate_every, choices.job.training.patience) == (None, None)


def test_a_run_that_goes_on_keeps_what_was_decided():
    stored = ClassifierJob(model=ClassifierConfig(hidden_size=7, dropout=0.25), training=ClassifierTraining(epochs=3))
    again = settled(ClassifierJob(training=ClassifierTraining(epochs=9)), stored)
    assert (again.model.hidden_size, again.model.dropout, again.training.epochs) == (7, 0.25, 9)
