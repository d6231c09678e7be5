"""The README is part of the build: its table is config.toml's, its commands exist, its example runs."""

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from captioner import commands
from captioner.__main__ import arguments, main

ROOT = Path(__file__).parents[1]
README, *DOCS = (
    (ROOT / name).read_text("utf-8")
    for name in ("README.md", "docs/settings.md", "docs/training.md", "docs/learning.md")
)
COMMANDS = [
    line.split("  #")[0].strip()
    for text in (README, *DOCS)
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


def settings() -> list[str]:
    """A row of the table for every setting, from config.toml's comments."""
    rows, section, words = [], "", ""
    for line in (ROOT / "config.toml").read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line.startswith("#"):
            words = line.removeprefix("#").strip()
        elif " = " in line:
            key, value = line.split(" = ", 1)
            rows.append(f"| `{section}.{key}` | `{value}` | {words} |")
    return rows


def test_the_table_of_settings_is_config_toml() -> None:
    chosen, table = (
        [line for line in text.splitlines() if re.match(r"\| `\w+\.\w+` \|", line)] for text in (README, DOCS[0])
    )
    assert table == settings()
    assert chosen
    assert set(chosen) < set(table)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("command", [c for c in COMMANDS if "-m captioner" in c])
def test_captioner_commands_parse(command: str) -> None:
    words = shlex.split(command.split("-m captioner", 1)[1])
    assert callable(getattr(commands, arguments().parse_args(words).run))


def test_the_json_example_has_the_keys_that_come_out(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = json.loads(re.search(r"```json\n(.*?)```", README, re.DOTALL).group(1))  # type: ignore[union-attr]
    Image.new("RGB", (60, 40), "teal").save(tmp_path / "a.jpg")
    main(["caption", str(tmp_path), "--json", "--model", str(tiny_model)])
    line = json.loads(capsys.readouterr().out)
    assert list(line) == list(example)
    assert list(line["captions"][0]) == list(example["captions"][0])


def test_every_file_that_is_linked_is_there() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        links = re.findall(r"\]\((?!http)([^)#]+)[)#]", page.read_text("utf-8"))
        assert links or page.name == "settings.md"
        assert [link for link in links if not (page.parent / link).exists()] == [], page
