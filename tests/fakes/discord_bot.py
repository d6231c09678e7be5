"""A whole bot on the loopback Discord: the real adapter, SDK, service, engine and store, in one process."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adapters.discord_chat import DiscordChat
from bot.config import Config, Reply
from bot.config import Engine as EngineSettings
from bot.engine import Engine
from bot.health import Health
from bot.service import Service
from bot.store import Store
from captioner.captioner import Captioner
from tests.fakes.discord_server import Discord


@dataclass
class Bot:
    service: Service
    store: Store
    engine: Engine
    chat: DiscordChat
    running: "asyncio.Task[None]"

    async def counts(self) -> dict[str, int]:
        """Requests by how they ended, or not yet."""
        return {state: count for state, count in (await self.store.counts("discord")).items() if count}

    async def ended(self, **expected: int) -> None:
        """Wait until the requests stand so."""
        async with asyncio.timeout(30):
            while await self.counts() != expected:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def bot_on(
    discord: Discord, folder: Path, captioner: Captioner, *, reply: Reply | None = None, queue: int = 64, **traits: Any
) -> AsyncIterator[Bot]:
    """Runs until the block ends; then everything is cut off, as by a kill, and only the store is closed."""
    config = Config(engine=EngineSettings(queue=queue))
    chat = DiscordChat(
        discord.token,
        **{
            "api_base": discord.api_base,
            "gateway_url": discord.gateway_url,
            "message_content": True,
            "sharded_from": 1000,
            "max_bytes": 20_000_000,
        }
        | traits,
    )
    async with Store(folder / "q.db") as store, Engine(config, lambda _: captioner) as engine:
        service = Service(engine, store, Health(), reply or Reply(explore=0.0))
        running = asyncio.create_task(chat.run(service))
        try:
            connected = asyncio.create_task(discord.gateway.connected.wait())
            await asyncio.wait([connected, running], timeout=30, return_when=asyncio.FIRST_COMPLETED)
            connected.cancel()
            yield Bot(service, store, engine, chat, running)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await running
            discord.gateway.connected.clear()


def picture(seed: int = 1, size: tuple[int, int] = (96, 64)) -> bytes:
    """A JPEG, each seed another."""
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize(size).save(out, "JPEG")
    return out.getvalue()
