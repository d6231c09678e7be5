"""Settings: TOML and `section.key=value` into frozen dataclasses. What each one means stands in config.toml.

A misspelt key, a wrong type or a value out of range stops the start by name. Secrets come from the environment first.
"""

import dataclasses
import difflib
import ipaddress
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bot import emoji
from bot.events import BadRequest

DEFAULT_FILE = Path("config.toml")


class ConfigError(Exception):
    """A setting that cannot be meant; `str(error)` is a sentence that names it and holds no secret."""


class Secret:
    """A text that does not print; false when empty."""

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret('**********')"

    def __str__(self) -> str:
        return "**********"


def within(default: Any, low: float, high: float) -> Any:
    """A number's field that is checked to lie between `low` and `high`, both included."""
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class Web:
    host: str = "127.0.0.1"
    port: int = within(8080, 0, 65535)
    chat: bool = True
    token: Secret = field(default_factory=Secret)
    allowed_hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Store:
    path: Path = Path("data/quipbot.db")
    keep_pictures: int = within(7, 0, 36500)

    @property
    def folder(self) -> Path:
        """Where everything lies that the bot writes."""
        return self.path.parent


@dataclass(frozen=True)
class Captioner:
    model: str = ""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int = within(0, 0, 1024)
    proofreader: str = ""


@dataclass(frozen=True)
class Ranking:
    likelihood: float = within(1.0, 0.0, 100.0)
    reward: float = within(6.0, 0.0, 1000.0)
    matching: float = within(8.0, 0.0, 100.0)
    voice: float = within(2.0, 0.0, 100.0)
    taste: float = within(60.0, 0.0, 1000.0)
    aptness: float = within(2.0, 0.0, 100.0)
    residual: float = within(7.0, 0.0, 100.0)
    fluency: float = within(2.0, 0.0, 100.0)


@dataclass(frozen=True)
class Engine:
    queue: int = within(64, 1, 100_000)
    batch: int = within(8, 1, 256)
    wait_ms: int = within(5, 0, 10_000)
    fetch_timeout: float = within(30.0, 0.001, 3600)


@dataclass(frozen=True)
class Images:
    max_bytes: int = within(20_000_000, 1_000, 1_000_000_000)
    max_pixels: int = within(50_000_000, 1_000, 1_000_000_000)


@dataclass(frozen=True)
class Draw:
    font: str = ""
    max_side: int = within(2048, 64, 16_384)
    quality: int = within(90, 1, 95)


@dataclass(frozen=True)
class Reply:
    passive: bool = False
    chance: float = within(1.0, 0, 1)
    cooldown: float = within(0.0, 0, 1e9)
    cooldown_user: float = within(0.0, 0, 1e9)
    filter: Literal["strict", "normal", "off"] = "normal"
    emoji: tuple[str, ...] = ("👍", "👎")
    explore: float = within(0.1, 0, 1)


@dataclass(frozen=True)
class Learn:
    up: tuple[str, ...] = ("👍", "😂", "🤣", "😁", "❤️", "🔥")
    down: tuple[str, ...] = ("👎", "💩", "😐")
    every: float = within(24.0, 0.0, 8760.0)
    least: int = within(50, 1, 1_000_000)
    data: tuple[str, ...] = ()
    recipe: tuple[str, ...] = ()
    memory_mb: int = within(4096, 256, 1_000_000)
    keep: int = within(10, 1, 1000)
    trial_share: float = within(0.0, 0.0, 1.0)
    trial_days: float = within(7.0, 0.0, 365.0)


@dataclass(frozen=True)
class Rate:
    folder: str = ""
    show: Literal["single", "pairs"] = "single"


@dataclass(frozen=True)
class Discord:
    token: Secret = field(default_factory=Secret)
    message_content: bool = False
    sharded_from: int = within(1000, 1, 1_000_000)
    api_base: str = "https://discord.com/api/v10"
    gateway_url: str = ""


@dataclass(frozen=True)
class Telegram:
    token: Secret = field(default_factory=Secret)
    api_base: str = "https://api.telegram.org/bot"
    file_base: str = "https://api.telegram.org/file/bot"
    webhook_url: str = ""
    webhook_secret: Secret = field(default_factory=Secret)
    webhook_host: str = "127.0.0.1"
    webhook_port: int = within(8443, 0, 65535)


@dataclass(frozen=True)
class Log:
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


@dataclass(frozen=True)
class Stop:
    grace: float = within(20.0, 0, 3600)


@dataclass(frozen=True)
class Config:
    web: Web = field(default_factory=Web)
    store: Store = field(default_factory=Store)
    captioner: Captioner = field(default_factory=Captioner)
    ranking: Ranking = field(default_factory=Ranking)
    engine: Engine = field(default_factory=Engine)
    images: Images = field(default_factory=Images)
    draw: Draw = field(default_factory=Draw)
    reply: Reply = field(default_factory=Reply)
    learn: Learn = field(default_factory=Learn)
    rate: Rate = field(default_factory=Rate)
    discord: Discord = field(default_factory=Discord)
    telegram: Telegram = field(default_factory=Telegram)
    log: Log = field(default_factory=Log)
    stop: Stop = field(default_factory=Stop)

    def secrets(self) -> list[Secret]:
        """Every secret that is set."""
        values = (getattr(getattr(self, name), key) for name, section in SECTIONS.items() for key in types_of(section))
        return [value for value in values if isinstance(value, Secret) and value]


