"""The adapter: connects, and connects again."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from telegram import Bot
from telegram.error import InvalidToken, TelegramError
from telegram.request import HTTPXRequest

from bot.events import Finding, Service, Unusable

from . import doctor
from .commands import MENU
from .floods import Floods, Limits
from .intake import REFUSED, Webhook, listen, poll
from .job import PLATFORM
from .outbox import Outbox
from .session import Session

log = logging.getLogger(__name__)
# It writes a traceback for every answer that is no JSON, as servers that stumble give; a line of ours says enough.
logging.getLogger("telegram.request.BaseRequest").setLevel(logging.CRITICAL)

CONNECT_SECONDS = 10.0
SEND_SECONDS = 60.0
"""Long, as a message that Telegram took, but slowly, would be sent twice."""
CONNECTIONS = 64
TELEGRAMS_OWN = Limits()


class TelegramChat:
    """A bot of Telegram, or of a Bot API server of one's own."""

    name = PLATFORM

    def __init__(
        self, token: str, *, api_base: str, file_base: str, webhook: Webhook | None, limits: Limits = TELEGRAMS_OWN
    ) -> None:
        """`api_base` and `file_base` are addresses up to the token; without `webhook` updates are polled for."""
        self._token = token
        self._api_base = api_base
        self._file_base = file_base
        self._webhook = webhook
        self._limits = limits
        self._ready = False

    @property
    def ready(self) -> bool:
        return self._ready

    async def run(self, service: Service) -> None:
        """Serve until cancelled. Raises `Unusable` for a wrong token, TelegramError where Telegram is out of reach."""

        async def moved(old: int, new: int) -> None:
            await service.moved(PLATFORM, str(old), str(new))

        try:
            async with (
                self._connected() as bot,
                Session(Outbox(bot, Floods(self._limits), moved), service) as session,
            ):
                await _introduce(bot, polling=self._webhook is None)
                self._reach(True)
                if self._webhook:
                    await listen(bot, session.take, self._webhook, self._reach)
                else:
                    await poll(bot, session.take, session.together, self._reach)
        finally:
            self._ready = False

    async def examine(self, chats: Sequence[str]) -> list[Finding]:
        """Ask Telegram, changing nothing; `chats` are the last ones in which memes were made."""
        try:
            async with self._connected() as bot:
                return await doctor.examine(bot, chats, self._webhook)
        except (Unusable, TelegramError) as error:
            return [Finding(PLATFORM, False, doctor.out_of_reach(error, self._api_base))]

    def _reach(self, there: bool) -> None:
        self._ready = there

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Bot]:
        bot = Bot(
            self._token,
            base_url=self._api_base,
            base_file_url=self._file_base,
            request=_requests(CONNECTIONS, SEND_SECONDS),
            get_updates_request=_requests(1, CONNECT_SECONDS),
        )
        try:
            try:
                await bot.initialize()
            except InvalidToken:
                raise Unusable(REFUSED) from None  # the library's words have the token in them
            yield bot
        finally:
            await bot.shutdown()


def _requests(connections: int, read_seconds: float) -> HTTPXRequest:
    return HTTPXRequest(
        connection_pool_size=connections,
        connect_timeout=CONNECT_SECONDS,
        pool_timeout=SEND_SECONDS,
        read_timeout=read_seconds,
        write_timeout=SEND_SECONDS,
        media_write_timeout=SEND_SECONDS,
    )


async def _introduce(bot: Bot, *, polling: bool) -> None:
    """The menu, and no webhook where there is none; neither is worth failing for."""
    try:
        await bot.set_my_commands(MENU)
    except TelegramError as error:
        log.warning("the menu of commands is not set: %s", error)
    if polling:
        try:
            await bot.delete_webhook()
        except TelegramError as error:
            log.warning("a webhook may still be set: %s", error)
