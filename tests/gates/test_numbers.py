import pytest

from gatewise.gates.numbers import duration, moment, perplexity, plain, significant, storage


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (plain, 0, "0"),
        (plain, 0.0005, "0.0005"),
        (plain, -3.5, "-3.5"),
        (plain, 80000, "80,000"),
        (plain, 1e-7, "1e-07"),
        (plain, 1e20, "1e+20"),
        (significant, 0.012345, "0.0123"),
        (significant, 3.2, "3.20"),
        (significant, 999.4, "999"),
        (significant, 12345, "12,300"),
        (significant, 1e15, "1.00e+15"),
        (perplexity, 0.0, "1.00"),
        (perplexity, 1.1659, "3.21"),
        (perplexity, 1e9, "3.77e+260"),
        (duration, 58.24, "58.2 s"),
        (duration, 59.99, "60 s"),
        (duration, 200.4, "3 min 20 s"),
        (duration, 7530, "2 h 5 min"),
        (storage, 388, "388 B"),
        (storage, 3072, "3.07 kB"),
        (storage, 1113732, "1.11 MB"),
        (storage, 5_000_000_000, "5.00 GB"),
        (moment, "2026-11-20T18:50:23+00:00", "20 November 2026, 18:50 UTC"),
        (moment, "python-topics", "python-topics"),
    ],
)
def test_written_as_people_write_it(write, value, text):
    assert write(value).replace("\u00a0", " ") == text
