"""What is decided by the series where a forecaster's configuration says "auto", each with its reason; and their split.

The order matters: the horizon says how much must be held out, the training part that is left says what the season is,
both say how much history to read, and all of it how many windows there are to learn from.
"""

import numpy as np

from gatewise.config import ForecasterJob
from gatewise.data.calendar import cycles_of
from gatewise.data.dependence import error_with_others
from gatewise.data.seasonality import find_season
from gatewise.data.series import SeriesTable
from gatewise.data.series_encoding import SeriesEncoding
from gatewise.data.series_splits import SeriesSplit, forecast_origins, split_series
from gatewise.errors import ConfigError
from gatewise.training.choices import Choices, by_size

HORIZON = 10  # where no season of the calendar says what people want to know
SMALL_COUNTS = 20  # a median below which whole numbers are counts rather than measurements
FEW, MANY = 500, 20_000  # windows
BATCHES = 1_000, 100_000  # windows from which on a batch is larger
TOGETHER = 0.9  # of the error that the own past leaves: the most that a forecast from all targets may leave
LEAST_APART = 4  # windows in a batch
STEPS = 2_500  # of a training: within a few minutes on two cores
EPOCHS = 3, 100


def decide(choices: Choices[ForecasterJob], table: SeriesTable) -> tuple[SeriesSplit, SeriesEncoding]:
    """Replace every "auto" of the job; gives the split, and the encoding that is fitted to the training part.

    Raises DataError: as `split_series`; ConfigError: a context shorter than the season.
    """
    horizon = _horizon(choices, table)
    split = _split(choices, table, horizon)
    training = [series.values[:end] for series, end in zip(table.series, split.training_end, strict=True)]
    season = _season(choices, table, training, horizon)
    context = _context(choices, [len(values) for values in training], season, horizon)
    apart = _targets(choices, training, context, horizon) == "apart"
    likelihood = _likelihood(choices, training)
    cycles = _calendar(choices, table, split)
    encoding = SeriesEncoding.fit(
        table, split.training_end.tolist(), cycles=cycles, unscaled=likelihood == "negative-binomial"
    )
    start, end = split.part("training")
    windows = len(forecast_origins(start, end, context=context, horizon=horizon))
    reason = f"{windows:,} windows to learn from"
    choices.choose("model", "hidden_size", by_size(windows, 32, 64, 128, FEW, MANY), reason)
    choices.choose("model", "dropout", by_size(windows, 0.1, 0.1, 0.1, FEW, MANY), reason)
    rows = len(table.target_names) if apart else 1  # that a window becomes
    _training(choices, windows, rows, bool((split.validation_end > split.training_end).any()))
    return split, encoding


def _horizon(choices: Choices[ForecasterJob], table: SeriesTable) -> int:
    season = table.frequency.season
    wanted, reason = (season, "one season") if season > 1 else (HORIZON, "no season is known")
    most = max(1, min(map(len, table.series)) // 5)
    if wanted > most:
        wanted, reason = most, "a fifth of the shortest series"
    return choices.choose("model", "horizon", wanted, f"{reason}, at a step every {table.frequency}")


def _split(choices: Choices[ForecasterJob], table: SeriesTable, horizon: int) -> SeriesSplit:
    data = choices.job.data
    lengths = np.array([len(series) for series in table.series])
    test = lengths * data.test if data.test < 1 else np.full_like(lengths, data.test)
    left = int((lengths - test).min())
    if left < 4 * horizon:
        validation, reason = 0.0, f"{left} steps are too few to keep some of them for it"
    elif 0.1 * left < horizon:
        validation, reason = float(horizon), "one horizon"
    else:
        validation, reason = 0.1, "a tenth of each series"
    validation = choices.choose("data", "validation", validation, reason)
    return split_series(table, validation=validation, test=data.test, training=data.training_steps, horizon=horizon)


def _season(
    choices: Choices[ForecasterJob], table: SeriesTable, training: list[np.ndarray], horizon: int
) -> int | None:
    found = find_season(training, table.frequency, horizon)
    if found.season is None:
        reason = f"over {horizon} steps the last value is the best one to go by"
    else:
        reason = f"copying the value of so many steps before errs {found.error:.0%} of what copying the last one errs"
    return choices.choose("model", "season", found.season, reason)


def _context(choices: Choices[ForecasterJob], lengths: list[int], season: int | None, horizon: int) -> int:
    wanted = max(3 * (season or 1), horizon + horizon // 2)
    most = max(season or 1, int(np.quantile(lengths, 0.25)) // 2 - horizon // 2, 1)
    reason = "three seasons" if wanted == 3 * (season or 1) else "one and a half horizons"
    if wanted > most:
        wanted, reason = most, "so much that the training part still has windows to learn from"
    context = choices.choose("model", "context", wanted, reason)
    if season is not None and context < season:
        raise ConfigError(
            f"model.context = {context}: expected at least one season, {season} steps; or model.season = none"
        )
    return context


def _targets(choices: Choices[ForecasterJob], training: list[np.ndarray], context: int, horizon: int) -> str:
    if training[0].shape[1] < 2:
        choices.drop("model", "targets", "together")
        return "together"
    left = error_with_others(training, context, horizon) if choices.job.model.targets == "auto" else None
    if left is None:
        return choices.choose("model", "targets", "apart", "too few windows to tell what one says of another")
    reason = f"with the others' past a linear forecast leaves {left:.0%} of the error that it leaves with the own"
    return choices.choose("model", "targets", "together" if left <= TOGETHER else "apart", reason)


def _likelihood(choices: Choices[ForecasterJob], training: list[np.ndarray]) -> str:
    values = np.concatenate([each.ravel() for each in training])
    counts = bool((values >= 0).all() and (values == np.round(values)).all() and np.median(values) < SMALL_COUNTS)
    if counts and values.max() > 1:
        return choices.choose("model", "likelihood", "negative-binomial", "the targets are small counts")
    return choices.choose("model", "likelihood", "student-t", "the targets are measurements, and outliers may come")


def _training(choices: Choices[ForecasterJob], windows: int, rows: int, validates: bool) -> None:
    size, reason = by_size(windows, 16, 32, 64, *BATCHES), f"{windows:,} windows"
    if rows > 1:  # they are alike in what they teach, so a batch has more of them, but not as many more
        size, reason = min(size, max(LEAST_APART, -(-2 * size // rows))), f"{reason} of {rows} targets each"
    size = choices.choose("training", "batch_size", size, reason)
    batches = max(1, -(-windows // size))
    epochs = min(max(-(-STEPS // batches), EPOCHS[0]), EPOCHS[1])
    reason = f"{batches:,} batches in each, {batches * epochs:,} steps in all"
    epochs = choices.choose("training", "epochs", epochs, reason)
    choices.choose_validations(batches, epochs, validates)


def _calendar(choices: Choices[ForecasterJob], table: SeriesTable, split: SeriesSplit) -> tuple[str, ...]:
    observed = [series.times[:end] for series, end in zip(table.series, split.training_end, strict=True)]
    cycles = cycles_of(table.frequency, observed)
    reason = f"the time of the {' and of the '.join(cycles)}" if cycles else "it says nothing that training could learn"
    return cycles if choices.choose("data", "calendar", "on" if cycles else "off", reason) == "on" else ()
