"""Series in memory: shapes, ids, times, and what is refused."""

import numpy as np
import pytest

from gatewise.data.series_arrays import series_of
from gatewise.errors import DataError


def test_one_series():
    table = series_of([1, 2, 3])
    assert table.series[0].values.tolist() == [[1], [2], [3]]
    assert table.series[0].times.tolist() == [0, 1, 2]
    assert (table.target_names, table.id_name, str(table.frequency)) == (("y",), None, "1 step")
    assert series_of(np.zeros((5, 2))).target_names == ("y1", "y2")
    assert series_of(np.zeros((5, 2)), target_names=["a", "b"]).target_names == ("a", "b")


def test_several_with_everything():
    days = np.datetime64("2024-01-01") + np.arange(4)
    table = series_of(
        {"a": [1, 2, 3], "b": [4, 5]},
        times={"a": days, "b": days[:3]},
        known={"a": np.arange(4), "b": np.arange(3)},
        static={"a": [1], "b": [2]},
    )
    first, second = table.series
    assert (first.name, len(first), len(first.times), first.place) == ("a", 3, 4, "series['a']")
    assert second.known.tolist() == [[0], [1], [2]]
    assert second.static_numbers.tolist() == [2]
    assert (table.known_names, table.static_number_names, table.id_name) == (("known1",), ("static1",), "id")
    assert str(table.frequency) == "1 day"


@pytest.mark.parametrize(
    ("values", "others", "message"),
    [
        ({}, {}, "series: expected an array of numbers, or a mapping of them, got nothing"),
        ([], {}, "series is empty; leave it out"),
        (["a"], {}, "series: expected numbers, got list of something else"),
        (np.zeros((2, 3, 4)), {}, "series: expected numbers (T,) or (T, K), got shape (2, 3, 4)"),
        ([1, np.nan], {}, "series, row 2, column 1: nan; expected finite numbers"),
        ([1, 2, 3], {"times": [1, 2]}, "series: expected 3 times, one for each row, got 2"),
        (
            [1, 2, 3],
            {"times": [1, 2, 4]},
            "series, row 3: 1 time is missing before 4, every 1 step after 2; add the rows, or have them filled with "
            "missing = previous or linear",
        ),
        (
            [1, 2, 3],
            {"times": np.array(["2024-01-02", "2024-01-01", "2024-01-03"], "M8")},
            "series, row 2: the time 2024-01-01 is earlier than 2024-01-02 in the row before; sort the rows by time",
        ),
        ([1, 2, 3], {"known": [1, 2]}, "series: expected known numbers for 3 steps or more, got 2"),
        (
            {"a": [1, 2]},
            {"known": {"b": [1, 2]}},
            "series: expected known by the ids of the series; there are none for 'a'",
        ),
        ([1, 2], {"target_names": ["a", "b"]}, "series: expected 1 target_names, one for each column, got 2"),
    ],
)
def test_what_is_refused(values, others, message):
    with pytest.raises(DataError) as caught:
        series_of(values, **others)
    assert str(caught.value) == message


def test_series_must_agree():
    with pytest.raises(DataError, match=r"^series: expected as many targets, known and static numbers in every series"):
        series_of({"a": np.zeros((3, 2)), "b": np.zeros(3)})
