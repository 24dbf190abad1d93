"""environment: the device that was asked for or an error, and settings that leave nothing behind."""

import pytest
import torch

from gatewise.config import TrainingConfig
from gatewise.errors import BackendError
from gatewise.training.environment import choose_device, environment, settings


def test_the_processor_is_always_here():
    assert choose_device("cpu") == torch.device("cpu")


def test_auto_takes_the_first_that_is_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_an_absent_device(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(BackendError) as error:
        choose_device(name)
    assert str(error.value) == f"device: {name} was asked for, and torch {torch.__version__} finds none; here: cpu"


def test_an_unknown_device():
    with pytest.raises(BackendError) as error:
        choose_device("gpu")
    assert str(error.value) == "device: unknown device 'gpu'; expected one of auto, cuda, mps, cpu"


def test_settings_leave_the_caller_s_random_stream_and_threads(tmp_path):
    before = torch.get_num_threads()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with settings(TrainingConfig(seed=9, threads=2), torch.device("cpu")):
        assert torch.get_num_threads() == 2
        inside = torch.rand(3)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(9)
    assert torch.equal(torch.rand(3), inside)


def test_environment():
    found = environment(torch.device("cpu"))
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert all(isinstance(value, str | int) for value in found.values())
