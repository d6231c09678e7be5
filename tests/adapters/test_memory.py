"""The scripted adapter, and with it the whole loop behind the adapters: picture, meme, vote."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adapters.memory import Memory, Vote
from bot import config
from bot.engine import Engine
from bot.events import BadPicture, ImagePosted, MemeReply, NotFound
from bot.health import Health
from bot.service import Service
from bot.store import Store
from captioner.images import to_jpeg

PICTURE = to_jpeg(Image.linear_gradient("L").resize((90, 60)).convert("RGB"))


def event(data: bytes = PICTURE, **changes: Any) -> ImagePosted:
    async def fetch(max_bytes: int) -> bytes:
        return data

    return dataclasses.replace(ImagePosted("memory", "c", "m", "u", fetch, seed=1), **changes)


@pytest.fixture
async def service(tmp_path: Path, tiny_model: Path) -> AsyncIterator[Service]:
    settings = config.load(None, [f"captioner.model={tiny_model}", "captioner.threads=1"], {})
    async with Store(tmp_path / "q.db") as store, Engine(settings) as engine:
        yield Service(engine, store, Health(), settings.reply)


async def play(service: Service, script: Sequence[ImagePosted | Vote]) -> Memory:
    adapter = Memory(script)
    assert not adapter.ready
    running = asyncio.create_task(adapter.run(service))
    await adapter.finished.wait()
    assert adapter.ready
    running.cancel()
    await asyncio.wait([running])
    assert not adapter.ready
    return adapter


async def test_a_script_is_played_in_order(service: Service) -> None:
    script = [
        event(),
        Vote(0, "v", "👍"),
        Vote(0, "w", "👍🏽"),
        Vote(0, "w", "🔥"),
        Vote(0, "w", "🔥", added=False),
        event(b"no picture"),
        event(from_bot=True),
        event(),
        Vote(6, "v", "👍"),
    ]
    answers = (await play(service, script)).answers
    first, *votes, bad, ignored, same, lost = answers
    assert isinstance(first, MemeReply)
    assert isinstance(same, MemeReply)
    assert first.data == same.data
    assert votes == [None] * 4
    assert isinstance(bad, BadPicture)
    assert ignored is None
    assert isinstance(lost, NotFound)
    assert (await service.record(first.id)).reactions == {"👍": 2}


async def test_a_script_that_votes_on_a_vote_is_a_mistake(service: Service) -> None:
    adapter = Memory([Vote(0, "v", "👍")])
    with pytest.raises(TypeError, match="is a vote"):
        await adapter.run(service)
