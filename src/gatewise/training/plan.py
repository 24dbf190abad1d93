"""What a training will take, before it is begun."""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from gatewise.config import BaseTrainingConfig, LanguageModelJob
from gatewise.data.batches import open_tokens
from gatewise.run_folder import RunFolder
from gatewise.training.environment import choose_device, settings
from gatewise.training.evaluation import mean_loss
from gatewise.training.language_task import LanguageTask
from gatewise.training.loop import TrainingLoop
from gatewise.training.observer import Observer
from gatewise.training.preparation import build_network, cut_windows, tokenize
from gatewise.training.task import Task
from gatewise.training.writing import read_prompt

WARM_UP_STEPS = 3
MEASURED_STEPS = 10


@dataclass(frozen=True)
class Plan:
    """What a training will take.

    parameters: numbers that it learns; vocabulary_size: different tokens; tokens: of the text; steps: of the optimizer.
    memory_bytes: of the tensors that it holds at once, beside what Python and torch take for themselves.
    seconds_estimated: from a few steps made here and now, validations included.
    """

    parameters: int
    vocabulary_size: int
    tokens: int
    steps: int
    memory_bytes: int
    seconds_estimated: float


def plan(job: LanguageModelJob, text: str | Path) -> Plan:
    """What training `job` on `text` will take. It reads the text and makes a few steps, of which nothing is kept.

    Raises what the training itself would raise before its first step.
    """
    device = choose_device(job.training.device)
    temporary = tempfile.TemporaryDirectory(prefix="gatewise-", ignore_cleanup_errors=True)
    with temporary as folder, settings(job.training, device):
        tokenizer, token_file = tokenize(text, job.data, Path(folder) / "tokens.bin")
        windows, validation = cut_windows(open_tokens(token_file), job)
        read_prompt(job.training.sample_prompt, tokenizer, job.data)
        network = build_network(tokenizer.size, job.model, device)
        task = LanguageTask(network, windows, validation)
        loop = TrainingLoop(task, job.training, RunFolder(folder), model_metadata={}, data="", observer=Observer())
        network.train()
        total = loop.steps * _seconds_of_a_step(loop)
        if validation is not None:
            window = next(iter(validation))
            start = time.perf_counter()
            with loop.arithmetic():
                mean_loss(network, [window])
            total += _validations(loop, job) * len(validation) * (time.perf_counter() - start)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        return Plan(
            parameters, tokenizer.size, token_file.length, loop.steps, _memory(parameters, tokenizer.size, job), total
        )


@dataclass(frozen=True)
class ExamplePlan:
    """What a training on examples will take; the rest is as in Plan. choices: what was decided by the data."""

    parameters: int
    examples: int
    steps: int
    memory_bytes: int
    seconds_estimated: float
    choices: list[str]


def plan_examples(task: Task, config: BaseTrainingConfig, examples: int, choices: list[str]) -> ExamplePlan:
    """What training a task on examples will take, by a few steps and a validation, made here and now."""
    with tempfile.TemporaryDirectory(prefix="gatewise-", ignore_cleanup_errors=True) as folder:
        loop = TrainingLoop(task, config, RunFolder(folder), model_metadata={}, data="", observer=Observer())
        parameters = sum(parameter.numel() for parameter in loop.parameters)
        slots = 2 if config.optimizer == "adamw" else int(config.momentum > 0)
        memory = parameters * (2 + slots) * torch.float32.itemsize + _kept_by_a_step(task)
        task.network.train()
        seconds = loop.steps * _seconds_of_a_step(loop)
        if task.validates:
            start = time.perf_counter()
            task.validate()
            validations = 1 + -(-loop.steps // (config.validate_every or task.batches_per_epoch))
            seconds += validations * (time.perf_counter() - start)
    return ExamplePlan(parameters, examples, loop.steps, memory, seconds, choices)


def _seconds_of_a_step(loop: TrainingLoop) -> float:
    """The median over a few steps, which are made."""
    seconds = []
    for _ in range(min(loop.steps, WARM_UP_STEPS + MEASURED_STEPS)):
        start = time.perf_counter()
        loop.step()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP_STEPS:] or seconds)


def _kept_by_a_step(task: Task) -> int:
    """Bytes of what the forward of the first batch keeps for its backward, parameters aside."""
    own = {parameter.untyped_storage().data_ptr() for parameter in task.network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        task.loss(task.batch(0, 0), None)
    return sum(kept.values())


def _validations(loop: TrainingLoop, job: LanguageModelJob) -> int:
    return 1 + -(-loop.steps // (job.training.validate_every or loop.task.batches_per_epoch))


def _memory(parameters: int, vocabulary_size: int, job: LanguageModelJob) -> int:
    """Bytes of the parameters, their gradients and the optimizer's slots, and of what a step keeps for its backward."""
    model, training = job.model, job.training
    slots = 2 if training.optimizer == "adamw" else int(training.momentum > 0)
    input_size = vocabulary_size if model.input == "one-hot" else model.embedding_size
    layer = 5 * model.hidden_size  # per step and row: three gates, the recurrent product of the candidate, the state
    row = input_size + model.num_layers * layer + 3 * vocabulary_size  # logits, their softmax, its gradient
    dropped = 2 * (model.num_layers + 1) * model.hidden_size if model.dropout else 0  # outputs and masks
    floats = parameters * (2 + slots) + training.batch_size * training.sequence_length * (row + dropped)
    return floats * torch.float32.itemsize
