"""The composition root: opens store, engine and adapters, hands them to each other, and closes them in reverse."""

import argparse
import asyncio
import errno
import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from adapters.web_chat import WebChat
from bot import config as configuration
from bot import logs
from bot.config import Config, ConfigError, Web
from bot.database import StoreError, beside
from bot.events import Adapter, Chat, Expected, Finding
from bot.health import Health
from bot.learn import commands, versions
from bot.learn.learner import Learner
from bot.learn.retraining import Retraining
from bot.ratings import KINDS, BlindRatings, SheetError, exported, report
from bot.ratings.rows import all_of
from bot.service import Service
from bot.store import Store
from bot.store import chats as known_chats
from bot.supervisor import supervise

log = logging.getLogger("bot")

COMMANDS = """commands:
  run                    start the bot; what happens when no command is given
  doctor                 say in plain words what is there and what is missing
  retrain                learn from the votes now; beside a running bot, or without one
  models                 list, promote ID or rollback: the models there are, and which one serves
  export-labels FILE     memes and their votes as JSON lines
  ratings [FILE]         what people's blind ratings come to; each of them into FILE, .csv or .jsonl
  forget PLATFORM:USER   remove everything of a user from the store; the bot must not be running"""
WORDS = {"run": 0, "doctor": 0, "retrain": 0, "models": 2, "export-labels": 1, "ratings": 1, "forget": 1}
"""The commands, and how many words each takes before settings."""
PLATFORMS = ("discord", "telegram", "web")
DAY = 86_400
SWITCH = 0.0005
"""Seconds that the event loop waits for a thread that computes in Python. By default it is ten times as much, and is
waited for at every turn: a hundred users who write at once would notice."""
STUCK = 30.0
"""Seconds beyond `stop.grace` after which a stop that does not end is ended: every row is written by then."""
PRUNE_EVERY = 3600
"""Seconds between two looks for pictures that are not to be kept any longer."""


class StartError(Exception):
    """The bot cannot start; `str(error)` is a sentence."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 after a clean stop, 1 where something is missing or broke, 2 for settings that cannot be."""
    options = _arguments().parse_intermixed_args(argv)
    command, before, words = "run", list[str](), list[str]()
    overrides = list(options.words)
    while overrides and "=" in overrides[0]:  # settings may come before the command: the container's do
        before.append(overrides.pop(0))
    if overrides and overrides[0] in WORDS:
        command = overrides.pop(0)
    while overrides and "=" not in overrides[0] and len(words) < WORDS[command]:
        words.append(overrides.pop(0))
    try:
        config = configuration.load(options.config, before + overrides, os.environ)
    except ConfigError as error:
        return _say(error, 2)
    logs.setup(config.log, config.secrets())
    try:
        return _done(command, words, config)
    except (StartError, StoreError, SheetError, Expected) as error:
        return _say(error, 1)


def _done(command: str, words: Sequence[str], config: Config) -> int:
    match command:
        case "doctor":
            return _doctor(config)
        case "forget":
            return asyncio.run(_forget(config, "".join(words)))
        case "ratings":
            return _tell_ratings(config, "".join(words))
        case "retrain":
            return asyncio.run(commands.retrain(config))
        case "models":
            return commands.models(config, words)
        case "export-labels":
            return _export(config, words)
    return asyncio.run(run(config))


