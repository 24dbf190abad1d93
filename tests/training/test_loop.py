"""loop: what is done at which step, what is written, and what ends a training before its end."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

import gatewise.training.language_task
import gatewise.training.loop
from gatewise.config import LanguageModelConfig, LanguageModelJob, TextConfig, TrainingConfig
from gatewise.data.batches import open_tokens
from gatewise.errors import NonFiniteLoss
from gatewise.models.language_model import LanguageModelNetwork
from gatewise.run_folder import RunFolder, load_tensors, read_header
from gatewise.training.language_model import LanguageModel
from gatewise.training.language_task import LanguageTask
from gatewise.training.loop import TrainingLoop
from gatewise.training.observer import Observer
from gatewise.training.preparation import cut_windows, tokenize
from gatewise.training.runs import load


def steps_of(lines: list[dict], split: str) -> list[int]:
    return [line["step"] for line in lines if line["split"] == split]


def test_lines_of_metrics(tmp_path, fit, recorder):
    observer = recorder()
    model = fit(tmp_path / "run", max_steps=50, validate_every=20, log_every=15, observer=observer)
    lines = RunFolder(tmp_path / "run").read_metrics()
    assert steps_of(lines, "train") == [15, 30, 45, 50]
    assert steps_of(lines, "validation") == [0, 20, 40, 50]
    train, validation = ([line for line in lines if line["split"] == split] for split in ("train", "validation"))
    assert observer.steps == train
    assert [metrics for metrics, _ in observer.validations] == validation
    common = ["step", "epoch", "split", "loss_nats", "perplexity", "bits_per_char"]
    assert all(list(line) == [*common, "seconds"] for line in validation)
    assert all(
        list(line) == [*common, "tokens_per_second", "learning_rate", "gradient_norm", "seconds"] for line in train
    )
    for line in lines:
        assert line["perplexity"] == pytest.approx(math.exp(line["loss_nats"]))
        assert line["bits_per_char"] == pytest.approx(line["loss_nats"] / math.log(2))  # a character is a token
    assert [line["epoch"] for line in train] == [1, 1, 2, 2]  # of 42 steps each
    assert sorted(line["seconds"] for line in lines) == [line["seconds"] for line in lines]
    assert model.result.step == min(validation, key=lambda line: line["loss_nats"])["step"]


def test_validation_at_the_end_of_each_epoch(tmp_path, fit):
    fit(tmp_path / "run", epochs=2)
    run = RunFolder(tmp_path / "run")
    assert [(line["step"], line["epoch"]) for line in run.read_metrics() if line["split"] == "validation"] == [
        (0, 0),
        (42, 1),
        (84, 2),
    ]
    assert [sample["step"] for sample in run.read_samples()] == [0, 42, 84]


def test_without_validation_there_are_samples_at_both_ends(tmp_path, fit, recorder):
    observer = recorder()
    model = fit(tmp_path / "run", epochs=2, data={"validation_fraction": 0.0}, observer=observer)
    run = RunFolder(tmp_path / "run")
    assert steps_of(run.read_metrics(), "validation") == []
    assert [sample["step"] for sample in run.read_samples()] == [0, model.result.steps]
    assert [metrics for metrics, _ in observer.validations] == [None, None]
    assert model.result.split == "train"
    assert read_header(run.model)["step"] == model.result.steps


def test_the_result_without_validation_is_the_mean_of_the_last_epoch(tmp_path, fit):
    model = fit(tmp_path / "run", epochs=2, data={"validation_fraction": 0.0}, log_every=1)
    losses = [line["loss_nats"] for line in RunFolder(tmp_path / "run").read_metrics() if line["epoch"] == 2]
    assert model.result.evaluation.loss_nats == pytest.approx(sum(losses) / len(losses))
    assert model.result.evaluation.tokens == len(losses) * 4 * 8


def test_samples_can_be_left_out(tmp_path, fit, recorder):
    observer = recorder()
    fit(tmp_path / "run", epochs=1, sample_length=0, observer=observer)
    assert [sample for _, sample in observer.validations] == [None, None]
    assert not RunFolder(tmp_path / "run").samples.exists()


def test_samples_do_not_disturb_the_training(tmp_path, fit, without_times):
    """Nor do validations and checkpoints."""
    job = {"epochs": 1, "model": {"dropout": 0.3}, "log_every": 1}
    fit(tmp_path / "plain", **job, sample_length=0, validate_every=42, checkpoint_every=100)
    fit(tmp_path / "rich", **job, sample_length=20, validate_every=5, checkpoint_every=3)
    plain, rich = (RunFolder(tmp_path / name) for name in ("plain", "rich"))
    left, right = (without_times(run.read_metrics()) for run in (plain, rich))
    assert [line for line in left if line["split"] == "train"] == [line for line in right if line["split"] == "train"]
    left, right = (load_tensors(run.checkpoint)[0] for run in (plain, rich))
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


def test_early_stopping(tmp_path, fit, monkeypatch, recorder):
    losses = iter([3.0, 2.0, 2.5, 1.9, 1.9, 2.2, 5.0])
    monkeypatch.setattr(gatewise.training.language_task, "mean_loss", lambda *_: (next(losses), 100))
    model = fit(tmp_path / "run", epochs=5, validate_every=3, patience=2)
    assert (model.result.steps, model.result.step) == (15, 9)
    assert model.result.evaluation.loss_nats == 1.9
    assert read_header(RunFolder(tmp_path / "run").model)["step"] == 9
    observer = recorder()
    fit(tmp_path / "run", epochs=5, validate_every=3, patience=2, resume=True, observer=observer)
    assert observer.messages == [
        f"{tmp_path / 'run'}: it stopped after 15 steps as it got no better; raise training.patience to train on"
    ]


def test_the_best_weights_are_kept(tmp_path, fit, monkeypatch):
    saved = []
    losses = iter([3.0, 1.0, 2.0])
    mean_loss = gatewise.training.language_task.mean_loss

    def note_weights(network, windows):
        saved.append({name: parameter.detach().clone() for name, parameter in network.named_parameters()})
        return next(losses), mean_loss(network, windows)[1]

    monkeypatch.setattr(gatewise.training.language_task, "mean_loss", note_weights)
    model = fit(tmp_path / "run", max_steps=20, validate_every=10)
    for name, parameter in model.network.named_parameters():
        assert torch.equal(parameter, saved[1][name])
        assert torch.equal(load(tmp_path / "run").network.get_parameter(name), saved[1][name])
    assert not torch.equal(saved[1]["output.bias"], saved[2]["output.bias"])


@pytest.mark.parametrize("windows", ["consecutive", "random"])
def test_steps_are_those_of_a_plain_loop(tmp_path, text, windows):
    """Clipped SGD on the windows in order; the state carried over, detached, only between consecutive windows."""
    data = TextConfig(windows=windows)
    config = TrainingConfig(
        batch_size=4,
        sequence_length=8,
        optimizer="sgd",
        learning_rate=0.5,
        schedule="constant",
        clip_norm=0.2,
        epochs=2,
    )
    tokenizer, token_file = tokenize(text, data, tmp_path / "tokens.bin")
    batches, _ = cut_windows(open_tokens(token_file), LanguageModelJob(data=data, training=config))
    torch.manual_seed(0)
    network = LanguageModelNetwork(tokenizer.size, LanguageModelConfig(hidden_size=12))
    copy = LanguageModelNetwork(tokenizer.size, LanguageModelConfig(hidden_size=12))
    copy.load_state_dict(network.state_dict())
    task = LanguageTask(network, batches, None)
    loop = TrainingLoop(task, config, RunFolder(tmp_path), model_metadata={}, data="", observer=Observer())
    optimizer = torch.optim.SGD(copy.parameters(), lr=0.5)
    for epoch in range(2):
        state = None
        for index in range(batches.batches_per_epoch):
            inputs, targets = batches.batch(epoch, index)
            logits, state = copy(inputs, state)
            optimizer.zero_grad()
            cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
            norm = torch.nn.utils.clip_grad_norm_(copy.parameters(), 0.2)
            optimizer.step()
            state = state.detach() if windows == "consecutive" else None
            before = loop.progress.since_start.gradient_norm
            loop.step()
            assert loop.progress.since_start.gradient_norm - before == pytest.approx(norm.item(), rel=1e-4)
    for one, other in zip(network.parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_it_learns(tmp_path, fit):
    model = fit(tmp_path / "run", epochs=10, learning_rate=0.02, model={"hidden_size": 24})
    lines = [line for line in RunFolder(tmp_path / "run").read_metrics() if line["split"] == "validation"]
    assert lines[0]["perplexity"] > 12  # of 16 characters
    assert model.result.evaluation.perplexity < 2.2
    assert set(model.generate("the ", 200, seed=0).split()[:-1]) & {"gate", "forgets", "what", "reads"}


def test_a_loss_that_is_not_finite(tmp_path, fit, monkeypatch):
    """From step 10 on; the checkpoint of step 7 is kept, and the run can go on from it."""
    run = tmp_path / "run"
    forward = LanguageModelNetwork.forward
    calls = 0

    def overflow(network, tokens, state=None):
        nonlocal calls
        calls += network.training
        if calls == 10:
            with torch.no_grad():
                network.gru.weight_hh_l0[1, 1] = torch.inf
                network.output.weight[0] = torch.nan
        return forward(network, tokens, state)

    monkeypatch.setattr(LanguageModelNetwork, "forward", overflow)
    with pytest.raises(NonFiniteLoss) as error:
        fit(run, max_steps=30)
    assert str(error.value) == (
        "the loss is nan at training step 10; "
        "it began in the parameter gru.weight_hh_l0, which the step before left so; "
        "resume from the checkpoint of step 7 with a smaller training.learning_rate (now 0.002) or "
        "training.clip_norm (now 1.0)"
    )
    assert read_header(RunFolder(run).checkpoint)["progress"]["step"] == 7
    monkeypatch.undo()
    assert fit(run, max_steps=30, learning_rate=0.001, resume=True).result.steps == 30


def test_a_loss_that_begins_in_a_layer(tmp_path, fit, monkeypatch):
    """The last window of the first epoch, of random windows: no state is carried."""
    activations = LanguageModelNetwork.activations

    def nan_at_5(network, tokens, state=None):
        for name, output in activations(network, tokens, state):
            yield name, output.index_fill(0, torch.tensor([5]), torch.nan) if name == "gru layer 0" else output

    monkeypatch.setattr(LanguageModelNetwork, "activations", nan_at_5)
    monkeypatch.setattr(gatewise.training.language_task, "cross_entropy", lambda logits, _: logits.sum() * torch.inf)
    with pytest.raises(NonFiniteLoss) as error:
        fit(tmp_path / "run", data={"windows": "random"}, clip_norm=None)
    assert "inf at training step 1; it began in gru layer 0 at time step 5 of 0 to 7; resume" in str(error.value)
    assert str(error.value).endswith("(now 0.002) or training.clip_norm (now none)")


def test_a_gradient_that_is_not_finite(tmp_path, fit, monkeypatch):
    def no_gradient(logits, _):
        logits.register_hook(lambda gradient: gradient * torch.nan)
        return logits.mean()

    monkeypatch.setattr(gatewise.training.language_task, "cross_entropy", no_gradient)
    with pytest.raises(NonFiniteLoss) as error:
        fit(tmp_path / "run")
    assert str(error.value).startswith(
        "the loss is finite but its gradient's norm is nan at training step 1; "
        "it began in the gradient of output.bias; resume from the checkpoint of step 0 "
    )


def test_spoilt_parameters_are_not_saved(tmp_path, fit, monkeypatch):
    """The step before a checkpoint spoils them, which no loss has shown yet."""
    run = tmp_path / "run"

    class Spoiling(torch.optim.SGD):
        def step(self, closure=None):
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 14:
                with torch.no_grad():
                    self.param_groups[0]["params"][0].fill_(torch.inf)

    monkeypatch.setattr(gatewise.training.loop, "build_optimizer", lambda parameters, _: Spoiling(parameters, lr=1.0))
    with pytest.raises(NonFiniteLoss) as error:
        fit(run)
    assert str(error.value).startswith(
        "training step 14 left the parameters not finite; it began in embedding.weight; "
        "resume from the checkpoint of step 7 "
    )
    assert read_header(RunFolder(run).checkpoint)["progress"]["step"] == 7


def test_a_validation_loss_that_is_not_finite(tmp_path, fit, monkeypatch):
    losses = iter([3.0, math.nan])
    monkeypatch.setattr(gatewise.training.language_task, "mean_loss", lambda *_: (next(losses), 100))
    with pytest.raises(NonFiniteLoss, match=r"^the validation loss is nan after training step 5; it began in the net"):
        fit(tmp_path / "run", validate_every=5)


def test_a_real_divergence_is_caught(tmp_path, text):
    """SGD at a rate beyond all reason."""
    training = TrainingConfig(
        batch_size=4, sequence_length=8, optimizer="sgd", learning_rate=1e30, clip_norm=None, checkpoint_every=1
    )
    with pytest.raises(
        NonFiniteLoss, match=r"training step \d.*it began in .*; resume from the checkpoint of step \d "
    ):
        LanguageModel(12).fit(text, tmp_path / "run", training=training)
    assert load(tmp_path / "run").generate("the", 3, seed=0)


def test_the_bits_of_a_character_do_not_depend_on_the_tokenizer(tmp_path, fit):
    """A word model's loss per token is that of several characters."""
    fit(tmp_path / "run", epochs=1, data={"tokenizer": "word"}, max_steps=3, sequence_length=4)
    line = RunFolder(tmp_path / "run").read_metrics()[0]
    characters_per_token = line["loss_nats"] / math.log(2) / line["bits_per_char"]
    assert 3 < characters_per_token < 6
