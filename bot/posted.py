"""The words that came with pictures, for a day: other memes of the same picture take them up, too.

They are what people say in chats. A request keeps them on the disk until it is answered; here they are in memory only.
"""

from typing import NamedTuple

from bot.events import MemeRecord

LIFE = 86_400
"""Seconds that words are known."""
MOST = 1000
"""Memes whose words are known."""


class _Posted(NamedTuple):
    words: str
    at: float
    platform: str
    people: frozenset[str]
    """Who asked with these words, whose picture it is, and who asked for other memes of it."""
    origin: str
    """The meme that the words were posted for."""


class PostedWords:
    """Words by the meme that was made with them; of more than `most`, the last ones that were."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[str, _Posted] = {}

    def keep(self, record: MemeRecord, words: str) -> None:
        """Words that were posted for a meme; of none, nothing is kept."""
        if words:
            people = frozenset({record.user, record.author})
            self._add(record, _Posted(words, record.created, record.platform, people, record.id))

    def hand_on(self, old: str, record: MemeRecord) -> None:
        """Another meme of the picture has the words of the old one, unless these were forgotten meanwhile."""
        if old in self._kept:
            known = self._kept[old]
            self._add(record, known._replace(people=known.people | {record.user}))

    def of(self, meme: str, now: float) -> str:
        """The words of a meme, or nothing."""
        known = self._kept.get(meme)
        return known.words if known and now - known.at < LIFE else ""

    def by(self, platform: str, user: str) -> list[str]:
        """The words that are kept of a user's memes and pictures."""
        return sorted({k.words for k in self._kept.values() if k.platform == platform and user in k.people})

    def drop(self, meme: str) -> None:
        """A meme is gone; with the one that they were posted for, the words go everywhere."""
        self._kept = {key: k for key, k in self._kept.items() if meme not in (key, k.origin)}

    def forget(self, platform: str, user: str) -> None:
        """The words of a user's memes and pictures."""
        self._kept = {key: k for key, k in self._kept.items() if k.platform != platform or user not in k.people}

    def _add(self, record: MemeRecord, posted: _Posted) -> None:
        self._kept = {key: k for key, k in self._kept.items() if record.created - k.at < LIFE}
        self._kept[record.id] = posted
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
