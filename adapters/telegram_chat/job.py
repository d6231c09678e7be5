"""What is to be done for a user, in a form that outlives the process: it is the payload of an accepted request."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from bot.events import Place, Request

PLATFORM = "telegram"
Kind = Literal["post", "redo", "own", "vote", "prompt", "why", "delete", "command"]
EXPIRES_AFTER = 86_400.0
"""Seconds; Telegram itself would take an answer at any time, but nobody waits for one so long."""


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to do; which fields count depends on the kind."""

    kind: Kind
    chat: int
    user: str
    to: int | None = None
    """The message to reply to."""
    thread: int | None = None
    message: int | None = None
    """The message with the picture, or with the buttons."""
    file: str = ""
    size: int | None = None
    still: str = ""
    text: str = ""
    """Words that came with the picture, or after the command."""
    own: tuple[str, ...] = ()
    addressed: bool = True
    spoiler: bool = False
    author: str = ""
    meme: str = ""
    candidate: int | None = None
    emoji: str = ""
    added: bool = True
    command: str = ""

    @classmethod
    def of(cls, request: Request) -> Self:
        payload: Mapping[str, Any] = request.payload
        return cls(**{**payload, "own": tuple(payload.get("own", ()))})

    def request(self, name: str) -> Request:
        """The request that is accepted under this name."""
        return Request(
            platform=PLATFORM,
            id=name,
            chat=str(self.chat),
            user=self.user,
            expires=time.time() + EXPIRES_AFTER,
            payload=dataclasses.asdict(self),
            message=str(self.message or ""),
        )

    @property
    def place(self) -> Place:
        """A private chat is its user's own; in groups Telegram marks no chat as one for adults."""
        return place_of(self.chat)


def place_of(chat: int) -> Place:
    return Place(PLATFORM, str(chat), adult=chat > 0)
