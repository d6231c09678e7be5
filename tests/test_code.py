"""The checks a maintainer runs by hand, as tests: imports between packages, lint, format, types."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    ["lint-imports --no-cache", "ruff check --no-cache .", "ruff format --no-cache --check .", "mypy"],
    ids=lambda c: c.split()[0] + ("-format" if "format" in c else ""),
)
def test_code_keeps_its_rules(command: str) -> None:
    tool, *arguments = command.split()
    done = subprocess.run([TOOLS / tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
