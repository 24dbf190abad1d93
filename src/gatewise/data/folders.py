"""Folders of texts by label: `reviews/pos/17.txt`, `reviews/neg/4.txt`."""

from pathlib import Path

from gatewise.data.examples import Examples, some
from gatewise.data.files import read_text, suffix_of
from gatewise.errors import DataError


def read_labelled_folder(source: str | Path) -> Examples:
    """The texts of all `.txt` files (plain or gzip) in the folder, each with the name of its folder as the label.

    Files are taken in the order of their names, folders below a label's folder belong to it, and what begins with a
    dot is skipped. Raises DataError: no such folder, no folder of texts in it, a text that is empty or not UTF-8.
    """
    root = Path(source)
    if not root.is_dir():
        raise DataError(f"{root}: {'is a file; expected a folder' if root.exists() else 'no such folder'}")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = {folder.name: [path for path in sorted(folder.rglob("*")) if _is_text(path)] for folder in folders}
    files = {label: paths for label, paths in files.items() if paths}
    if not files:
        found = some(sorted(path.name for path in root.iterdir())) or "nothing"
        raise DataError(f"{root}: expected a folder for each label with .txt files in it, found {found}")
    paths = [path for label in files for path in files[label]]
    return Examples(
        str(root),
        "text",
        [read_text(path).strip() for path in paths],
        "label",
        [label for label in files for _ in files[label]],
        [str(path) for path in paths],
        notes=(f"{root}: took the labels {some(files)} from the names of its folders",),
    )


def _is_text(path: Path) -> bool:
    return suffix_of(path) == ".txt" and not path.name.startswith(".") and path.is_file()
