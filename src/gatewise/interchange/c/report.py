"""What parity.md says of a C artifact beside its parity: its sizes, and what int8 does to it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gatewise.interchange.c.export import CParity


def in_words(parity: "CParity") -> str:
    """Sections in Markdown."""
    lines = ["", "## How it was run", "", _how(parity), "", *_sizes(parity)]
    if parity.layer_errors:
        lines += ["", *_int8(parity)]
    return "\n".join(lines) + "\n"


def _how(parity: "CParity") -> str:
    if parity.runtime is None:
        return "It was not: see above. `selftest.c` does it on any machine."
    sanitized = (
        "`selftest.c` passed under AddressSanitizer and UndefinedBehaviorSanitizer."
        if parity.sanitized
        else "`selftest.c` passed; this compiler has no sanitizers."
    )
    return f"Each row by itself, whole and, where the network can stream, step by step, with equal bits. {sanitized}"


def _sizes(parity: "CParity") -> list[str]:
    sizes = parity.sizes
    assert sizes is not None
    share = sizes.weights / sizes.weights_float32 if sizes.weights_float32 else 1.0
    after = sizes.multiply_accumulates_after_pooling
    rows = [
        ("weights, in flash", f"{sizes.weights:,} bytes, {share:.3f} of those in float32"),
        ("state, in RAM", f"{sizes.state:,} bytes"),
        *([("scratch of a whole sequence", f"{sizes.scratch:,} bytes a step")] if sizes.scratch else []),
        ("arrays on the stack during a step", f"{sizes.working:,} bytes"),
        (
            "multiply-accumulates",
            f"{sizes.multiply_accumulates:,} a step" + (f", {after:,} an output" if after else ""),
        ),
    ]
    lines = ["## What it takes", "", "| | |", "|---|---|", *(f"| {what} | {much} |" for what, much in rows), ""]
    if not sizes.compiled:
        return [*lines, "No cross compiler was here, so that what its code takes was not measured."]
    lines += ["| target, -O2 | flash, bytes | of it code | static RAM | stack, without libm's | compiler |"]
    lines += ["|---|---|---|---|---|---|"]
    for made in sizes.compiled:
        stack = "unknown" if made.stack is None else f"at most {made.stack:,}"
        lines.append(
            f"| {made.target} | {made.flash:,} | {made.code:,} | {made.static_ram:,} | {stack} | {made.compiler} |"
        )
    return [*lines, "", "Flash is without libm's functions. It was compiled for these targets, not run on them."]


def _int8(parity: "CParity") -> list[str]:
    lines = [
        "## What int8 does to it",
        "",
        "The errors above are against the reference with the weights that int8 holds. The tolerance is 1e-5, and twice "
        "the error that rounding what the weights multiply makes in that reference, in float64, on the same cases: C "
        "rounds the same numbers, but where they lie near the middle of two levels not always the same way.",
        "",
        *["| output | largest error against the model before rounding |", "|---|---|"],
        *(f"| {name} | {error:.2e} |" for name, error in parity.errors_of_model.items()),
        "",
        f"Layer by layer, in float64, on case {parity.cases[0]}, errors against the model before rounding:",
        "",
        *["| layer | weights rounded | inputs of the weights, too |", "|---|---|---|"],
        *(f"| {error.layer} | {error.weights:.2e} | {error.both:.2e} |" for error in parity.layer_errors),
    ]
    if parity.runtime is None:
        return [line for line in lines if "before rounding |" not in line]
    return lines
