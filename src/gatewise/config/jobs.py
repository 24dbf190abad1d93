"""The registry of what can be trained: of each task its job, the tables of its configuration."""

from gatewise.config.classifier import ClassifierJob
from gatewise.config.forecaster import ForecasterJob
from gatewise.config.language_model import LanguageModelJob
from gatewise.config.tagger import TaggerJob
from gatewise.config.training import Job
from gatewise.config.translator import TranslatorJob

JOBS: dict[str, type[Job]] = {
    job.task: job for job in (LanguageModelJob, ClassifierJob, TaggerJob, TranslatorJob, ForecasterJob)
}
