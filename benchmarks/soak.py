"""A soak: thousands of posts on loopback Discord and Telegram at once, through everything that goes wrong.

Gateways drop and resume, servers answer 429 and 5xx, downloads are slow, and the bot is killed twice. Afterwards every
accepted request must have been answered, refused with a sentence, or expired; at most what was being sent at the kills
may stand there twice; and every vote must be in the store exactly once. The counts are printed; the exit status says
whether they add up.

    python -m benchmarks.soak [--posts 2000] [--kills 2] [--model FILE] [--seed 1]
"""

import argparse
import asyncio
import io
import os
import random
import re
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.fakes.discord_server import Discord, Interaction
from tests.fakes.discord_world import APPLICATION, Message, user
from tests.fakes.telegram_api import TOKEN, Fault, TelegramApi

ROOT = Path(__file__).parents[1]
CHANNELS = 8
OUTSTANDING = 24
"""Posts that wait for an answer at a time: more would be told that too many wait."""
TROUBLE_EVERY = 25
VOTE_SHARE = 0.3
PATIENCE = 600.0
CATCHING_UP = 180.0
BEFORE_KILL = 1.0
"""Seconds before a kill in which what was told may not have been read yet."""
OPEN = ("waiting", "sending")


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((320, 240)).save(out, "JPEG")
    return out.getvalue()


async def spawned(discord: Discord, telegram: TelegramApi, folder: Path, *words: str) -> asyncio.subprocess.Process:
    """`python -m bot` on both platforms; what it writes lies in the folder, its log too."""
    settings = {
        "web.port": 0,
        "store.path": folder / "q.db",
        "discord.message_content": "true",
        "discord.api_base": discord.api_base,
        "discord.gateway_url": discord.gateway_url,
        "telegram.api_base": telegram.base,
        "telegram.file_base": telegram.file_base,
    }
    with (folder / "log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot", *(f"{key}={value}" for key, value in settings.items()), *words),
            env=os.environ | {"PYTHONPATH": str(ROOT), "DISCORD_TOKEN": discord.token, "TELEGRAM_TOKEN": TOKEN},
            stdout=log,
            stderr=log,
        )


