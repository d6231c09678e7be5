"""What a message says and shows. Pure: the library's messages in, our words out; nothing is fetched or sent here."""

import re
from dataclasses import dataclass

from telegram import (
    Animation,
    Document,
    ExternalReplyInfo,
    Message,
    MessageOrigin,
    PhotoSize,
    Sticker,
    Update,
    User,
)
from telegram.constants import ChatType

COMMAND = re.compile(r"/(\w{1,32})(?:@(\w+))?(?:\s+|$)")
PICTURE_NAMES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")
MAX_DOWNLOAD = 20_000_000
"""Bytes that a bot can download; of a photo in several sizes, the largest below is taken."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture on Telegram's servers."""

    file: str
    size: int | None
    still: str = ""
    """The file of a picture that stands for it, where it may turn out that it cannot be read."""


@dataclass(frozen=True, slots=True)
class Said:
    """A message's words: its command without the slash ("" for none), and what is left without command and mention."""

    command: str
    words: str
    mentioned: bool


def said(message: Message, me: User) -> Said:
    """A command for another bot counts as none."""
    text = message.text or message.caption or ""
    mention = re.compile(rf"@{me.username}\b", re.IGNORECASE)
    command = COMMAND.match(text)
    if command is None:
        return Said("", mention.sub("", text).strip(), bool(mention.search(text)))
    if command[2] and command[2].lower() != str(me.username).lower():
        return Said("", text, False)
    rest = text[command.end() :]
    return Said(command[1].lower(), mention.sub("", rest).strip(), bool(mention.search(rest)))


def own_boxes(words: str) -> tuple[str, ...]:
    """A user's own text, top to bottom, written with `|` or on several lines."""
    return tuple(part.strip() for part in re.split(r"[|\n]", words)) if words.strip() else ()


def picture_of(message: Message | ExternalReplyInfo) -> Picture | None:
    """What there is to caption: a photo, a picture sent as a file, a still sticker, a short animation."""
    if message.photo:
        return _best(message.photo)
    if message.animation:  # before the document: Telegram sends both
        return _moving(message.animation)
    if message.sticker:
        return _sticker(message.sticker)
    if message.document:
        return _file(message.document)
    return None


def subject_of(update: Update) -> tuple[object, ...]:
    """What an update is about: a meme, a question, an album. Updates of one subject depend on their order."""
    if change := update.message_reaction or update.message_reaction_count:
        return change.chat.id, change.message_id
    if update.callback_query:
        message = update.callback_query.message
        return (message.chat.id, message.message_id) if message else (update.callback_query.id,)
    if message := update.effective_message:
        if message.media_group_id:
            return message.chat.id, "album", message.media_group_id
        quoted = message.reply_to_message
        return message.chat.id, (quoted or message).message_id
    return (update.effective_chat.id,) if update.effective_chat else ()


def is_private(message: Message) -> bool:
    return message.chat.type == ChatType.PRIVATE


def is_from_bot(message: Message) -> bool:
    """Anonymous administrators write through a bot of Telegram's, but are people."""
    return message.from_user is not None and message.from_user.is_bot and message.sender_chat is None


def sender(message: Message) -> str:
    """Who wrote it; a channel or an anonymous administrator is known by the chat in whose name they write."""
    if message.sender_chat is not None:
        return str(message.sender_chat.id)
    return str(message.from_user.id) if message.from_user else str(message.chat.id)


def author_of(message: Message) -> str:
    """Whose picture it is: of a forwarded one, who wrote it first, where that may be known."""
    return (first_sender(message.forward_origin) if message.forward_origin else "") or sender(message)


def first_sender(origin: MessageOrigin) -> str:
    """Who wrote a message that stands elsewhere now; "" for who does not want to be known."""
    writer = (
        getattr(origin, "sender_user", None) or getattr(origin, "sender_chat", None) or getattr(origin, "chat", None)
    )
    return str(writer.id) if writer else ""


def thread_of(message: Message) -> int | None:
    """The forum topic; elsewhere the number only counts replies, and sending to it fails."""
    return message.message_thread_id if message.is_topic_message else None


def _best(sizes: tuple[PhotoSize, ...]) -> Picture:
    allowed = [size for size in sizes if (size.file_size or 0) <= MAX_DOWNLOAD] or list(sizes[:1])
    best = max(allowed, key=lambda size: size.width * size.height)
    return Picture(best.file_id, best.file_size)


def _moving(animation: Animation) -> Picture:
    still = animation.thumbnail.file_id if animation.thumbnail else ""
    return Picture(animation.file_id, animation.file_size, still)


def _sticker(sticker: Sticker) -> Picture | None:
    return None if sticker.is_animated or sticker.is_video else Picture(sticker.file_id, sticker.file_size)


def _file(document: Document) -> Picture | None:
    name, kind = (document.file_name or "").lower(), document.mime_type or ""
    if not (kind.startswith("image/") or name.endswith(PICTURE_NAMES)):
        return None
    return Picture(document.file_id, document.file_size)
