"""Who is an administrator where. Asked once and remembered for a while, as every question is a request."""

import logging
import time

from telegram import Bot, ChatMemberUpdated
from telegram.constants import ChatMemberStatus
from telegram.error import TelegramError

from .outbox import UNREADABLE

log = logging.getLogger(__name__)

REMEMBERED = 600.0
"""Seconds for which the bot's own standing is believed; changes to it are told anyway."""
ADMINISTRATORS = (ChatMemberStatus.ADMINISTRATOR, ChatMemberStatus.OWNER)


class Rights:
    def __init__(self, bot: Bot) -> None:
        self._bot = bot
        self._standing: dict[int, tuple[bool, float]] = {}

    async def sees_reactions(self, chat: int) -> bool:
        """Telegram tells of reactions to administrators only."""
        if chat > 0:
            return False
        known, until = self._standing.get(chat, (False, 0.0))
        if time.monotonic() < until:
            return known
        sees = await self._status(chat, str(self._bot.id)) in ADMINISTRATORS
        self._remember(chat, sees)
        return sees

    async def is_administrator(self, chat: int, user: str) -> bool:
        """True in a private chat, and for who writes in the chat's own name."""
        return chat > 0 or user == str(chat) or await self._status(chat, user) in ADMINISTRATORS

    async def _status(self, chat: int, user: str) -> str:
        """A member's standing as Telegram names it; "" where that cannot be known."""
        try:
            return str((await self._bot.get_chat_member(chat, int(user))).status)
        except (TelegramError, *UNREADABLE) as error:
            log.info("the standing of a member of %s is not known: %s", chat, error)
            return ""

    def changed(self, update: ChatMemberUpdated) -> None:
        """The bot's own standing is another one."""
        self._remember(update.chat.id, update.new_chat_member.status in ADMINISTRATORS)

    def _remember(self, chat: int, sees: bool) -> None:
        now = time.monotonic()
        self._standing = {key: value for key, value in self._standing.items() if value[1] > now}
        self._standing[chat] = (sees, now + REMEMBERED)
