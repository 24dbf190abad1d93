"""The files of a C artifact, from a program and the templates beside this file."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import gatewise
from gatewise.interchange.c.arrays import Array
from gatewise.interchange.c.program import Program
from gatewise.interchange.parity import Case

Weights = Literal["float32", "int8"]


def write_library(
    folder: Path, name: str, program: Program, weights: Weights, layer_lines: list[str], description: str
) -> None:
    """Write NAME.h, NAME.c and README.md."""
    values = {
        "name": name,
        "NAME": name.upper(),
        "program": program,
        "uses": program.uses,
        "weights": weights,
        "int8": weights == "int8",
        "version": gatewise.__version__,
        "layer_lines": [_comment(line) for line in layer_lines],
        "description": _comment(description),
        "body": _body,
    }
    for template, file in (("model.h.j2", f"{name}.h"), ("model.c.j2", f"{name}.c"), ("README.md.j2", "README.md")):
        _write(folder / file, template, values)


def write_selftest(folder: Path, name: str, program: Program, case: Case, tolerance: float) -> None:
    """Write selftest.c, with a case of one row."""
    states = [field for field in program.fields if field.name]
    arrays = [Array("inputs", "", case.inputs["x"].astype(np.int32 if program.reads_tokens else np.float32))]
    arrays.append(Array("outputs", "", case.outputs["y"].astype(np.float32)))
    for field in states:
        assert field.name is not None
        arrays.append(Array(f"first_{field.identifier}", "", case.inputs[field.name]))
        arrays.append(Array(f"last_{field.identifier}", "", case.outputs[f"new_{field.name}"].astype(np.float32)))
    values = {"name": name, "program": program, "states": states, "arrays": arrays}
    values |= {"steps": len(case.inputs["x"]), "tolerance": f"{tolerance:.3e}"}
    _write(folder / "selftest.c", "selftest.c.j2", values)


def write_driver(path: Path, name: str, program: Program) -> None:
    """Write the program that runs the library on cases from its standard input."""
    states = [field for field in program.fields if field.name]
    _write(path, "driver.c.j2", {"name": name, "program": program, "states": states})


def _write(path: Path, template: str, values: dict[str, Any]) -> None:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    path.write_text(environment.get_template(template).render(values), encoding="utf-8")


def _body(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


def _comment(text: str) -> str:
    """A text as it can stand in a comment of C, in one line."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return plain.replace("*/", "* /").replace("/*", "/ *").replace("??/", "?? /").strip()
