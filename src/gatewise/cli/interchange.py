"""The commands `gatewise export`, `import` and `convert`: models and weights to other libraries and from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from gatewise.errors import InputError

if TYPE_CHECKING:
    from gatewise.interchange.parity import Parity

_JSON = Parameter(name="--json", help="Print one JSON document; everything else goes to standard error.")


def export_run(
    run: Annotated[Path, Parameter(help="The folder of a run.")],
    format: Annotated[Literal["torch", "onnx", "keras", "c"], Parameter(help="What to write.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="The folder for the artifact and its proof.")],
    weights: Annotated[Literal["float32", "int8"], Parameter(help="How C holds the weights.")] = "float32",
    overwrite: Annotated[bool, Parameter(help="Replace the folder that is there.")] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """The command `gatewise export`."""
    from gatewise.cli import terminal
    from gatewise.interchange.formats import export

    parity = export(run, format, out, weights=weights, overwrite=overwrite)
    if as_json:
        terminal.print_json({**parity.to_json(), "folder": str(out)})
        return
    console = terminal.console()
    terminal.print_rows(console, _proof(parity))
    files = sorted(file for file in out.iterdir() if file.is_file())
    terminal.print_rows(console, {file.name: f"{file.stat().st_size:,} bytes" for file in files})


def _proof(parity: "Parity") -> dict[str, str]:
    """The rows that say what came of an artifact when it was run."""
    if parity.runtime is None:
        return {"parity": f"NOT RUN: {parity.why_not_run}; nothing is known of how near it comes to the model"}
    largest = max(parity.errors.values(), default=0.0)
    return {
        "parity": f"{parity.verdict}: largest error {largest:.2g}, allowed {parity.tolerance:.2g}",
        "run in": f"{parity.runtime}, {len(parity.cases)} cases",
    }


def import_file(
    file: Annotated[Path, Parameter(help="A model: .onnx, .keras, .h5, or torch's .pt, .pth, .bin, .safetensors.")],
    /,
    *,
    out: Annotated[Path, Parameter(help="The folder for the run.")],
    description: Annotated[
        Path | None, Parameter(help="A TOML file that says what the layers of a torch state dict are.")
    ] = None,
    overwrite: Annotated[bool, Parameter(help="Replace the run in that folder.")] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """The command `gatewise import`."""
    from gatewise.cli import terminal
    from gatewise.interchange.formats import read_network
    from gatewise.training.network import Network

    found = read_network(file, description)
    layers, parameters = found.network.describe(), sum(p.numel() for p in found.network.parameters())
    Network(found.network, source=found.in_words()).save(out, overwrite=overwrite)
    if as_json:
        report = {"run": str(out), "found": found.kind, "layers": layers, "parameters": parameters}
        terminal.print_json({**report, "guessed": found.guesses})
        return
    rows = {"found": found.kind}
    for position, layer in enumerate(layers):
        said = ", ".join(f"{key} {str(value).lower()}" for key, value in layer.items() if key != "kind")
        rows[f"layer {position}"] = f"{layer['kind']}: {said}"
    rows |= {f"guessed {number}": guess for number, guess in enumerate(found.guesses, 1)}
    terminal.print_rows(terminal.console(), {**rows, "parameters": f"{parameters:,}", "run": str(out)})


def convert_file(
    file: Annotated[Path, Parameter(name="weights", help="Arrays by name: .npz, .safetensors, or torch's .pt.")],
    /,
    *,
    source: Annotated[str, Parameter(name="--from", help="Whose convention they keep to: torch, haiku, keras, ...")],
    target: Annotated[str, Parameter(name="--to", help="Whose they shall keep to.")],
    out: Annotated[Path, Parameter(help="The file to write: .npz, .safetensors or .pt.")],
    cell: Annotated[str | None, Parameter(help="gru, lstm or rnn; by default told from names and shapes.")] = None,
    reset: Annotated[str | None, Parameter(help="Of a GRU that can be both: after or before.")] = None,
    nonlinearity: Annotated[str | None, Parameter(help="Of an RNN: tanh or relu.")] = None,
    prefix: Annotated[str, Parameter(help="Take only the arrays whose names begin so.", show_default=False)] = "",
    overwrite: Annotated[bool, Parameter(help="Replace the file that is there.")] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """The command `gatewise convert`."""
    from gatewise.cli import terminal
    from gatewise.interchange import weight_files
    from gatewise.interchange.conversion import convert

    weight_files.check_suffix(out)
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists already; --overwrite replaces it")
    arrays = weight_files.read_arrays(file)
    form = {"cell": cell, "reset": reset, "nonlinearity": nonlinearity, "prefix": prefix}
    converted = convert(arrays, source, target, **form)
    written = weight_files.write_arrays(out, converted)
    shapes = {name: list(array.shape) for name, array in written.items()}
    if as_json:
        terminal.print_json({"file": str(out), "from": source, "to": target, "arrays": shapes})
        return
    terminal.print_rows(terminal.console(), {name: " x ".join(map(str, shape)) for name, shape in shapes.items()})
