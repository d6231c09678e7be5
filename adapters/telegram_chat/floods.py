"""Telegram's flood limits, kept on our side: a message a second in a chat, twenty a minute in a group, thirty a second.

Times are seconds of a clock that the caller hands in; nothing here sleeps.
"""

from collections import deque
from dataclasses import dataclass

MAX_CHATS = 10_000
"""Chats whose last messages are remembered."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Each is (messages, seconds), a little stricter than Telegram's own: what it counts is when they arrive."""

    chat: tuple[int, float] = (1, 1.05)
    group: tuple[int, float] = (20, 61.0)
    everywhere: tuple[int, float] = (28, 1.0)


class Window:
    """At most `count` turns in any `seconds`."""

    def __init__(self, count: int, seconds: float) -> None:
        self._seconds = seconds
        self._turns: deque[float] = deque(maxlen=count)
        self.not_before = 0.0

    def earliest(self, now: float) -> float:
        """When the next turn may be; never before one that was taken earlier."""
        full = len(self._turns) == self._turns.maxlen
        last = self._turns[-1] if self._turns else 0.0
        return max(now, self.not_before, last, self._turns[0] + self._seconds if full else 0.0)

    def take(self, at: float) -> None:
        self._turns.append(at)

    def hold(self, until: float) -> None:
        """No turn before `until`."""
        self.not_before = max(self.not_before, until)


class Floods:
    """When the next message to each chat may go out."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._everywhere = Window(*limits.everywhere)
        self._chats: dict[int, list[Window]] = {}

    def reserve(self, chat: int, now: float) -> float:
        """Take the chat's next turn and say when it is; turns of a chat are in the order of the calls."""
        windows = self._windows(chat, now)
        at = max(window.earliest(now) for window in windows)
        for window in windows:
            window.take(at)
        return at

    def reserve_anywhere(self, now: float) -> float:
        """The same for all chats together; to be called when the chat's own turn has come."""
        at = self._everywhere.earliest(now)
        self._everywhere.take(at)
        return at

    def hold(self, chat: int, until: float) -> None:
        """Telegram wants silence in this chat until then; turns before it are void, and to be taken again."""
        for window in self._windows(chat, until):
            window.hold(until)

    def is_held(self, chat: int, now: float) -> bool:
        return any(window.not_before > now for window in self._windows(chat, now))

    def _windows(self, chat: int, now: float) -> list[Window]:
        if chat not in self._chats and len(self._chats) >= MAX_CHATS:
            busy = {key: windows for key, windows in self._chats.items() if _waits(windows, now)}
            self._chats = busy
        is_group = chat < 0
        fresh = [Window(*self._limits.chat), *([Window(*self._limits.group)] if is_group else [])]
        return self._chats.setdefault(chat, fresh)


def _waits(windows: list[Window], now: float) -> bool:
    return any(window.earliest(now) > now for window in windows)
