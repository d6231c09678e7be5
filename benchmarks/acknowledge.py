"""How soon people hear that they were heard: commands and pictures that arrive at once while the model is busy.

The bot runs as a process of its own, with its model; the platforms are those of the tests, in this process. Discord
acknowledges when it takes the deferral, Telegram when it hears that an update is kept (each of a chat of its own).

    python -m benchmarks.acknowledge [--commands 100] [--busy 16] [--rounds 3] [--model FILE] [--limit 1.0]

The exit status says whether the slowest of all rounds took at most `--limit` seconds.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.soak import picture, spawned
from tests.fakes.discord_server import Discord
from tests.fakes.discord_world import Channel
from tests.fakes.telegram_api import TelegramApi

PATIENCE = 600.0
SETTLED = 1.0
"""Seconds until the model is at work on what keeps it busy."""


@asynccontextmanager
async def bot(discord: Discord, telegram: TelegramApi, folder: Path, options: argparse.Namespace) -> AsyncIterator[int]:
    """The bot's process id, from when both platforms are connected until the block ends."""
    words = [f"captioner.model={options.model}", f"engine.queue={4 * options.commands}"]
    process = await spawned(discord, telegram, folder, *words)
    try:
        async with asyncio.timeout(PATIENCE):
            await discord.gateway.connected.wait()
            await telegram.until(lambda: telegram.allowed, PATIENCE)
        yield process.pid
    finally:
        process.kill()
        await process.wait()


class Round:
    """A hundred people on either platform, all at once."""

    def __init__(self, discord: Discord, telegram: TelegramApi, channel: Channel) -> None:
        self._discord, self._telegram, self._channel = discord, telegram, channel

    async def run(self, number: int, options: argparse.Namespace) -> tuple[list[float], list[float]]:
        """Seconds until each was acknowledged, on Discord and on Telegram."""
        pictures = [picture(seed) for seed in range(20)]
        for seed in range(options.busy):
            await self._discord.slash(self._channel, "meme", {"image": pictures[seed % 20]})
        await asyncio.sleep(SETTLED)
        self._telegram.acknowledged.clear()
        asked = []
        for each in range(options.commands):
            asked.append(await self._discord.slash(self._channel, "meme", {"image": pictures[each % 20]}))
            self._telegram.private(1000 * (number + 1) + each).post_photo(pictures[each % 20])
        for interaction in asked:
            await interaction.until(lambda of=interaction: of.acknowledged is not None, PATIENCE)
        await self._telegram.until(lambda: len(self._telegram.acknowledged) >= options.commands, PATIENCE)
        return [each.acknowledged or 0.0 for each in asked], list(self._telegram.acknowledged.values())

    async def quiet(self) -> None:
        """Everything is answered."""
        interactions = self._discord.interactions.values()
        await self._discord.until(lambda: all(each.is_answered for each in interactions), PATIENCE)


def told(platform: str, seconds: Sequence[float]) -> str:
    cuts = statistics.quantiles(seconds, n=20)
    return f"{platform} median {statistics.median(seconds):.2f} s, 95 % {cuts[-1]:.2f} s, max {max(seconds):.2f} s"


async def main() -> int:
    parser = argparse.ArgumentParser(description="Seconds until commands that arrive at once are acknowledged.")
    parser.add_argument("--commands", type=int, default=100, help="on each platform")
    parser.add_argument("--busy", type=int, default=16, help="pictures that the model is at work on meanwhile")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="", help="checkpoint file; the shipped one")
    parser.add_argument("--limit", type=float, default=1.0)
    options = parser.parse_args()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        async with Discord() as discord, TelegramApi() as telegram:
            round_ = Round(discord, telegram, discord.add_channel(discord.add_guild()))
            async with bot(discord, telegram, Path(folder), options):
                for number in range(options.rounds):
                    on_discord, on_telegram = await round_.run(number, options)
                    load = os.getloadavg()[0]
                    print(
                        f"{told('Discord', on_discord)}; {told('Telegram', on_telegram)}; load {load:.1f}", flush=True
                    )
                    slowest = max(slowest, *on_discord, *on_telegram)
                    await round_.quiet()
            print(f"breaches {discord.breaches}; {os.cpu_count()} cores")
            return 0 if slowest <= options.limit and not discord.breaches else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
