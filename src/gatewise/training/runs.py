"""load: the model of a run folder, whatever its task."""

import importlib
from pathlib import Path
from typing import Any

from gatewise.run_folder import RunFolder

MODELS = {  # of each task the class whose from_run(folder, device) reads a run; imported when it is needed
    "language-model": ("gatewise.training.language_model", "LanguageModel"),
    "classifier": ("gatewise.training.classifier", "Classifier"),
    "tagger": ("gatewise.training.tagger", "Tagger"),
    "translator": ("gatewise.training.translator", "Translator"),
    "forecaster": ("gatewise.training.forecaster", "Forecaster"),
    "network": ("gatewise.training.network", "Network"),
}


def load(run: str | Path, *, device: str = "auto") -> Any:
    """The model of a run folder: the best of its training so far, on "cpu", "cuda", "mps" or, for "auto", what is here.

    Its class is that of the run's task: a LanguageModel, a Classifier, ..., or a Network that was imported.

    Raises RunError: the folder is missing, half-written, damaged or from a newer version; BackendError.
    """
    folder = RunFolder(run)
    return model_of(folder.check_existing()).from_run(folder, device)


def model_of(task: str) -> Any:
    """The class of a task's models."""
    module, name = MODELS[task]
    return getattr(importlib.import_module(module), name)
