"""The tree of errors. Every message says what was asked, what came, and what to do.

GatewiseError
├── InputError (ValueError)          an argument or a file of the user's is wrong
│   ├── ShapeError (RuntimeError)    a tensor has the wrong rank, size, dtype or device
│   ├── ConfigError                  a configuration: unknown key, wrong type, out of range, broken TOML
│   ├── TextError                    a text: missing, empty, not UTF-8, too short
│   ├── DataError                    examples or series: a file, a column, a value, a label, a split
│   ├── PromptError                  a prompt the model cannot read
│   └── NotFittedError (AttributeError)  a model is asked for what it has only once it is fitted or loaded
├── RunError                         a run folder: missing, half-written, damaged, newer, in the way
├── BackendError (RuntimeError)      a backend or device that was asked for cannot serve
├── TrainingError (RuntimeError)     training cannot go on
│   └── NonFiniteLoss
└── ExportError (RuntimeError)       an artifact cannot be made, or does not do what the model does
"""


class GatewiseError(Exception):
    """Whatever gatewise raises on purpose; the command line prints it as one line."""


class InputError(GatewiseError, ValueError):
    """An argument or a file of the user's is wrong."""


class ShapeError(InputError, RuntimeError):
    """A tensor has the wrong rank, size, dtype or device.

    torch's layers raise ValueError for some of these mistakes and RuntimeError for others, so this is both.
    """


class ConfigError(InputError):
    """A configuration is wrong: an unknown key, a mistyped or out-of-range value, broken TOML."""


class TextError(InputError):
    """A text cannot be read or is of no use: missing, empty, not UTF-8, too short."""


class DataError(InputError):
    """Examples or series are wrong; the message names the file and the line, row or column."""


class PromptError(InputError):
    """A prompt holds nothing that the model can read."""


class NotFittedError(InputError, AttributeError):
    """A model was asked for what it has only once it has been fitted or loaded.

    It is raised by `training.fitted`, which makes it a NotFittedError of scikit-learn, too, where that is in use.
    """


class RunError(GatewiseError):
    """A run folder is missing, half-written, damaged, from a newer version, or in the way."""


class BackendError(GatewiseError, RuntimeError):
    """A backend or a device was asked for and cannot serve."""


class TrainingError(GatewiseError, RuntimeError):
    """Training cannot go on."""


class NonFiniteLoss(TrainingError):
    """The loss became infinite or NaN; the message names the first layer and step where it began."""


class ExportError(GatewiseError, RuntimeError):
    """An artifact cannot be made, or, run and compared, does not give what the model gives."""
