"""The words that came with pictures, for as long as the bot runs: other memes of the same picture take them up, too.

They are what people say in chats, so they never reach the disk, and few of them stay in memory.
"""

from collections import OrderedDict
from typing import NamedTuple

from bot.events import MemeRecord

MOST = 1000
"""Memes whose words are known."""


class _Posted(NamedTuple):
    words: str
    platform: str
    people: tuple[str, str]


class PostedWords:
    """Words by the meme that was made with them; of more than `most`, the last ones that were."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: OrderedDict[str, _Posted] = OrderedDict()

    def keep(self, record: MemeRecord, words: str) -> None:
        """Words that a meme was made with; of none, nothing is kept."""
        if words:
            self._kept[record.id] = _Posted(words, record.platform, (record.user, record.author))
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def of(self, meme: str) -> str:
        """The words of a meme, or nothing."""
        return self._kept[meme].words if meme in self._kept else ""

    def drop(self, meme: str) -> None:
        self._kept.pop(meme, None)

    def forget(self, platform: str, user: str) -> None:
        """The words of memes that a user asked for, or whose picture is the user's."""
        gone = [meme for meme, known in self._kept.items() if known.platform == platform and user in known.people]
        for meme in gone:
            del self._kept[meme]
