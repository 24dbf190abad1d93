"""What the tests of the commands share: running one that is to be refused, or that prints a JSON document."""

import json
from typing import Any

import pytest

from gatewise.cli.main import main


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]):
    """Runs a command that is to be refused: its one line on stderr."""

    def run_it(*arguments: object, status: int = 2) -> str:
        assert main([str(argument) for argument in arguments]) == status
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("gatewise: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        return err.removeprefix("gatewise: ").rstrip("\n")

    return run_it


@pytest.fixture
def document(capsys: pytest.CaptureFixture[str]):
    """Runs a command with --json: the one document on stdout."""

    def run_it(*arguments: object) -> dict[str, Any]:
        assert main([*(str(argument) for argument in arguments), "--json"]) == 0
        out = capsys.readouterr().out
        assert out.isascii()
        return json.loads(out)

    return run_it
