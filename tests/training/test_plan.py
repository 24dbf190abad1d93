"""plan: what a training will take, without training anything."""

import pytest

from gatewise.config import LanguageModelConfig, LanguageModelJob, TextConfig, TrainingConfig
from gatewise.errors import PromptError, TextError
from gatewise.training.plan import plan


@pytest.fixture
def job() -> LanguageModelJob:
    return LanguageModelJob(
        model=LanguageModelConfig(hidden_size=12, embedding_size=6),
        training=TrainingConfig(batch_size=4, sequence_length=8, epochs=3, threads=1),
    )


def test_plan_is_what_the_training_takes(tmp_path, text, fit, job, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned = plan(job, text)
    assert list(tmp_path.iterdir()) == []
    model = fit(tmp_path / "run", epochs=3)
    assert planned.parameters == sum(parameter.numel() for parameter in model.network.parameters())
    assert planned.vocabulary_size == model.tokenizer.size
    assert planned.tokens == 1500
    assert planned.steps == model.result.steps
    assert planned.seconds_estimated > 0


def test_memory_grows_with_the_batch_and_the_model(text, job):
    small = plan(job, text).memory_bytes
    longer = job.model_copy(update={"training": job.training.model_copy(update={"sequence_length": 80})})
    wider = job.model_copy(update={"model": job.model.model_copy(update={"hidden_size": 120})})
    assert plan(longer, text).memory_bytes > 3 * small
    assert plan(wider, text).memory_bytes > 10 * small


def test_few_steps(text, job):
    assert plan(job.model_copy(update={"training": job.training.model_copy(update={"max_steps": 2})}), text).steps == 2


def test_what_the_training_would_refuse(text, job):
    with pytest.raises(TextError):
        plan(job.model_copy(update={"data": TextConfig(max_characters=20)}), text)
    with pytest.raises(PromptError):
        plan(job.model_copy(update={"training": job.training.model_copy(update={"sample_prompt": "Q"})}), text)
