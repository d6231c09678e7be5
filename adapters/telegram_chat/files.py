"""Pictures from Telegram's servers."""

import asyncio
from typing import TypeVar

from telegram import Bot
from telegram.error import BadRequest, InvalidToken, NetworkError, RetryAfter, TelegramError

from bot.events import BadPicture, Failed, Fetch, TooLarge

from .outbox import is_too_large, seconds_of
from .reading import MAX_DOWNLOAD

Result = TypeVar("Result")

ATTEMPTS = 4
FIRST_PAUSE = 0.5


def fetching(bot: Bot, file: str, size: int | None, still: str = "") -> Fetch:
    """Fetches a file by its id; `still`, the picture that stands for an animation, where that is too large."""

    async def fetch(max_bytes: int) -> bytes:
        if size is not None and size > min(max_bytes, MAX_DOWNLOAD):
            if not still:
                raise _too_large(max_bytes)
            return await _downloaded(bot, still, max_bytes)
        return await _downloaded(bot, file, max_bytes)

    return fetch


async def _downloaded(bot: Bot, file: str, max_bytes: int) -> bytes:
    """The bytes; server errors and flood limits are waited out, as long as the caller does."""
    pause = FIRST_PAUSE
    for attempts_left in reversed(range(ATTEMPTS)):
        try:
            return await _attempt(bot, file, max_bytes)
        except RetryAfter as error:
            await asyncio.sleep(seconds_of(error))
        except TelegramError as error:
            if is_too_large(error):
                raise _too_large(max_bytes) from error
            if isinstance(error, BadRequest | InvalidToken):  # a link that is gone reads as a wrong token
                raise BadPicture("Telegram does not have this picture any more.") from error
            if not isinstance(error, NetworkError) or not attempts_left:
                raise Failed("Telegram does not hand over the picture. Try again later.") from error
            await asyncio.sleep(pause)
            pause *= 2
    raise Failed("Telegram does not hand over the picture. Try again later.")


async def _attempt(bot: Bot, file: str, max_bytes: int) -> bytes:
    found = await bot.get_file(file)
    if (found.file_size or 0) > max_bytes:
        raise _too_large(max_bytes)
    data = await found.download_as_bytearray()
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return bytes(data)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The file is larger than {min(max_bytes, 20_000_000) / 1e6:g} MB, or than Telegram gives to bots.")
