"""A program: Keras loads a model, runs it on inputs, and writes what comes out.

    keras_program.py MODEL.keras INPUTS.npz OUTPUTS.npz

It is a process of its own, run by keras_out.py, because Keras can have one backend in a process, for good, and that is
the caller's. The last line that it prints says which Keras ran. It ends with 3 if Keras cannot be imported.
"""

import sys
from typing import Any

import numpy as np


def main() -> None:
    """Load, run, write."""
    path, inputs, outputs = sys.argv[1:]
    try:
        import keras
    except Exception as error:  # whatever the backend raises
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(3)
    model: Any = keras.saving.load_model(path, compile=False)
    with np.load(inputs) as given:
        results: dict[str, Any] = {
            name: keras.ops.convert_to_numpy(model(given[name], training=False)) for name in given
        }
    np.savez(outputs, **results)
    print(f"Keras {keras.__version__} ({keras.backend.backend()})")


if __name__ == "__main__":
    main()
