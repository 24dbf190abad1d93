"""The report on a run: one HTML file that opens without a network, says how good the model is and how it got there.

    run folder  ->  Run  ->  the task's page: summary, key figures, sections  ->  report.html.j2  ->  report.html

Of each task a module gathers what is shown (see `PAGES`): UNIT and LOSS, rank, title, summary, key_figures,
next_command, and SECTIONS, functions by the titles of their sections. A section's macro has the function's name; it
lies in the template of the module's name, or in `sections.html.j2` if all tasks have it.
"""

import importlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from gatewise.errors import RunError
from gatewise.gates.numbers import duration, moment, plain, significant, storage
from gatewise.gates.run import read_run
from gatewise.run_folder import RunFolder, atomic_write

PAGES = {  # of each task the module of its page
    "language-model": "language_report",
    "classifier": "classifier_report",
    "tagger": "tagger_report",
    "translator": "translator_report",
    "forecaster": "forecaster_report",
}


def write_report(run: str | Path) -> Path:
    """Path of the report.html that it writes from what the run folder `run` holds so far.

    Raises RunError if the folder is missing, damaged or of a newer version, holds a model that was not trained here,
    or the report cannot be written.
    """
    folder = RunFolder(run)
    task = folder.check_existing()
    if task not in PAGES:
        raise RunError(f"{folder.path}: there is no report on a {task}; only on what was trained: {', '.join(PAGES)}")
    page: Any = importlib.import_module(f"gatewise.gates.{PAGES[task]}")
    read = read_run(folder, unit=page.UNIT, loss_name=page.LOSS, rank=page.rank)
    gathered = [(gather.__name__, title, gather(read)) for gather, title in page.SECTIONS.items()]
    html = _template().render(
        run=read,
        template=f"{PAGES[task]}.html.j2",
        title=page.title(read),
        summary=page.summary(read),
        key_figures=page.key_figures(read),
        sections=[section for section in gathered if section[2] is not None],
        next_command=page.next_command(read),
    )
    atomic_write(folder.report, html.encode("utf-8", "replace"))  # a sample may hold half of a surrogate pair
    return folder.report


def _template() -> Template:
    """The page's template; whatever it prints is escaped, but the drawings."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for write in (duration, moment, plain, significant, storage):
        templates.filters[write.__name__] = write
    return templates.get_template("report.html.j2")
