"""Typed configurations: the machinery in `section`, a file for each task, and `jobs`, the registry of the tasks."""

from gatewise.config.classifier import ClassifierConfig, ClassifierData, ClassifierJob, ClassifierTraining
from gatewise.config.examples import ExampleTrainingConfig, SplitConfig, TokenConfig
from gatewise.config.forecaster import ForecasterConfig, ForecasterData, ForecasterJob, ForecasterTraining
from gatewise.config.jobs import JOBS
from gatewise.config.language_model import LanguageModelConfig, LanguageModelJob, TextConfig, TrainingConfig
from gatewise.config.section import (
    Auto,
    Backend,
    Cell,
    Device,
    Precision,
    Reset,
    Section,
    commented_toml,
    dump_toml,
    in_words,
    load_toml,
    nearest,
    validate,
)
from gatewise.config.tagger import TaggerConfig, TaggerData, TaggerJob, TaggerTraining
from gatewise.config.training import BaseTrainingConfig, Job
from gatewise.config.translator import TranslatorConfig, TranslatorData, TranslatorJob, TranslatorTraining

__all__ = [
    "JOBS",
    "Auto",
    "Backend",
    "BaseTrainingConfig",
    "Cell",
    "ClassifierConfig",
    "ClassifierData",
    "ClassifierJob",
    "ClassifierTraining",
    "Device",
    "ExampleTrainingConfig",
    "ForecasterConfig",
    "ForecasterData",
    "ForecasterJob",
    "ForecasterTraining",
    "Job",
    "LanguageModelConfig",
    "LanguageModelJob",
    "Precision",
    "Reset",
    "Section",
    "SplitConfig",
    "TaggerConfig",
    "TaggerData",
    "TaggerJob",
    "TaggerTraining",
    "TextConfig",
    "TokenConfig",
    "TrainingConfig",
    "TranslatorConfig",
    "TranslatorData",
    "TranslatorJob",
    "TranslatorTraining",
    "commented_toml",
    "dump_toml",
    "in_words",
    "load_toml",
    "nearest",
    "validate",
]
