"""The package as a whole: its public names, what importing it costs, the direction of its imports, its README."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import gatewise as gw

ROOT = Path(__file__).parents[1]


def test_public_names():
    assert gw.__all__ == [
        "GRU",
        "LSTM",
        "RNN",
        "Classifier",
        "Forecaster",
        "GRUCell",
        "LSTMCell",
        "LanguageModel",
        "MinGRU",
        "MinGRUCell",
        "Network",
        "RNNCell",
        "Tagger",
        "Translator",
        "accelerate",
        "convert",
        "export",
        "import_network",
        "load",
        "release_memory",
    ]
    assert set(gw.__all__) <= set(dir(gw))
    for name in gw.__all__:
        assert getattr(gw, name).__name__ == name


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'gatewise' has no attribute 'GRUU'"):
        _ = gw.GRUU


def test_importing_gatewise_does_not_import_torch():
    code = "import gatewise, sys; dir(gatewise); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_imports_run_downwards():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_readme_holds(tmp_path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
