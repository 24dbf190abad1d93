"""docs/conventions.md shows the table as it is."""

from pathlib import Path

from gatewise.interchange.conventions import LIBRARIES, TABLE
from gatewise.interchange.conventions_page import main, renewed

PAGE = Path(__file__).parents[2] / "docs" / "conventions.md"


def test_the_page_is_not_stale():
    page = PAGE.read_text("utf-8")
    assert renewed(page) == page, "docs/conventions.md is stale; run: make docs"


def test_the_page_names_every_convention():
    page = PAGE.read_text("utf-8")
    assert all(f"### `{library}`\n" in page for library in LIBRARIES)
    assert all(convention.what in page for convention in TABLE)
    assert all(f"| `{array.name}` |" in page for convention in TABLE for array in convention.arrays)


def test_what_stands_around_the_table_stays(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- the table begins: make docs -->\nold\n<!-- the table ends -->\nbelow\n")
    main(page)
    text = page.read_text("utf-8")
    assert text.startswith("above\n<!-- the table begins")
    assert text.endswith("ends -->\nbelow\n")
    assert "old\n" not in text
    assert "h' = (1 - z) * h + z * a" in text
