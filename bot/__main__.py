"""The composition root: opens store, engine and adapters, hands them to each other, and closes them in reverse."""

import argparse
import asyncio
import errno
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
from bot.events import Adapter, Chat, Expected, Finding
from bot.health import Health
from bot.service import Service
from bot.store import Store, StoreError
from bot.store import chats as known_chats
from bot.supervisor import supervise

log = logging.getLogger("bot")

COMMANDS = """commands:
  run                    start the bot; what happens when no command is given
  doctor                 say in plain words what is there and what is missing
  forget PLATFORM:USER   remove everything of a user from the store; the bot must not be running"""
DAY = 86_400
SWITCH = 0.0005
"""Seconds that the event loop waits for a thread that computes in Python. By default it is ten times as much, and is
waited for at every turn: a hundred users who write at once would notice."""
PRUNE_EVERY = 3600
"""Seconds between two looks for pictures that are not to be kept any longer."""


class StartError(Exception):
    """The bot cannot start; `str(error)` is a sentence."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 after a clean stop, 1 where something is missing or broke, 2 for settings that cannot be."""
    options = _arguments().parse_intermixed_args(argv)
    command, overrides = "run", list(options.words)
    if overrides and overrides[0] in ("run", "doctor", "forget"):
        command = overrides.pop(0)
    who = overrides.pop(0) if command == "forget" and overrides else ""
    try:
        config = configuration.load(options.config, overrides, os.environ)
    except ConfigError as error:
        return _say(error, 2)
    logs.setup(config.log, config.secrets())
    try:
        if command == "doctor":
            return _doctor(config)
        if command == "forget":
            return asyncio.run(_forget(config, who))
        return asyncio.run(run(config))
    except (StartError, StoreError, Expected) as error:
        return _say(error, 1)


async def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; then finish what was accepted."""
    stop = _on_signals()
    sys.setswitchinterval(SWITCH)
    async with AsyncExitStack() as stack:
        health = Health()
        store = await stack.enter_async_context(Store(config.store.path))
        web = await _started_web(config, health)
        stack.push_async_callback(web.close)
        from bot.engine import Engine  # here, because torch takes seconds that other failures need not wait for

        engine = await stack.enter_async_context(Engine(config))
        health.watch("model", alive=lambda: engine.alive, ready=lambda: engine.ready)
        health.watch_queue(lambda: engine.waiting)
        service = Service(engine, store, health, config.reply)
        health.watch(web.name, ready=lambda: web.ready)
        adapters = [asyncio.create_task(web.run(service), name=web.name)]
        adapters += [_supervised(adapter, service, health) for adapter in _chats(config)]
        pruning = asyncio.create_task(_prune(store, config.store.keep_pictures), name="pruning")
        print(f"Quipbot is ready: {web.address}", flush=True)
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, *adapters], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        failed = [task.get_name() for task in adapters if task.done()]
        service.close()
        for task in (stopping, pruning, *adapters):
            task.cancel()
        ended = await asyncio.gather(engine.drain(), *adapters, pruning, stopping, return_exceptions=True)
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
    async with Store(config.store.path) as store:
        gone = await store.forget(platform, user)
    print(f"Forgotten: {gone.memes} memes, {gone.reactions} votes, {gone.requests} requests.")
    return 0


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


async def _started_web(config: Config, health: Health) -> WebChat:
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