def types_of(section: type) -> dict[str, Any]:
    """The names and types of a section's settings, without its properties."""
    hints = typing.get_type_hints(section)
    return {entry.name: hints[entry.name] for entry in dataclasses.fields(section)}


SECTIONS: dict[str, type] = types_of(Config)


def load(file: Path | None, overrides: Iterable[str], environ: Mapping[str, str]) -> Config:
    """The settings of `file` (None: config.toml where there is one), changed by `section.key=value`s.

    Raises `ConfigError`.
    """
    if file is None and DEFAULT_FILE.is_file():
        file = DEFAULT_FILE
    given: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for name, table in (_parsed(file) if file else {}).items():
        _known(name, SECTIONS, "section")
        if not isinstance(table, dict):
            raise ConfigError(f"{name} is a section, so write its settings below [{name}].")
        for key, value in table.items():
            given[name][key] = _checked(name, key, value)
    for override in overrides:
        name, key, text = _split(override)
        given[name][key] = _checked(name, key, _from_text(name, key, text))
    _take_secrets(given, environ)
    config = Config(**{name: section(**given[name]) for name, section in SECTIONS.items()})
    _check_reach(config.web)
    _check_words(config)
    return config


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration {file} is not valid TOML: {error}.") from error


def _known(name: str, names: Iterable[str], what: str, prefix: str = "") -> None:
    if name in names:
        return
    nearest = difflib.get_close_matches(name, list(names), n=1, cutoff=0)
    raise ConfigError(f"There is no {what} {prefix}{name}; the nearest is {prefix}{nearest[0]}.")


def _split(override: str) -> tuple[str, str, str]:
    """`web.port=80` → ("web", "port", "80")."""
    path, equals, text = override.partition("=")
    name, dot, key = path.partition(".")
    if not equals or not dot:
        # Only what stands before the "=" is repeated: the rest could be a secret.
        raise ConfigError(f"{path} is neither a command nor a setting; write section.key=value.")
    _known(name, SECTIONS, "section")
    return name, key, text


def _from_text(name: str, key: str, text: str) -> object:
    """An override's value as TOML would have given it; what is no literal stays text and fails the type's check."""
    _known(key, types_of(SECTIONS[name]), "setting", f"{name}.")
    kind = types_of(SECTIONS[name])[key]
    if typing.get_origin(kind) is tuple and not text.startswith("["):
        return [word.strip() for word in text.split(",") if word.strip()]
    if kind in (str, Path, Secret) or typing.get_origin(kind) is Literal:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _checked(name: str, key: str, value: object) -> object:
    """The value as the field wants it; raises `ConfigError` that names the setting, never showing the value."""
    _known(key, types_of(SECTIONS[name]), "setting", f"{name}.")
    kind = types_of(SECTIONS[name])[key]
    metadata = next(entry.metadata for entry in dataclasses.fields(SECTIONS[name]) if entry.name == key)
    converted = _converted(value, kind)
    if converted is None:
        raise ConfigError(f"{name}.{key} must be {_in_words(kind)}.")
    if "low" in metadata and not metadata["low"] <= converted <= metadata["high"]:
        raise ConfigError(f"{name}.{key} must lie between {metadata['low']:g} and {metadata['high']:g}.")
    return converted


def _converted(value: object, kind: Any) -> Any:
    """None where the value is not of that kind."""
    if typing.get_origin(kind) is Literal:
        return value if isinstance(value, str) and value in typing.get_args(kind) else None
    if typing.get_origin(kind) is tuple:
        return tuple(value) if isinstance(value, list) and all(isinstance(word, str) for word in value) else None
    if kind is Path:
        return Path(value) if isinstance(value, str) and value else None
    if kind is Secret:
        return Secret(value) if isinstance(value, str) else None
    if kind is float and type(value) is int:
        return float(value)
    return value if type(value) is kind else None


def _in_words(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    words = {
        str: "text",
        Path: "a path",
        Secret: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
    }
    return words.get(kind, "a list of texts")


def _take_secrets(given: dict[str, dict[str, Any]], environ: Mapping[str, str]) -> None:
    """SECTION_KEY in the environment is the secret section.key, whatever the file says."""
    for name, section in SECTIONS.items():
        for key, kind in types_of(section).items():
            text = environ.get(f"{name}_{key}".upper())
            if kind is Secret and text:
                given[name][key] = Secret(text)


def _check_reach(web: Web) -> None:
    if web.token or is_loopback(web.host):
        return
    raise ConfigError(
        f"web.host={web.host} can be reached by other machines, so a token is needed: set WEB_TOKEN, or use 127.0.0.1."
    )


def _check_words(config: Config) -> None:
    """What would turn out to mean nothing only when it is needed: emoji, and what to learn from and how."""
    learn = config.learn
    for key, words in (("reply.emoji", config.reply.emoji), ("learn.up", learn.up), ("learn.down", learn.down)):
        for word in words:
            if emoji.known(word) is None:
                raise ConfigError(f"{key} takes emoji, not {word}.")
    try:
        emoji.Ballot.of(learn.up, learn.down)
    except BadRequest as error:
        raise ConfigError(str(error)) from error
    for key, form, words in (("data", "NAME=DIR", learn.data), ("recipe", "key=value", learn.recipe)):
        for word in words:
            if not all(word.partition("=")):
                raise ConfigError(f"learn.{key} takes {form}, not {word}.")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
