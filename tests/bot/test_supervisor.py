"""One adapter that breaks is started again, and the others do not notice."""

import asyncio
import logging
from typing import Any

import pytest

from adapters.memory import Memory
from bot import supervisor
from bot.events import Unusable


class Breaking(Memory):
    """Fails in as many ways as it is given, then runs."""

    def __init__(self, *failures: Exception | None) -> None:
        super().__init__(())
        self._failures = list(failures)

    async def run(self, service: Any) -> None:
        if not self._failures:
            await super().run(service)
        elif (failure := self._failures.pop(0)) is not None:
            raise failure


async def test_it_starts_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "HOPELESS"):
        monkeypatch.setattr(supervisor, name, 0.001)
    caplog.set_level(logging.INFO, logger="bot")
    adapter = Breaking(ValueError("a bug"), None, Unusable("The token is wrong."))
    task = asyncio.create_task(supervisor.supervise(adapter, None))  # type: ignore[arg-type]
    await adapter.finished.wait()
    assert adapter.ready
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "memory broke" in caplog.text
    assert "Traceback" in caplog.text
    assert "memory ended by itself" in caplog.text
    assert "memory does not run: The token is wrong." in caplog.text
