import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import config
from bot.config import SECTIONS, Config, ConfigError, Secret, load, types_of

FILE = Path(__file__).parents[2] / "config.toml"


def settings() -> list[tuple[str, str]]:
    return [(name, key) for name, section in SECTIONS.items() for key in types_of(section)]


def write(folder: Path, text: str) -> Path:
    file = folder / "config.toml"
    file.write_text(text)
    return file


def test_file_holds_every_setting_with_its_default() -> None:
    listed = tomllib.loads(FILE.read_text())
    assert [(name, key) for name, table in listed.items() for key in table] == settings()
    assert load(FILE, [], {}) == Config()


def test_every_setting_has_a_line_of_documentation() -> None:
    lines = FILE.read_text().splitlines()
    for number, line in enumerate(lines):
        if " = " in line and not line.startswith("#"):
            comment = lines[number - 1]
            assert comment.startswith("# "), line
            assert comment.endswith("."), line


def test_defaults_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, [], {}) == Config()
    write(tmp_path, "[web]\nport = 9")
    assert load(None, [], {}).web.port == 9


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[web]\nprot = 1", "There is no setting web.prot; the nearest is web.port."),
        ("[wbe]\nport = 1", "There is no section wbe; the nearest is web."),
        ("web = 1", "web is a section, so write its settings below [web]."),
        ("[web]\nport = '80'", "web.port must be a whole number."),
        ("[web]\nport = true", "web.port must be a whole number."),
        ("[web]\nport = 65536", "web.port must lie between 0 and 65535."),
        ("[web]\nchat = 1", "web.chat must be true or false."),
        ("[web]\nallowed_hosts = 'a'", "web.allowed_hosts must be a list of texts."),
        ("[captioner]\ndevice = 'gpu'", "captioner.device must be one of auto, cpu, cuda, mps."),
        ("[reply]\nchance = 2", "reply.chance must lie between 0 and 1."),
        ("[store]\npath = ''", "store.path must be a path."),
        ("[reply]\nchance = nan", "reply.chance must lie between 0 and 1."),
        ("[reply]\nemoji = ['👍', 'x']", "reply.emoji takes emoji, not x."),
        ("[learn]\nup = ['abc']", "learn.up takes emoji, not abc."),
        ("[learn]\ndown = ['']", "learn.down takes emoji, not ."),
        (
            "[learn]\nup = ['👍', '🔥']\ndown = ['👍🏽']",
            "👍 cannot be a vote for and against a meme: see learn.up and learn.down.",
        ),
        ("[learn]\ndata = ['x']", "learn.data takes NAME=DIR, not x."),
        ("[learn]\nrecipe = ['rate=']", "learn.recipe takes key=value, not rate=."),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(tmp_path, text), [], {})
    assert str(error.value) == sentence


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "missing.toml", [], {})
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(write(tmp_path, "web ="), [], {})


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "[web]\nport = 1\n[reply]\nchance = 1")
    overrides = ["web.port=2", "reply.chance=0.5", "web.chat=false", "web.allowed_hosts=a.example, b.example"]
    loaded = load(file, [*overrides, "store.path=x=y.db", "captioner.device=cpu"], {})
    assert (loaded.web.port, loaded.reply.chance, loaded.web.chat) == (2, 0.5, False)
    assert loaded.web.allowed_hosts == ("a.example", "b.example")
    assert (loaded.store.path, loaded.captioner.device) == (Path("x=y.db"), "cpu")


@pytest.mark.parametrize(
    "override", ["docter", "web.port", "web=1", "web.port=x", "web.por=1", "x.y=1", "learn.recipe=bogus"]
)
def test_bad_overrides(override: str) -> None:
    with pytest.raises(ConfigError):
        load(FILE, [override], {})


def test_environment_wins_for_secrets(tmp_path: Path) -> None:
    file = write(tmp_path, "[web]\ntoken = 'from-file'")
    assert load(file, [], {}).web.token.reveal() == "from-file"
    assert load(file, ["web.token=typed"], {"WEB_TOKEN": "from-env"}).web.token.reveal() == "from-env"
    assert load(file, [], {"WEB_PORT": "1"}).web.port == 8080


@given(st.text(min_size=8))
def test_secrets_never_print(text: str) -> None:
    loaded = dataclasses.replace(Config(), web=config.Web(token=Secret(text)))
    for shown in (repr(loaded), str(loaded), f"{loaded.web.token}", repr(loaded.web.token)):
        assert text not in shown or text in repr(Config())
    assert loaded.secrets() == [Secret(text)]


def test_errors_hold_no_secret(tmp_path: Path) -> None:
    for file, overrides in ((write(tmp_path, "[web]\ntoken = 12345678"), []), (FILE, ["token=12345678"])):
        with pytest.raises(ConfigError) as error:
            load(file, overrides, {})
        assert "12345678" not in str(error.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org", ""])
def test_reach_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="token"):
        load(FILE, [f"web.host={host}"], {})
    assert load(FILE, [f"web.host={host}"], {"WEB_TOKEN": "long enough"}).web.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert load(FILE, [f"web.host={host}"], {}).web.host == host


@given(
    port=st.integers(0, 65535), chance=st.floats(0, 1), chat=st.booleans(), level=st.sampled_from(["debug", "error"])
)
def test_typed_settings_come_back(port: int, chance: float, chat: bool, level: str) -> None:
    texts = [f"web.port={port}", f"reply.chance={chance!r}", f"web.chat={str(chat).lower()}", f"log.level={level}"]
    loaded = load(FILE, texts, {})
    assert (loaded.web.port, loaded.reply.chance, loaded.web.chat, loaded.log.level) == (port, chance, chat, level)
