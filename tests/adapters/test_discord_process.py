"""The bot as people start it, with Discord on loopback: killed, started again, and asked how it stands."""

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from bot.store import Store
from tests.fakes.discord_server import Discord

ROOT = Path(__file__).parents[2]


def picture(seed: int = 1) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((96, 64)).save(out, "JPEG")
    return out.getvalue()


async def spawned(discord: Discord, folder: Path, model: Path, *words: str) -> asyncio.subprocess.Process:
    settings = {
        "web.port": 0,
        "store.path": folder / "q.db",
        "captioner.model": model,
        "captioner.threads": 1,
        "discord.api_base": discord.api_base,
        "discord.gateway_url": discord.gateway_url,
        "discord.message_content": "true",
    }
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", *words, *(f"{key}={value}" for key, value in settings.items())),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DISCORD_TOKEN": discord.token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def running(discord: Discord, folder: Path, model: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A bot that is connected, and killed at the end."""
    process = await spawned(discord, folder, model)
    try:
        async with asyncio.timeout(180):
            await discord.gateway.connected.wait()
        yield process
    finally:
        process.kill()
        await process.communicate()
        discord.gateway.connected.clear()


async def test_a_killed_bot_answers_when_it_is_back(tmp_path: Path, tiny_model: Path) -> None:
    async with Discord() as discord:
        channel = discord.add_channel(discord.add_guild())
        discord.cdn_delay = 60
        async with running(discord, tmp_path, tiny_model):
            asked = [await discord.slash(channel, "meme", {"image": picture(number)}) for number in range(3)]
            await discord.until(lambda: all(interaction.answer for interaction in asked))
        discord.cdn_delay = 0
        async with running(discord, tmp_path, tiny_model):
            answers = [await interaction.answered() for interaction in asked]
            assert all(answer.attachments for answer in answers)
        assert discord.breaches == []
        doctor = await spawned(discord, tmp_path, tiny_model, "doctor")
        out = (await doctor.communicate())[0].decode()
        assert "ok      discord: user100" in out
        assert "ok      telegram: no token" in out
        assert doctor.returncode == 0
        forget = await spawned(discord, tmp_path, tiny_model, "forget", "discord:1")
        assert (await forget.communicate())[0].decode() == "Forgotten: 3 memes, 0 votes, 3 requests.\n"
        nobody = await spawned(discord, tmp_path, tiny_model, "forget")
        assert b"PLATFORM:USER" in (await nobody.communicate())[1]
        assert nobody.returncode == 2
    async with Store(tmp_path / "q.db") as store:
        assert await store.counts("discord") == {"resent": 0}
