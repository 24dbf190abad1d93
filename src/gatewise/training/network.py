"""Network: a chain of layers in a run folder, brought from another library, that predicts and can be carried on."""

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from gatewise.config import load_toml
from gatewise.errors import ConfigError, InputError, RunError
from gatewise.models.sequential import SequentialNetwork, build, tables_as_toml
from gatewise.run_folder import FORMAT, RunFolder, atomic_write, load_tensors, save_tensors
from gatewise.training.checkpoint import load_weights, weights
from gatewise.training.environment import choose_device

TASK = "network"


class Network:
    """A chain of layers with its weights, from which predictions are made: what an import gives.

    network: SequentialNetwork: the torch module, in eval mode. source: what it was made from, in words.
    """

    def __init__(self, network: SequentialNetwork, *, source: str = "") -> None:
        self.network = network.eval()
        self.source = source

    @torch.inference_mode()
    def predict(self, x: Tensor | np.ndarray, *, lengths: Tensor | np.ndarray | None = None) -> np.ndarray:
        """The output for a batch: (B, T, F), or (B, F) if the network pools; float32.

        x (B, T) whole numbers: tokens; or (B, T, F) float: features. lengths (B,): steps of each row, all T if None.
        Raises InputError, ShapeError.
        """
        parameter = next(self.network.parameters())
        x = torch.as_tensor(x, device=parameter.device)
        rank = 2 if self.network.reads_tokens else 3
        if x.dim() != rank:
            form = "tokens (B, T)" if rank == 2 else "features (B, T, F)"
            raise InputError(f"Network.predict: expected x to be {form}, got {tuple(x.shape)}")
        x = x.long() if rank == 2 else x.to(parameter.dtype)
        if rank == 2 and x.numel() and not 0 <= int(x.min()) <= int(x.max()) < self.network.input_size:
            raise InputError(
                f"Network.predict: expected tokens from 0 to {self.network.input_size - 1}, "
                f"got {int(x.min())} to {int(x.max())}"
            )
        y, _ = self.network(x.transpose(0, 1), None, None if lengths is None else torch.as_tensor(lengths))
        y = y if self.network.pools else y.transpose(0, 1)
        return y.float().cpu().numpy()

    def save(self, run: str | Path, *, overwrite: bool = False) -> None:
        """Write layers and weights to a run folder, from which `gatewise.load` reads them. Raises RunError."""
        folder = RunFolder(run)
        folder.create(overwrite)
        layers = self.network.describe()
        lines = [f"format = {FORMAT}", f'task = "{TASK}"', f"source = {json.dumps(self.source, ensure_ascii=False)}"]
        save_tensors(folder.model, weights(self.network), {"task": TASK, "layers": layers})
        atomic_write(folder.config, ("\n".join([*lines, "", ""]) + tables_as_toml(layers)).encode())

    @classmethod
    def from_run(cls, folder: RunFolder, device: str = "auto") -> Self:
        """The network in a run folder. Raises RunError, BackendError."""
        folder.check_existing()
        try:
            content: dict[str, Any] = load_toml(folder.config)
            network = build(content.get("layers", []), source=str(folder.config))
        except ConfigError as error:
            raise RunError(f"{error}; the run's own configuration is damaged or was edited") from error
        tensors, metadata = load_tensors(folder.model)
        if metadata.get("task") != TASK:
            raise RunError(f"{folder.model}: expected a {TASK}, got {metadata.get('task', 'something else')}")
        load_weights(network, tensors, folder.model)
        return cls(network.to(choose_device(device)), source=str(content.get("source", "")))
