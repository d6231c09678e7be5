"""What the tests of Discord share: a loopback Discord that nobody may treat badly, and a channel there."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from captioner.captioner import Captioner
from tests.fakes.discord_server import Discord
from tests.fakes.discord_world import Channel


@pytest.fixture(scope="session")
def captioner(tiny_model: Path) -> Captioner:
    return Captioner.load(tiny_model, device="cpu", threads=1)


@pytest.fixture
async def discord() -> AsyncIterator[Discord]:
    async with Discord() as discord:
        yield discord
    assert discord.breaches == []


@pytest.fixture
def channel(discord: Discord) -> Channel:
    return discord.add_channel(discord.add_guild())