async def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; then finish what was accepted."""
    stop = _on_signals()
    sys.setswitchinterval(SWITCH)
    async with AsyncExitStack() as stack:
        health = Health()
        store = await stack.enter_async_context(Store(config.store.path))
        web = await _started_web(config, health, _ratings(config, store))
        stack.push_async_callback(web.close)
        from bot.engine import Engine  # here, because torch takes seconds that other failures need not wait for

        engine = await stack.enter_async_context(Engine(config, first=await _promoted(config, store)))
        health.watch("model", alive=lambda: engine.alive, ready=lambda: engine.ready)
        health.watch_queue(lambda: engine.waiting)
        service = Service(engine, store, health, config.reply, config.learn)
        learner = Learner(config, engine, store, health, Retraining(config, lambda: engine.busy))
        service.on_votes(learner.voted)
        health.watch(web.name, ready=lambda: web.ready)
        adapters = [asyncio.create_task(web.run(service), name=web.name)]
        adapters += [_supervised(adapter, service, health) for adapter in _chats(config)]
        chores = [
            asyncio.create_task(_prune(store, config.store.keep_pictures), name="pruning"),
            asyncio.create_task(learner.run(), name="learning"),
        ]
        print(f"Quipbot is ready: {web.address}", flush=True)
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, *adapters], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        faulthandler.dump_traceback_later(config.stop.grace + STUCK, exit=True)  # and says where every thread stands
        failed = [task.get_name() for task in adapters if task.done()]
        service.close()
        for task in (stopping, *chores, *adapters):
            task.cancel()
        ended = await asyncio.gather(engine.drain(), *adapters, *chores, stopping, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            log.error("a part of the bot broke", exc_info=error)
    if failed:
        raise StartError(f"The bot stopped, because a part of it broke: {', '.join(failed)}. The log says why.")
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bot",
        description="Quipbot answers a posted picture with a meme.",
        epilog=COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="[command] section.key=value", help="a command, and settings")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings; config.toml where there is one")
    return parser


def _doctor(config: Config) -> int:
    from bot import doctor  # torch again

    findings = asyncio.run(_examined(config))
    return 0 if doctor.report(config, findings) else 1


async def _examined(config: Config) -> list[Finding]:
    """What the platforms say of the bot."""
    chats = _chats(config)
    found = [await chat.examine(known_chats(config.store.path, chat.name)) for chat in chats]
    names = {chat.name for chat in chats}
    found += [[Finding(name, True, "no token, so it is off")] for name in ("discord", "telegram") if name not in names]
    return [finding for findings in found for finding in findings]


async def _forget(config: Config, who: str) -> int:
    """Remove a user from the store."""
    platform, colon, user = who.partition(":")
    if not (platform and colon and user):
        print("Say whom to forget, as PLATFORM:USER, for example discord:80351110224678912.", file=sys.stderr)
        return 2
    if platform not in PLATFORMS:
        print(f"There is no platform {platform}; there are {', '.join(PLATFORMS)}.", file=sys.stderr)
        return 2
    if not config.store.path.exists():
        raise StartError(f"There is no database {config.store.path}, so nobody can be forgotten there: see store.path.")
    async with Store(config.store.path) as store:
        gone = await store.forget(platform, user, time.time())
    print(gone)
    return 0


def _tell_ratings(config: Config, file: str) -> int:
    """Print what ratings come to; write each of them into the file where one is named. The bot may be running."""
    if not config.rate.folder:
        raise StartError("There is nothing to rate: name a folder of memes with rate.folder.")
    with beside(config.store.path) as database:
        rows = all_of(database)
    if file:
        kind = Path(file).suffix
        if kind not in KINDS:
            raise StartError(f"Ratings are written as {' or '.join(KINDS)}, not as {file}.")
        try:
            Path(file).write_text(exported(Path(config.rate.folder), rows, kind), "utf-8")
        except OSError as error:
            raise StartError(f"{file} cannot be written: {error.strerror}.") from error
    print(report(Path(config.rate.folder), rows))
    return 0


def _export(config: Config, words: Sequence[str]) -> int:
    if not words:
        print("Say where the labels go, as export-labels FILE.", file=sys.stderr)
        return 2
    try:
        return commands.export_labels(config, Path(words[0]))
    except OSError as error:
        raise StartError(f"{words[0]} cannot be written: {error.strerror}.") from error


def _say(error: Exception, status: int) -> int:
    print(error, file=sys.stderr)
    return status


def _on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the second one ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


def _ratings(config: Config, store: Store) -> BlindRatings | None:
    """What people rate at /rate; raises `SheetError` for a folder without memes."""
    return BlindRatings(Path(config.rate.folder), store, config.rate.show) if config.rate.folder else None


async def _started_web(config: Config, health: Health, ratings: BlindRatings | None) -> WebChat:
    """The HTTP server, bound; raises `StartError` where it cannot be."""
    web = WebChat(
        config.web.host,
        config.web.port,
        token=config.web.token.reveal() or None,
        chat=config.web.chat,
        max_bytes=config.images.max_bytes,
        health=health,
        allowed_hosts=config.web.allowed_hosts,
        spool=config.store.folder / "spool",
        ratings=ratings,
    )
    try:
        await web.start()
    except OSError as error:
        raise StartError(_cannot_listen(config.web, error)) from error
    return web


def _cannot_listen(web: Web, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {web.port} of {web.host} is in use; stop what uses it, or choose another with web.port=…"
    return f"The page cannot be served at {web.host}:{web.port}: {error.strerror or error}."


def _chats(config: Config) -> list[Chat]:
    """The adapters of the platforms that a token is set for; their SDKs are loaded only then."""
    chats: list[Chat] = []
    if config.discord.token:
        from adapters.discord_chat import DiscordChat

        discord = config.discord
        chats.append(
            DiscordChat(
                discord.token.reveal(),
                api_base=discord.api_base,
                gateway_url=discord.gateway_url,
                message_content=discord.message_content,
                sharded_from=discord.sharded_from,
                max_bytes=config.images.max_bytes,
            )
        )
    if config.telegram.token:
        chats.append(_telegram(config))
    return chats


def _telegram(config: Config) -> Chat:
    from adapters.telegram_chat import TelegramChat, Webhook

    telegram = config.telegram
    secret = telegram.webhook_secret.reveal()
    webhook = Webhook(telegram.webhook_url, telegram.webhook_host, telegram.webhook_port, secret)
    return TelegramChat(
        telegram.token.reveal(),
        api_base=telegram.api_base,
        file_base=telegram.file_base,
        webhook=webhook if telegram.webhook_url else None,
    )


async def _promoted(config: Config, store: Store) -> str:
    """The checkpoint that is to serve instead of `captioner.model`, or ""."""
    promoted = (await store.serving(config.captioner.model)).model
    return str(versions.file(config.store.path, promoted)) if promoted else ""


def _supervised(adapter: Adapter, service: Service, health: Health) -> asyncio.Task[None]:
    health.watch(adapter.name, ready=lambda: adapter.ready)
    return asyncio.create_task(supervise(adapter, service), name=adapter.name)


async def _prune(store: Store, days: int) -> None:
    """Forget old pictures, at the start and every hour."""
    while True:
        try:
            await store.prune(time.time() - days * DAY)
        except Exception:
            log.exception("old pictures could not be removed")
        await asyncio.sleep(PRUNE_EVERY)


if __name__ == "__main__":
    sys.exit(main())
