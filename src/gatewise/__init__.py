"""gatewise: gated recurrent sequence models: train, look inside, stream and ship."""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gatewise.interchange.conversion import convert
    from gatewise.interchange.formats import export, import_network
    from gatewise.kernels.ops import release_memory
    from gatewise.layers.accelerate import accelerate
    from gatewise.layers.gru import GRU, GRUCell
    from gatewise.layers.lstm import LSTM, LSTMCell
    from gatewise.layers.mingru import MinGRU, MinGRUCell
    from gatewise.layers.rnn import RNN, RNNCell
    from gatewise.training.classifier import Classifier
    from gatewise.training.forecaster import Forecaster
    from gatewise.training.language_model import LanguageModel
    from gatewise.training.network import Network
    from gatewise.training.runs import load
    from gatewise.training.tagger import Tagger
    from gatewise.training.translator import Translator

_HOMES = {
    "Classifier": "gatewise.training.classifier",
    "Forecaster": "gatewise.training.forecaster",
    "GRU": "gatewise.layers.gru",
    "GRUCell": "gatewise.layers.gru",
    "LSTM": "gatewise.layers.lstm",
    "LSTMCell": "gatewise.layers.lstm",
    "LanguageModel": "gatewise.training.language_model",
    "MinGRU": "gatewise.layers.mingru",
    "MinGRUCell": "gatewise.layers.mingru",
    "Network": "gatewise.training.network",
    "RNN": "gatewise.layers.rnn",
    "RNNCell": "gatewise.layers.rnn",
    "Tagger": "gatewise.training.tagger",
    "Translator": "gatewise.training.translator",
    "accelerate": "gatewise.layers.accelerate",
    "convert": "gatewise.interchange.conversion",
    "export": "gatewise.interchange.formats",
    "import_network": "gatewise.interchange.formats",
    "load": "gatewise.training.runs",
    "release_memory": "gatewise.kernels.ops",
}

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Classifier",
    "Forecaster",
    "GRUCell",
    "LSTMCell",
    "LanguageModel",
    "MinGRU",
    "MinGRUCell",
    "Network",
    "RNNCell",
    "Tagger",
    "Translator",
    "accelerate",
    "convert",
    "export",
    "import_network",
    "load",
    "release_memory",
]


def __getattr__(name: str) -> object:
    """A public name, imported when it is first touched: `import gatewise` alone costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'gatewise' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
