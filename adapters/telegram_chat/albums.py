"""Albums: Telegram tells of their items one by one, with the same group id."""

import asyncio
import dataclasses
from dataclasses import dataclass, field

from telegram import Message

from bot.events import Request

from .job import Job
from .reading import picture_of

GATHERING_SECONDS = 1.0
"""How long after its first item an album is taken to be complete."""


@dataclass(slots=True)
class Album:
    """The items so far, and what was asked with each of them, if anything."""

    items: dict[int, tuple[Message, Job | None]] = field(default_factory=dict)
    request: Request | None = None
    """Accepted by this process; None too where an earlier one took it on."""
    asked: bool = False

    @property
    def job(self) -> Job | None:
        """What was asked, with any of the items, of the first one's picture."""
        asked = [job for _, job in self.items.values() if job]
        if not asked:
            return None
        job = max(asked, key=lambda job: (job.addressed, bool(job.own), bool(job.text)))
        first = min(self.items)
        message, _ = self.items[first]
        picture = picture_of(message)
        if picture is None:
            return job
        return dataclasses.replace(
            job,
            to=first,
            message=first,
            file=picture.file,
            size=picture.size,
            still=picture.still,
            spoiler=bool(message.has_media_spoiler),
        )


class Albums:
    """The albums that are coming in."""

    def __init__(self, seconds: float = GATHERING_SECONDS) -> None:
        self._seconds = seconds
        self._open: dict[str, Album] = {}

    def add(self, name: str, message: Message, job: Job | None) -> tuple[Album, bool]:
        """The album with this item in it, and whether it is its first."""
        is_new = name not in self._open
        album = self._open.setdefault(name, Album())
        album.items[message.message_id] = message, job
        return album, is_new

    async def complete(self, name: str) -> Album:
        """The album when no more of it is awaited."""
        await asyncio.sleep(self._seconds)
        return self._open.pop(name)
