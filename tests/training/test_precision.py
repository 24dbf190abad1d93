"""training.precision: what bf16 changes in a training, and what it does not."""

import pytest
import torch

from gatewise.config import TrainingConfig, validate
from gatewise.errors import ConfigError
from gatewise.run_folder import RunFolder, load_tensors


def test_bf16_ends_where_float32_does(tmp_path, fit):
    losses = {}
    for precision in ("float32", "bf16"):
        model = fit(tmp_path / precision, epochs=8, learning_rate=0.02, precision=precision)
        losses[precision] = model.result.evaluation.perplexity
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bf16"] != losses["float32"]


def test_weights_and_optimizer_stay_float32_and_the_carried_state_is_bfloat16(tmp_path, fit):
    fit(tmp_path / "run", max_steps=5, precision="bf16")
    run = RunFolder(tmp_path / "run")
    tensors, _ = load_tensors(run.checkpoint)
    assert tensors.pop("state").dtype == torch.bfloat16
    assert {t.dtype for name, t in tensors.items() if not name.startswith("random")} == {torch.float32}
    assert {tensor.dtype for tensor in load_tensors(run.model)[0].values()} == {torch.float32}
    assert 'precision = "bf16"' in run.config.read_text()


@pytest.mark.parametrize("at", [3, 9])
def test_bf16_resumes_bit_for_bit(tmp_path, fit, recorder, killed, assert_same_run, at):
    fit(tmp_path / "whole", epochs=1, precision="bf16")
    with pytest.raises(killed):
        fit(tmp_path / "stopped", epochs=1, precision="bf16", observer=recorder(at=at))
    fit(tmp_path / "stopped", epochs=1, precision="bf16", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_an_unknown_precision_names_the_known_ones():
    with pytest.raises(ConfigError) as error:
        validate(TrainingConfig, {"precision": "bf15"}, source="training")
    assert str(error.value) == 'training: precision: expected one of float32, bf16, got "bf15"; did you mean "bf16"?'
