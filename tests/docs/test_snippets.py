"""The snippets of the documentation run: of each page the Python blocks in order, in an empty folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def code_of(page: str) -> str:
    """The Python blocks of a page; every other line is empty, so that an error names the line of the page."""
    lines, inside = [], False
    for line in page.splitlines():
        fence = re.match(r"\s*```(\w*)", line)
        lines.append(line if inside and not fence else "")
        if fence:
            inside = fence[1] == "python"
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if code_of(page.read_text("utf-8")).strip()], ids=lambda p: p.stem
)
def test_the_snippets_of(page, tmp_path):
    script = tmp_path / f"snippets_of_{page.stem}.py"  # not the name of a module that they import
    script.write_text(code_of(page.read_text("utf-8")), "utf-8")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{page}:\n{done.stderr}"


def test_lines_of_the_code_are_those_of_the_page():
    page = "# Title\n```python\na = 1\n```\ntext\n```text\nb = 2\n```\n```python\nc = 3\n```\n"
    assert code_of(page).splitlines() == ["", "", "a = 1", "", "", "", "", "", "", "c = 3", ""]
