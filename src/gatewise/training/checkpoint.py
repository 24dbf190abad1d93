"""The whole state of a training in one file, so that one rename moves it from one step to another.

Weights, optimizer, random generators, the state carried between batches, and the position in the data, all bit for
bit: a training that goes on from a checkpoint cannot be told from one that was never stopped.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gatewise.errors import RunError
from gatewise.run_folder import load_tensors, save_tensors


@dataclass
class Sums:
    """Sums over training steps, from which means are made."""

    steps: int = 0
    units: int = 0  # tokens, examples: what the task counts
    loss: float = 0.0
    gradient_norm: float = 0.0
    seconds: float = 0.0
    batch_seconds: float = 0.0  # of the seconds, those in which batches were made

    def add(self, units: int, loss: float, gradient_norm: float, seconds: float, batch_seconds: float = 0.0) -> None:
        """Count one more step."""
        self.steps += 1
        self.units += units
        self.loss += loss
        self.gradient_norm += gradient_norm
        self.seconds += seconds
        self.batch_seconds += batch_seconds


@dataclass
class Progress:
    """How far a training has come, in numbers."""

    step: int = 0  # optimizer steps done
    epoch: int = 0  # epochs done
    index: int = 0  # batches of the current epoch done
    seconds: float = 0.0  # that the run has lasted, without the time between a stop and its resumption
    best: dict[str, float] | None = None  # metrics of the best validation so far
    best_step: int = 0
    bad_validations: int = 0  # since the best one
    since_start: Sums = field(default_factory=Sums)
    since_epoch: Sums = field(default_factory=Sums)  # since the last epoch began
    since_line: Sums = field(default_factory=Sums)  # since the last line of metrics.jsonl


@dataclass
class Checkpoint:
    """What load_checkpoint reads."""

    path: Path
    tensors: dict[str, Tensor]
    progress: Progress
    threads: int
    data: str  # which data the training reads, as the task describes it


def save_checkpoint(
    path: Path,
    network: nn.Module,
    optimizer: Optimizer,
    state: Tensor | None,
    progress: Progress,
    data: str,
) -> None:
    """Write all that a training goes on from. RunError if it cannot be written; the file before it is kept.

    state: what is carried to the next batch, None if nothing is. data: which data the training reads.
    """
    device = next(network.parameters()).device
    tensors = {f"network.{name}": tensor for name, tensor in weights(network).items()}
    for i, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{slot}": value for slot, value in slots.items() if value is not None}
    tensors |= {f"random.{kind}": value for kind, value in _random_states(device).items()}
    if state is not None:
        tensors["state"] = state
    save_tensors(path, tensors, {"progress": asdict(progress), "threads": torch.get_num_threads(), "data": data})


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`. RunError: missing, damaged, of a newer format."""
    tensors, metadata = load_tensors(path)
    try:
        progress = dict(metadata["progress"])
        if "best_loss_nats" in progress:  # as 0.1.0 wrote it
            best = progress.pop("best_loss_nats")
            progress["best"] = None if best is None else {"loss_nats": best}
        progress |= {name: _sums(sums) for name, sums in progress.items() if name.startswith("since_")}
        data = metadata["text"] if "text" in metadata else metadata["data"]
        return Checkpoint(path, tensors, Progress(**progress), metadata["threads"], data)
    except (KeyError, TypeError) as error:
        raise RunError(f"{path}: damaged: not a checkpoint of a training") from error


def _sums(sums: dict[str, float]) -> Sums:
    """The sums of a checkpoint; 0.1.0 called the units tokens and the loss loss_nats."""
    renamed = {"tokens": "units", "loss_nats": "loss"}
    return Sums(**{renamed.get(name, name): value for name, value in sums.items()})  # pyright: ignore[reportArgumentType]


def restore(checkpoint: Checkpoint, network: nn.Module, optimizer: Optimizer) -> Tensor | None:
    """Put network, optimizer and random generators into the checkpoint's state; the state that is carried on.

    Raises RunError if the checkpoint is of another network.
    """
    device = next(network.parameters()).device
    load_weights(network, _under("network", checkpoint.tensors), checkpoint.path)
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimizer", checkpoint.tensors).items():
        i, slot = name.split(".")
        slots.setdefault(int(i), {})[slot] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    _set_random_states(_under("random", checkpoint.tensors), device)
    state = checkpoint.tensors.get("state")
    return None if state is None else state.to(device)


def weights(network: nn.Module) -> dict[str, Tensor]:
    """The parameters by name; one that is shared stands once, by its first name."""
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


@torch.no_grad()
def load_weights(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy the tensors into the parameters of the same names. RunError if names or shapes differ."""
    expected = {name: list(parameter.shape) for name, parameter in network.named_parameters()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        name = next(name for name in [*expected, *found] if expected.get(name) != found.get(name))
        raise RunError(
            f"{path}: does not fit its configuration: expected {name} of shape {expected.get(name, 'nothing')}, "
            f"got {found.get(name, 'nothing')}"
        )
    for name, parameter in network.named_parameters():
        parameter.copy_(tensors[name])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")
    }


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Of a device that the checkpoint was not made on there is none: its generator stays as it is."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
