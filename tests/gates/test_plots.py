import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.gates.plots import Curve, forecast_curve, learning_curve, log_ticks, step_curve, thin

TRAINING = Curve([10.0, 20.0, 30.0, 40.0], [4.5, 2.0, 1.5, 1.2])
VALIDATION = Curve([0.0, 20.0, 40.0], [4.6, 2.1, 1.4])


def texts(svg: str) -> list[str]:
    return [text for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg) if text]


def test_a_short_curve_stays_as_it_is():
    assert thin(TRAINING) == (TRAINING.steps, TRAINING.values, TRAINING.values, TRAINING.values)


def test_a_long_curve_keeps_its_mean_and_its_spikes():
    values = [1.0] * 100_000
    values[77_777] = 1000.0
    thinned = thin(Curve([float(step) for step in range(100_000)], values))
    assert len(thinned.steps) <= 300
    assert max(thinned.high) == 1000.0
    assert min(thinned.low) == 1.0
    assert thinned.steps == sorted(thinned.steps)
    assert sum(thinned.mean) / len(thinned.mean) == pytest.approx(sum(values) / len(values), rel=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (2.4, 110, [3, 5, 10, 20, 30, 50, 100]),
        (1, 1.11, [1, 1.05, 1.1]),
        (3.2, 3.75, [3.2, 3.3, 3.4, 3.5, 3.6, 3.7]),
        (1, 1e12, [1, 100, 1e4, 1e6, 1e8, 1e10, 1e12]),
    ],
)
def test_log_ticks(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)


@given(st.floats(1e-6, 1e200), st.floats(1.001, 1e60))
def test_log_ticks_are_a_few_within_the_axis(low, factor):
    ticks = log_ticks(low, low * factor)
    assert 2 <= len(ticks) <= 8
    assert all(low <= tick <= low * factor for tick in ticks)


def test_learning_curve_is_one_svg_in_the_page_s_colours():
    svg = learning_curve(
        TRAINING, VALIDATION, best=(40.0, 1.4), name="loss", label='falls to "4"', width=400, height=200
    )
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.attrib == {"viewBox": "0 0 400 200", "role": "img", "aria-label": 'falls to "4"'}
    assert {"perplexity", "step", "best 4.06", "100", "10"} <= set(texts(svg))
    assert "loss (nats)" not in texts(svg), "too narrow for a second scale"
    assert not re.search(r"#\d{6}", svg), "a colour that does not follow the page's"
    assert "var(--validation)" in svg
    assert "currentColor" in svg


def test_a_wide_learning_curve_shows_nats_too():
    svg = learning_curve(TRAINING, VALIDATION, best=None, name="loss", width=800, height=300, label="")
    assert "loss (nats)" in texts(svg)


def test_ids_begin_with_the_name_and_every_reference_has_its_target():
    svg = step_curve(TRAINING, name="norm", limit=2.0, label="", width=400, height=200)
    ids = re.findall(r' id="([^"]*)"', svg)
    assert ids
    assert len(ids) == len(set(ids))
    assert all(name.startswith("norm-") for name in ids)
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', svg)) == set(ids)


@pytest.mark.parametrize(
    ("training", "validation"),
    [
        (Curve([10.0], [1.2]), Curve([], [])),
        (Curve([], []), Curve([0.0], [4.6])),
        (Curve([1.0, 2.0], [1e5, 3.0]), Curve([], [])),
        (Curve([1.0, 2.0], [0.0, 0.0]), Curve([], [])),
    ],
    ids=["one-line", "before-the-first-step", "diverged", "perfect"],
)
def test_learning_curve_of_odd_runs(training, validation):
    ElementTree.fromstring(
        learning_curve(training, validation, best=None, name="loss", label="", width=400, height=200)
    )


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([0.5, 80.0, 0.4], {"log_scale": True, "limit": 1.0}),
        ([0.0, 0.0, 0.0], {}),
        ([3.0], {}),
        ([-1.0, 1.0], {}),
    ],
    ids=["log", "zero", "one", "negative"],
)
def test_step_curve_of_odd_values(values, options):
    curve = Curve([float(step) for step in range(len(values))], values)
    ElementTree.fromstring(step_curve(curve, name="norm", label="", width=400, height=200, **options))


@pytest.mark.parametrize(("history", "steps"), [(9, 3), (2, 10), (1, 1)])
def test_forecast_curve_names_the_times(history, steps):
    times = [f"day {number}" for number in range(history + steps)]
    came = [0.0] * history, [1.0] * steps, [0.5] * steps, [0.0] * steps, [2.0] * steps
    svg = forecast_curve(*came, times=times, name="forecast", width=440, height=260, label="<Forecast>")
    ElementTree.fromstring(svg)
    assert 'aria-label="&lt;Forecast&gt;"' in svg
    assert {times[0], times[history], times[-1]} <= set(texts(svg))


@pytest.mark.parametrize(("history", "steps", "shown"), [(72, 24, [0, 72]), (24, 24, [0, 47]), (5, 90, [0, 94])])
def test_the_times_of_a_forecast_do_not_overlap(history, steps, shown):
    times = [f"2024-01-01 00:00:{number:02}" for number in range(history + steps)]
    came = [0.0] * history, [1.0] * steps, [0.5] * steps, [0.0] * steps, [2.0] * steps
    svg = forecast_curve(*came, times=times, name="forecast", width=440, height=260, label="")
    assert [text for text in texts(svg) if text in times] == [times[place] for place in shown]


def test_a_drawing_is_the_same_each_time():
    assert step_curve(TRAINING, name="a", label="", width=400, height=200) == step_curve(
        TRAINING, name="a", label="", width=400, height=200
    )
