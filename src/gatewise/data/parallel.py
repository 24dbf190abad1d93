"""Parallel text in two columns separated by a tab, as it is or in a zip: `Va !<tab>Go.`"""

import io
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from gatewise.data.examples import Examples
from gatewise.data.files import decode, name_of, read_bytes, reason_of, split_lines
from gatewise.errors import DataError

_TEXTS = (".txt", ".tsv", ".tab")


def read_parallel(
    source: str | Path, *, source_column: int = 1, target_column: int = 2, member: str | None = None
) -> Examples:
    """The sentences of one column with those of another as their translations; blank lines are skipped.

    source_column, target_column: counted from 1; further columns, such as a licence, are left alone.
    member: of a zip, the file in it; unless given, the only or by far the largest text, which is noted.

    Raises DataError, with the line: fewer columns, an empty sentence; a zip that is damaged or has no such member.
    """
    data, name = read_bytes(source), name_of(source)
    notes: tuple[str, ...] = ()
    if zipfile.is_zipfile(io.BytesIO(data)):
        data, name, notes = _member(data, name, member)
    elif member is not None:
        raise DataError(f"{name}: no zip, so it has no member {member}")
    needed = max(source_column, target_column)
    if min(source_column, target_column) < 1 or source_column == target_column:
        raise DataError(
            f"expected two different columns counted from 1, got source_column = {source_column} and "
            f"target_column = {target_column}"
        )
    a, b = source_column - 1, target_column - 1
    sources, targets, places = [], [], []
    for number, line in enumerate(split_lines(decode(data, name)), 1):
        cells = line.split("\t")
        if len(cells) < needed:
            if not line.strip():
                continue
            raise DataError(
                f"{name}: line {number}: expected {needed} columns or more separated by tabs, got {len(cells)}; of "
                "translations in a file of their own give target_suffix, the end of its name"
            )
        one, other = cells[a].strip(), cells[b].strip()
        if not one or not other:
            if not one and not other:
                continue
            raise DataError(
                f"{name}: line {number}: column {target_column if one else source_column} is empty; "
                "fill or delete the line"
            )
        sources.append(one)
        targets.append(other)
        places.append(f"{name}: line {number}")
    if not sources:
        raise DataError(f"{name}: no sentence in it")
    return Examples(name, "text", sources, "text", targets, places, notes=notes)


def _member(data: bytes, name: str, member: str | None) -> tuple[bytes, str, tuple[str, ...]]:
    """(the contents of a member of a zip, its name, what was guessed)."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [file for file in archive.infolist() if not file.is_dir()]
            names = [file.filename for file in files]
            notes: tuple[str, ...] = ()
            if member is None:
                texts = [file for file in files if PurePosixPath(file.filename).suffix.lower() in _TEXTS]
                texts.sort(key=lambda file: -file.file_size)
                if not texts or (len(texts) > 1 and texts[1].file_size * 10 > texts[0].file_size):
                    raise DataError(f"{name}: which file in it? name its member: {', '.join(names) or 'it is empty'}")
                member = texts[0].filename
                notes = (f"{name}: reading {member} in it, the largest text",)
            elif member not in names:
                raise DataError(f"{name}: no member {member} in it; there is {', '.join(names)}")
            return archive.read(member), f"{name}/{member}", notes
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:  # encrypted, say
        raise DataError(f"{name}: damaged zip: {reason_of(error)}") from error
