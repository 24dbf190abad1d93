"""checkpoint: network, optimizer and random generators come back bit for bit, from plain tensors."""

import pytest
import torch

from gatewise.config import LanguageModelConfig, TrainingConfig
from gatewise.errors import RunError
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.run_folder import load_tensors, save_tensors
from gatewise.training.checkpoint import (
    Progress,
    load_checkpoint,
    load_weights,
    restore,
    save_checkpoint,
    weights,
)
from gatewise.training.optimizers import build_optimizer

RULES = {
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "sgd": {"optimizer": "sgd"},
    "sgd-momentum": {"optimizer": "sgd", "momentum": 0.9},
}
MODELS = {"untied": {}, "tied": {"tied": True, "embedding_size": 6}, "one-hot": {"input": "one-hot"}}


def build(model: dict, rule: dict):
    network = LanguageModelNetwork(7, LanguageModelConfig(**{"hidden_size": 6, "embedding_size": 4, **model}))
    return network, build_optimizer(network.parameters(), TrainingConfig(learning_rate=0.05, **rule))


def train(network, optimizer, steps: int) -> None:
    for _ in range(steps):
        loss = network(torch.randint(7, (5, 2)))[0].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", MODELS)
def test_training_goes_on_bit_for_bit(tmp_path, model, rule):
    torch.manual_seed(0)
    network, optimizer = build(MODELS[model], RULES[rule])
    train(network, optimizer, 4)
    state = torch.randn(1, 2, 6)
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, network, optimizer, state, Progress(step=4), "the text")
    train(network, optimizer, 4)

    torch.manual_seed(99)
    again, its_optimizer = build(MODELS[model], RULES[rule])
    carried = restore(load_checkpoint(path), again, its_optimizer)
    assert carried is not None
    assert torch.equal(carried, state)
    train(again, its_optimizer, 4)
    for (name, parameter), other in zip(again.named_parameters(), network.parameters(), strict=True):
        assert torch.equal(parameter, other), name
    left, right = (rule.state_dict()["state"] for rule in (its_optimizer, optimizer))
    for i, slots in right.items():
        for slot, value in slots.items():
            assert value is None or torch.equal(left[i][slot], value), (i, slot)


def test_a_state_that_is_not_carried_is_none(tmp_path):
    network, optimizer = build({}, RULES["adamw"])
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, network, optimizer, None, Progress(), "")
    assert restore(load_checkpoint(path), network, optimizer) is None


def test_numbers_come_back(tmp_path):
    network, optimizer = build({}, RULES["sgd"])
    path = tmp_path / "last.safetensors"
    progress = Progress(step=3, epoch=1, index=2, best={"loss_nats": 0.1 + 0.2})
    progress.since_line.add(64, 1 / 3, 0.1, 1e-3)
    save_checkpoint(path, network, optimizer, None, progress, "the text")
    checkpoint = load_checkpoint(path)
    assert checkpoint.progress == progress
    assert (checkpoint.data, checkpoint.threads) == ("the text", torch.get_num_threads())


def test_weights_of_another_network_are_refused(tmp_path):
    network, _ = build({}, RULES["sgd"])
    other, _ = build({"hidden_size": 8}, RULES["sgd"])
    path = tmp_path / "model.safetensors"
    with pytest.raises(RunError) as error:
        load_weights(network, weights(other), path)
    assert str(error.value) == (
        f"{path}: does not fit its configuration: expected gru.weight_ih_l0 of shape [18, 4], got [24, 4]"
    )
    one_hot, _ = build({"input": "one-hot"}, RULES["sgd"])
    with pytest.raises(RunError) as error:
        load_weights(one_hot, weights(network), path)
    assert str(error.value) == (
        f"{path}: does not fit its configuration: expected gru.weight_ih_l0 of shape [18, 7], got [18, 4]"
    )


def test_what_is_no_checkpoint(tmp_path):
    path = tmp_path / "last.safetensors"
    save_tensors(path, {"a": torch.zeros(1)}, {})
    with pytest.raises(RunError) as error:
        load_checkpoint(path)
    assert str(error.value) == f"{path}: damaged: not a checkpoint of a training"


def test_a_checkpoint_of_the_first_version(tmp_path):
    """It called the units tokens, the best metrics best_loss_nats and the data text."""
    network, optimizer = build({}, RULES["sgd"])
    path = tmp_path / "last.safetensors"
    progress = Progress(step=3, epoch=1, index=2, best={"loss_nats": 1.5})
    progress.since_start.add(64, 3.0, 0.5, 0.25)
    save_checkpoint(path, network, optimizer, None, progress, "the text")
    tensors, metadata = load_tensors(path)
    old = metadata["progress"] | {"best_loss_nats": 1.5}
    del old["best"]
    for name in ("since_start", "since_epoch", "since_line"):
        sums = old[name]
        old[name] = {
            "tokens": sums["units"],
            "loss_nats": sums["loss"],
            **{key: sums[key] for key in ("steps", "gradient_norm", "seconds")},
        }
    save_tensors(path, tensors, {"progress": old, "threads": metadata["threads"], "text": metadata["data"]})
    checkpoint = load_checkpoint(path)
    assert checkpoint.progress == progress
    assert checkpoint.data == "the text"
