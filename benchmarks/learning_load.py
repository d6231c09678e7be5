"""What a retraining under way costs the people who post: the median time of a meme with one and without.

    .venv/bin/python -m benchmarks.learning_load [--memes 30] [--model FILE]

A bot with drawn-up votes serves pictures one after the other, with pauses, alone; while `captioner finetune` works
and stands still for pictures, as in the running bot; and while it does not stand still, as when it is started by hand.
Prints the medians and their ratios.
"""

import argparse
import asyncio
import io
import random
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from bot import config as configuration
from bot.config import Config
from bot.engine import Engine
from bot.events import Candidate, Kept, MemeRecord, ReactionChanged, Wish
from bot.learn.retraining import Retraining
from bot.store import Store

VOTED = 300
WORDS = ("dog", "cat", "beach", "monday", "boss", "code", "coffee", "meeting", "test", "friday", "pizza", "sleep")
RECIPE = ("memes=100", "downs=20", "epochs=1000", "divergence=1000")
"""Few votes are enough, and it goes on for longer than is measured."""
SETTLED = 5.0
"""Seconds of fine-tuning before it is measured."""


async def fill(store: Store) -> None:
    """Memes whose votes depend on their words, over a month."""
    dice, month = random.Random(1), 30 * 86_400.0
    for number in range(VOTED):
        at = time.time() - month + number * month / VOTED
        texts = [tuple(" ".join(dice.sample(WORDS, 3)) for _ in range(2)) for _ in range(3)]
        candidates = tuple(Candidate(boxes, -20.0, 0.0, 0.0) for boxes in texts)
        record = MemeRecord(
            id=f"m{number}",
            platform="web",
            chat="page",
            user=f"u{number % 9}",
            created=at,
            alt="",
            boxes=texts[0],
            description="",
            style="meme",
            seed=number,
            model="shipped",
            candidates=candidates,
            chosen=0,
            explored=False,
            content_type="image/jpeg",
            reactions={},
        )
        await store.add(record, Kept(b"drawn"))
        for voter in range(3):
            liked = dice.random() < (0.9 if "dog" in " ".join(texts[0]) else 0.3)
            change = ReactionChanged("web", f"v{voter}", "👍" if liked else "👎", added=True)
            await store.react(record.id, change, at + 60)


async def median(engine: Engine, memes: int, pause: float) -> float:
    """Seconds from the picture to the meme."""
    taken = []
    for number in range(memes):
        data = picture(number)

        async def fetch(_: int, data: bytes = data) -> bytes:
            return data

        began = time.perf_counter()
        await engine.make(fetch, Wish(seed=number))
        taken.append(time.perf_counter() - began)
        await asyncio.sleep(pause)
    return statistics.median(taken)


def picture(seed: int) -> bytes:
    """Soft colours, so that no two are captioned alike."""
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((640, 480)).save(out, "JPEG")
    return out.getvalue()


async def beside_training(engine: Engine, retraining: Retraining, memes: int, pause: float) -> float:
    task = asyncio.create_task(retraining.run())
    models = retraining.config.store.folder / "models"
    while not (models.is_dir() and any(entry.is_dir() for entry in models.iterdir())):
        if task.done():
            raise SystemExit(f"The retraining ended early: {task.result()}")
        await asyncio.sleep(0.2)
    await asyncio.sleep(SETTLED)
    found = await median(engine, memes, pause)
    if task.done():
        raise SystemExit(f"The retraining ended early: {task.result()}")
    task.cancel()
    await asyncio.wait([task])
    return found


async def main(options: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config: Config = configuration.load(None, [f"store.path={folder}/q.db", "captioner.device=cpu"], {})
        if options.model:
            config = replace(config, captioner=replace(config.captioner, model=str(options.model.absolute())))
        config = replace(config, learn=replace(config.learn, recipe=RECIPE))
        store = await stack.enter_async_context(Store(config.store.path))
        await fill(store)
        engine = await stack.enter_async_context(Engine(config))
        await median(engine, 3, 0.0)
        alone = await median(engine, options.memes, options.pause)
        print(f"alone: {1000 * alone:.0f} ms", flush=True)
        for name, busy in (
            ("standing still for pictures", lambda: engine.busy),
            ("never standing still", lambda: False),
        ):
            found = await beside_training(engine, Retraining(config, busy), options.memes, options.pause)
            print(f"beside a retraining, {name}: {1000 * found:.0f} ms, {found / alone:.2f} times", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memes", type=int, default=30, help="pictures of each measurement")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two pictures")
    parser.add_argument("--model", type=Path, help="the checkpoint that serves; the shipped one without")
    asyncio.run(main(parser.parse_args()))
