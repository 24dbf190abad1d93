"""choices: what "auto" becomes, and that what was given stays."""

import pytest

from gatewise.config import ClassifierConfig, ClassifierJob, ClassifierTraining
from gatewise.training.choices import Choices, settled


@pytest.mark.parametrize(
    ("examples", "batch_size", "epochs", "patience"),
    [(50, 16, 100, 25), (300, 16, 100, 25), (11_776, 32, 11, 5), (1_000_000, 64, 3, 5)],
)
def test_a_training_by_the_number_of_examples(examples, batch_size, epochs, patience):
    choices = Choices(ClassifierJob())
    choices.choose_training(examples, validates=True)
    training = choices.job.training
    assert (training.batch_size, training.epochs, training.patience) == (batch_size, epochs, patience)
    assert len(choices.reasons) == 3


def test_reasons():
    choices = Choices(ClassifierJob())
    choices.choose_training(11_776, validates=True)
    assert choices.choose("model", "hidden_size", 128, "11,776 examples of 9 words") == 128
    assert choices.reasons == [
        "batch size 32: 11,776 examples",
        "epochs 11: 368 batches in each, 4,048 steps in all",
        "patience 5: a quarter of 11 epochs, 5 at least",
        "hidden size 128: 11,776 examples of 9 words",
    ]


def test_what_was_given_stays():
    given = ClassifierJob(
        model=ClassifierConfig(hidden_size=7), training=ClassifierTraining(epochs=2, batch_size=5, patience=None)
    )
    choices = Choices(given)
    choices.choose_training(1000, validates=True)
    assert choices.choose("model", "hidden_size", 128, "") == 7
    choices.drop("model", "hidden_size", 1)
    assert choices.job == given
    assert choices.reasons == []


def test_without_validation_there_is_no_patience():
    choices = Choices(ClassifierJob())
    choices.choose_training(1000, validates=False)
    assert choices.job.training.patience is None


def test_a_run_that_goes_on_keeps_what_was_decided():
    stored = ClassifierJob(model=ClassifierConfig(hidden_size=7, dropout=0.25), training=ClassifierTraining(epochs=3))
    again = settled(ClassifierJob(training=ClassifierTraining(epochs=9)), stored)
    assert (again.model.hidden_size, again.model.dropout, again.training.epochs) == (7, 0.25, 9)
