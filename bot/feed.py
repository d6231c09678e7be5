"""Changes of a chat, told to everybody who listens. A slow listener costs little and still hears the newest."""

import asyncio
import weakref
from collections import OrderedDict

from bot.events import Change

PENDING = 64
"""How many memes' changes wait for one listener before the oldest is forgotten; of those that are gone, any number."""


class Listener:
    """Changes of one chat from the moment this is made; ends when it or the feed is closed."""

    def __init__(self, chat: tuple[str, str]) -> None:
        self.chat = chat
        self._pending: OrderedDict[str, Change] = OrderedDict()
        self._gone: dict[str, Change] = {}
        self._wake = asyncio.Event()
        self._closed = False

    def __aiter__(self) -> "Listener":
        return self

    async def __anext__(self) -> Change:
        while not (self._gone or self._pending):
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        if self._gone:
            return self._gone.pop(next(iter(self._gone)))
        return self._pending.popitem(last=False)[1]

    def tell(self, change: Change) -> None:
        """Votes on a meme that still waits to be heard of are folded into it; of one that is gone, that is all."""
        if self._closed or change.meme in self._gone:
            return
        waiting = self._pending.pop(change.meme, None)
        if change.kind == "gone":
            self._gone[change.meme] = change
        else:
            self._pending[change.meme] = waiting if waiting is not None and change.kind == "reactions" else change
        if len(self._pending) > PENDING:
            self._pending.popitem(last=False)
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    async def aclose(self) -> None:
        self._gone.clear()
        self._pending.clear()
        self.close()


class Feed:
    """All listeners of all chats. A listener that nobody holds any more disappears by itself."""

    def __init__(self) -> None:
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._closed = False

    def listen(self, platform: str, chat: str) -> Listener:
        listener = Listener((platform, chat))
        if self._closed:
            listener.close()
        self._listeners.add(listener)
        return listener

    def tell(self, change: Change) -> None:
        for listener in list(self._listeners):
            if listener.chat == (change.platform, change.chat):
                listener.tell(change)

    def close(self) -> None:
        """Let every listener end once it has heard what waits for it."""
        self._closed = True
        for listener in list(self._listeners):
            listener.close()
