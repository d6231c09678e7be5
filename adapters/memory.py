"""A platform that plays a script: for tests and demonstrations of everything behind the adapters."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bot.events import Expected, ImagePosted, MemeReply, ReactionChanged, Service


@dataclass(frozen=True, slots=True)
class Vote:
    """Somebody reacts to the answer that the script's `step`-th entry got."""

    step: int
    user: str
    emoji: str
    added: bool = True


class Memory:
    """Plays its script in order, keeps every answer, and is done when `finished` is set.

    `answers` has an entry a step: the meme, None for silence and for a vote that counted, or the error that a user
    would have been shown. A meme is known by the number of its step as its message.
    """

    name = "memory"

    def __init__(self, script: Sequence[ImagePosted | Vote]) -> None:
        self.answers: list[MemeReply | Expected | None] = []
        self.finished = asyncio.Event()
        self._script = script
        self._running = False

    @property
    def ready(self) -> bool:
        return self._running

    async def run(self, service: Service) -> None:
        """Play the script, then stay until cancelled, as every adapter does."""
        self._running = True
        try:
            for number, step in enumerate(self._script):
                self.answers.append(await self._play(service, number, step))
            self.finished.set()
            await asyncio.Event().wait()
        finally:
            self._running = False

    async def _play(self, service: Service, number: int, step: ImagePosted | Vote) -> MemeReply | Expected | None:
        try:
            if isinstance(step, Vote):
                await service.react(self._change(step))
                return None
            reply = await service.post(step)
            if reply is not None:
                await service.sent(reply.id, str(number))
        except Expected as error:
            return error
        return reply

    def _change(self, vote: Vote) -> ReactionChanged:
        """The vote as most platforms tell it: by the message, not by the meme."""
        posted = self._script[vote.step]
        if not isinstance(posted, ImagePosted):
            raise TypeError(f"Step {vote.step} of the script is a vote, which nobody can vote on.")
        return ReactionChanged(
            posted.platform, vote.user, vote.emoji, vote.added, chat=posted.chat, message=str(vote.step)
        )
