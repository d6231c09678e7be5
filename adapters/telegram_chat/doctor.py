"""What Telegram says of the bot: what works, what is missing, and how to mend it."""

from collections.abc import Sequence

from telegram import Bot
from telegram.constants import ChatMemberStatus
from telegram.error import TelegramError

from bot.events import Finding, Unusable

from .intake import Webhook
from .outbox import UNREADABLE

RIGHTS = "delete_messages"
"""Administrators hear of reactions whatever else they may; Telegram's link must name a right."""


async def examine(bot: Bot, chats: Sequence[str], webhook: Webhook | None) -> list[Finding]:
    """Raises TelegramError where Telegram stops answering."""
    groups = [chat for chat in chats if chat.startswith("-")]
    standing = [await _stands(bot, chat) for chat in groups]
    return [
        Finding("telegram", True, f"@{bot.username} can be reached"),
        _privacy(bot, bool(groups) and all(administrator for administrator, _ in standing)),
        _reactions(standing),
        await _webhook(bot, webhook),
        Finding("telegram invitation", True, invitation(str(bot.username))),
    ]


def invitation(username: str) -> str:
    """Links that add the bot to a group or a channel, as an administrator."""
    link = f"https://t.me/{username}"
    return f"{link}?startgroup=meme&admin={RIGHTS} adds it to a group, {link}?startchannel&admin={RIGHTS} to a channel"


def out_of_reach(error: Exception, api_base: str) -> str:
    if isinstance(error, Unusable):
        return str(error)
    return f"The Bot API at {api_base} cannot be reached: {error}."


def _privacy(bot: Bot, administrator_everywhere: bool) -> Finding:
    if bot.bot.can_read_all_group_messages:
        return Finding("telegram privacy", True, "privacy mode is off, so pictures in groups are seen")
    return Finding(
        "telegram privacy",
        administrator_everywhere,
        "privacy mode is on: in groups where the bot is no administrator it sees commands, mentions and replies only, "
        "not pictures merely posted. To change that, make it an administrator, or send @BotFather /setprivacy, choose "
        "Disable, and add the bot to the group again.",
    )


def _reactions(standing: Sequence[tuple[bool, str]]) -> Finding:
    without = [title for administrator, title in standing if not administrator]
    if without:
        return Finding(
            "telegram reactions",
            False,
            f"the bot is not an administrator in {', '.join(without)}, so reactions will not arrive from there; "
            "buttons to vote stand below the memes instead. Make it an administrator; any rights will do.",
        )
    words = "arrive from every group known" if standing else "arrive from groups where the bot is an administrator"
    return Finding("telegram reactions", True, words)


async def _webhook(bot: Bot, webhook: Webhook | None) -> Finding:
    known = await bot.get_webhook_info()
    name = "telegram updates"
    if webhook is None:
        if known.url:
            return Finding(
                name,
                True,
                "are polled for; a webhook is still set, which the next start removes. If another program set it, give "
                "that one another bot.",
            )
        return Finding(name, True, "are polled for")
    if known.last_error_message:
        why = f"Telegram cannot reach {webhook.url}: {known.last_error_message}."
        return Finding(name, False, f"{why} It must lead to {webhook.host}:{webhook.port} of this machine.")
    return Finding(name, True, f"come to {webhook.url}")


async def _stands(bot: Bot, chat: str) -> tuple[bool, str]:
    """Whether the bot is an administrator, and the chat's title."""
    try:
        member = await bot.get_chat_member(int(chat), bot.id)
        title = (await bot.get_chat(int(chat))).title or chat
    except (TelegramError, *UNREADABLE) as error:
        return False, f"{chat} ({error})"
    return member.status in (ChatMemberStatus.ADMINISTRATOR, ChatMemberStatus.OWNER), title
