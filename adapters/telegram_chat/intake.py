"""How updates come in: by long poll or by webhook. Either way Telegram hears that one arrived only after it is kept."""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from telegram import Bot, Update
from telegram.error import Conflict, InvalidToken, NetworkError, RetryAfter

from bot.events import Expected, Failed, Unusable

from .outbox import UNREADABLE, seconds_of
from .reading import subject_of

log = logging.getLogger(__name__)

Take = Callable[[Update], Awaitable[None]]
"""Keeps an update, or deals with it; raises `Expected` where it could not be kept."""
Together = Callable[[], AbstractContextManager[None]]
"""What is entered while several updates are taken."""

KINDS = ["message", "channel_post", "callback_query", "message_reaction", "message_reaction_count", "my_chat_member"]
"""Reactions are told only to those who ask."""
POLL_SECONDS = 30
QUICK = 0.2
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
SECRET_HEADER = "X-Telegram-Bot-Api-Secret-Token"  # noqa: S105, a header's name
REFUSED = (
    "Telegram does not take the token: set TELEGRAM_TOKEN to what @BotFather gave you, and telegram.api_base to where "
    "the Bot API is."
)
MAX_UPDATE = 1_000_000
"""Bytes of an update."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Telegram posts updates to `url`, which leads to `host` and `port` of this machine.

    `secret` comes with every update; where it is empty, one is derived from the bot's token.
    """

    url: str
    host: str
    port: int
    secret: str = field(default="", repr=False)

    def secret_for(self, token: str) -> str:
        return self.secret or hmac.new(token.encode(), b"quipbot webhook", sha256).hexdigest()


async def poll(bot: Bot, take: Take, together: Together, on_contact: Callable[[bool], None]) -> None:
    """Ask for updates until cancelled; `on_contact` is told whether Telegram answers. Raises `Unusable`."""
    offset, pause = None, FIRST_PAUSE
    while True:
        try:
            began = time.monotonic()
            updates = await _waiting(bot, offset)
            if not updates and time.monotonic() - began < QUICK:
                await asyncio.sleep(QUICK)  # a server that does not let us wait is not to be asked without pause
            with together():
                taken = await asyncio.gather(*(_taken(turn, take) for turn in _in_turns(updates)))
            refused = [number for number in taken if number is not None]
            if updates:
                # What is below is confirmed by the next call; what follows a refused one is told again with it.
                offset = min(refused, default=updates[-1][0] + 1)
            if refused:
                raise Failed(f"{len(refused)} updates could not be kept.")
            on_contact(True)
            pause = FIRST_PAUSE
            continue
        except RetryAfter as error:
            wait = seconds_of(error)
        except InvalidToken as error:
            raise Unusable(REFUSED) from error
        except (Conflict, NetworkError, Expected) as error:
            wait, pause = pause, min(2 * pause, LONGEST_PAUSE)
            log.warning("no updates, trying again in %g s: %s", wait, _explained(error))
        on_contact(False)
        await asyncio.sleep(wait)


def _in_turns(updates: Sequence[tuple[int, Update | None]]) -> list[list[tuple[int, Update]]]:
    """Updates that have to be taken one after the other, together; the others need not wait for each other's commit."""
    turns: dict[Hashable, list[tuple[int, Update]]] = {}
    for number, update in updates:
        if update:
            turns.setdefault(subject_of(update), []).append((number, update))
    return list(turns.values())


async def _taken(turn: Sequence[tuple[int, Update]], take: Take) -> int | None:
    """Take updates in their order; the number of the one that could not be kept, if any."""
    for number, update in turn:
        try:
            await take(update)
        except Expected:  # the log has it
            return number
    return None


async def _waiting(bot: Bot, offset: int | None) -> list[tuple[int, Update | None]]:
    """Updates by number; None for one that the library cannot read, which must not hold up all that follow."""
    try:
        updates = await bot.get_updates(offset=offset, timeout=POLL_SECONDS, allowed_updates=KINDS)
        return [(update.update_id, update) for update in updates]
    except UNREADABLE:
        log.warning("an update cannot be read, so all are looked at one by one")
        wanted = {"offset": offset, "timeout": 0, "allowed_updates": KINDS}
        found: list[dict[str, Any]] = await bot.do_api_request("getUpdates", api_kwargs=wanted)
        return [(content["update_id"], _read(content, bot)) for content in found]


def _read(content: dict[str, Any], bot: Bot) -> Update | None:
    try:
        return Update.de_json(content, bot)
    except UNREADABLE:
        log.exception("an update cannot be read")
        return None


async def listen(bot: Bot, take: Take, webhook: Webhook, on_contact: Callable[[bool], None]) -> None:
    """Serve the webhook and announce it, until cancelled. Raises `Unusable`."""
    secret = webhook.secret_for(bot.token)
    order = asyncio.Lock()

    async def receive(request: web.Request) -> web.Response:
        if not hmac.compare_digest(request.headers.get(SECRET_HEADER, "").encode(), secret.encode()):
            return web.Response(status=403)
        try:
            update = _read(json.loads(await request.read()), bot)
        except ValueError:
            return web.Response(status=400)
        if update is None:
            return web.Response()  # or else Telegram would tell of it again and again
        try:
            async with order:
                await take(update)
        except Expected:  # the log has it; Telegram tells of the update again
            return web.Response(status=503)
        return web.Response()

    async with AsyncExitStack() as stack:
        app = web.Application(client_max_size=MAX_UPDATE)
        app.router.add_post(urlsplit(webhook.url).path or "/", receive)
        runner = web.AppRunner(app, access_log=None)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        await _bound(runner, webhook)
        # One update at a time, so that the votes of a user arrive in their order.
        await bot.set_webhook(webhook.url, allowed_updates=KINDS, secret_token=secret, max_connections=1)
        on_contact(True)
        await asyncio.Event().wait()


async def _bound(runner: web.AppRunner, webhook: Webhook) -> None:
    try:
        await web.TCPSite(runner, webhook.host, webhook.port).start()
    except OSError as error:
        where = f"{webhook.host}:{webhook.port}"
        raise Unusable(f"Telegram's webhook cannot be served at {where}: {error.strerror or error}.") from error


def _explained(error: Exception) -> str:
    if isinstance(error, Conflict):
        return f"another program is polling with the same token, or a webhook is set ({error})"
    return str(error)