class Soak:
    """The two platforms, the bot as a process, and what people did."""

    def __init__(self, discord: Discord, telegram: TelegramApi, folder: Path, options: argparse.Namespace) -> None:
        self.discord, self.telegram = discord, telegram
        self.database = folder / "q.db"
        self.dice = random.Random(options.seed)
        self.options = options
        self.pictures = [picture(number) for number in range(50)]
        guild = discord.add_guild()
        self.channels = [discord.add_channel(guild) for _ in range(CHANNELS)]
        self.groups = [telegram.group(-number, bot="administrator") for number in range(1, CHANNELS + 1)]
        self.asked: list[Interaction] = []
        self.last: dict[str, float] = {}
        """When each post on Discord was told to the bot."""
        self.cut: set[str] = set()
        """Posts on Discord that a kill came upon: the bot had no time to write them down."""
        self.voters = 0
        self.posted: Counter[str] = Counter()
        self._bot: asyncio.subprocess.Process

    async def start(self) -> None:
        words = [
            f"captioner.model={self.options.model}",
            f"engine.queue={4 * OUTSTANDING}",
            "reply.passive=true",
        ]
        self.discord.gateway.connected.clear()
        self._bot = await spawned(self.discord, self.telegram, self.database.parent, *words)
        async with asyncio.timeout(PATIENCE):
            await self.discord.gateway.connected.wait()

    async def end(self, how: signal.Signals) -> None:
        self._bot.send_signal(how)
        await self._bot.wait()

    async def run(self) -> None:
        """All posts, with trouble between them; the kills are spread evenly."""
        kills = {self.options.posts * (number + 1) // (self.options.kills + 1) for number in range(self.options.kills)}
        await self.start()
        for number in range(1, self.options.posts + 1):
            await self._post()
            if number % TROUBLE_EVERY == 0:
                await self._trouble()
            if number in kills:
                await self._kill()
            while self._unanswered() > OUTSTANDING:
                await asyncio.sleep(0.05)
                await self._vote()
        async with asyncio.timeout(PATIENCE):
            while self._open() or self.telegram.updates:
                await asyncio.sleep(0.2)
        await self._vote()
        await self._counted()
        await self.end(signal.SIGTERM)

    async def _counted(self) -> None:
        """A new session on Discord is caught up with over REST, which takes its time; the report says how it ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCHING_UP):
                while any(self._stored(platform) != self._cast(platform) for platform in ("discord", "telegram")):
                    await asyncio.sleep(1)

    async def _kill(self) -> None:
        """No warning, in the midst of everything; then the bot is started again."""
        await self.end(signal.SIGKILL)
        known = {row[0] for row in self._rows("SELECT id FROM requests WHERE platform = 'discord'")}
        recent = {post for post, at in self.last.items() if at > time.monotonic() - BEFORE_KILL}
        self.cut |= recent - known
        await self.start()

    async def _post(self) -> None:
        """Somebody posts a picture somewhere."""
        data = self.dice.choice(self.pictures)
        kind = self.dice.choice(("slash", "menu", "passive", "telegram", "telegram", "telegram"))
        self.posted["telegram" if kind == "telegram" else "discord"] += 1
        channel = self.dice.choice(self.channels)
        if kind == "telegram":
            self.dice.choice(self.groups).post_photo(data, "/meme")
        elif kind == "slash":
            self._note(await self.discord.slash(channel, "meme", {"image": data}))
        elif kind == "menu":
            message = Message(str(len(self.asked) + 1), channel, user("2"))
            message.attachments.append(self.discord.attachment(data))
            self._note(await self.discord.meme_this(message))
        else:
            self.last[(await self.discord.post(channel, "2", "", [data])).id] = time.monotonic()

    def _note(self, interaction: Interaction) -> None:
        self.asked.append(interaction)
        self.last[interaction.id] = time.monotonic()

    async def _trouble(self) -> None:
        """One of the things that go wrong."""
        kind = self.dice.choice(("drop", "reconnect", "429", "5xx", "slow", "new session"))
        if kind == "drop":
            await self.discord.gateway.drop(4000)
        elif kind == "reconnect":
            await self.discord.gateway.ask_to_reconnect()
        elif kind == "429":
            self.discord.faults.append((re.compile(r"(POST|PATCH) /(channels|webhooks)"), 429))
            self.telegram.fail("sendPhoto", Fault(429, retry_after=1, description="Too Many Requests"))
        elif kind == "5xx":
            self.discord.faults.append((re.compile(r"(POST|PATCH|CDN) /(channels|webhooks|cdn)"), 502))
            self.telegram.fail("sendPhoto", Fault(502))
            self.telegram.fail("download", Fault(500))
        elif kind == "slow":
            self.discord.cdn_delay = self.dice.choice((0, 0.5, 2))
            self.telegram.seconds_a_chunk = self.dice.choice((0, 0.05))
        else:
            self.discord.gateway.refuse_resume = not self.discord.gateway.refuse_resume

    async def _vote(self) -> None:
        """A reader puts an emoji on a meme, and some take it back."""
        if self.dice.random() > VOTE_SHARE:
            return
        self.voters += 1
        voter, emoji = 10_000 + self.voters, self.dice.choice(("👍", "😂", "💩"))
        memes = [meme for channel in self.channels for meme in self.discord.memes(channel)]
        if memes:
            await self.discord.react(self.dice.choice(memes), str(voter), emoji)
        group = self.dice.choice(self.groups)
        if group.memes:
            meme = self.dice.choice(group.memes)
            group.react(meme, voter, emoji.replace("😂", "🤣"))
            if self.dice.random() < 0.2:
                group.react(meme, voter)

    def _rows(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(query).fetchall()

    def _unanswered(self) -> int:
        """Posts without a meme or a sentence, as people see it."""
        unheard = self.discord.gateway.missed | self.cut
        waiting = sum(not each.is_answered and each.id not in unheard for each in self.asked)
        return waiting + len(self.telegram.updates) + self._open()

    def _open(self) -> int:
        return int(self._rows(f"SELECT count(*) FROM requests WHERE state IN {OPEN}")[0][0])

    def report(self) -> bool:
        """Print the counts; whether they add up."""
        good = [self._reported(platform) for platform in ("discord", "telegram")]
        gateway = self.discord.gateway
        print(
            f"discord: {gateway.resumed} resumes, {len(gateway.identified)} sessions; breaches {self.discord.breaches}"
        )
        return all(good) and not self.discord.breaches

    def _reported(self, platform: str) -> bool:
        """accepted = answered + refused with a sentence + expired; what is posted is accepted, or never arrived."""
        mine = f"FROM requests WHERE platform = '{platform}'"
        states = dict(self._rows(f"SELECT state, count(*) {mine} GROUP BY state"))
        unsaid = self._rows(f"SELECT count(*) {mine} AND state = 'refused' AND why = ''")[0][0]
        accepted = {row[0] for row in self._rows(f"SELECT id {mine}")}
        lost = len(accepted) - sum(states.get(state, 0) for state in ("answered", "refused", "expired")) + unsaid
        missed, cut = (
            (self.discord.gateway.missed & set(self.last), self.cut) if platform == "discord" else (set(), set())
        )
        unheard = (missed | cut) - accepted
        unaccounted = self.posted[platform] - len(accepted) - len(unheard)
        resent = self._rows(f"SELECT count(*) {mine} AND resent")[0][0]
        doubled, votes = self._doubled(platform), self._cast(platform)
        wrong = len(self._stored(platform) ^ votes)
        print(
            f"{platform}: {self.posted[platform]} posted, {len(missed - accepted)} of them while the gateway was down, "
            f"{len(cut - accepted)} as a kill came, {unaccounted} unaccounted for"
        )
        print(f"{platform}: {len(accepted)} accepted = {states}; {lost} lost")
        print(f"{platform}: {doubled} doubled of {resent} that were being sent at the kills")
        print(f"{platform}: {len(votes)} votes, {wrong} wrong")
        return not (lost or unaccounted or wrong) and doubled <= resent

    def _doubled(self, platform: str) -> int:
        """Memes beyond the first that answer the same message."""
        if platform == "telegram":
            answers = [(group.id, meme["answers"]) for group in self.groups for meme in group.memes]
        else:
            memes = [meme for channel in self.channels for meme in self.discord.memes(channel)]
            answers = [(meme.channel.id, meme.reference["message_id"]) for meme in memes if meme.reference]
        return len(answers) - len(set(answers))

    def _stored(self, platform: str) -> set[tuple[str, str, str, str]]:
        query = "SELECT chat, reply, r.user, emoji FROM reactions r JOIN memes ON id = r.meme"
        return set(self._rows(f"{query} WHERE memes.platform = '{platform}'"))

    def _cast(self, platform: str) -> set[tuple[str, str, str, str]]:
        """The votes that stand on memes that the store knows by their message."""
        known = set(self._rows(f"SELECT chat, reply FROM memes WHERE platform = '{platform}'"))
        if platform == "discord":
            return {vote for vote in self._discord_votes() if vote[:2] in known}
        return {vote for vote in self._telegram_votes(known) if vote[:2] in known}

    def _discord_votes(self) -> set[tuple[str, str, str, str]]:
        memes: list[Message] = [meme for channel in self.channels for meme in self.discord.memes(channel)]
        return {
            (meme.channel.id, meme.id, user, emoji)
            for meme in memes
            for emoji, users in meme.reactions.items()
            for user in users
            if user != APPLICATION
        }

    def _telegram_votes(self, known: set[tuple[str, str]]) -> set[tuple[str, str, str, str]]:
        """A vote on the other copy of a doubled meme is one on the meme: of two by one person, the latest."""
        votes: dict[tuple[str, str, str], list[str]] = {}
        for group in self.groups:
            answered = {str(meme["message_id"]): meme["answers"] for meme in group.memes}
            stands = {answered[m]: m for m in answered if (str(group.id), m) in known}
            for (message, who), standing in group.reactions.items():
                of = stands.get(answered.get(str(message)), str(message))
                votes[str(group.id), of, str(who)] = list(standing)
        return {(*key, emoji) for key, standing in votes.items() for emoji in standing}


async def main() -> int:
    parser = argparse.ArgumentParser(description="Posts, faults and kills on loopback platforms.")
    parser.add_argument("--posts", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--model", default="", help="checkpoint file; the shipped one")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        async with Discord() as discord, TelegramApi() as telegram:
            soak = Soak(discord, telegram, Path(folder), options)
            await soak.run()
            return 0 if soak.report() else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
