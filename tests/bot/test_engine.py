import asyncio
import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from bot.engine import Engine, Model
from bot.events import BadPicture, Busy, Failed, Fetch, Made, TooLarge, Wish
from captioner.captioner import Captioned, Captioner
from captioner.captioner import Wish as ModelWish
from captioner.images import Picture

from .conftest import Configured

Jpeg = Callable[..., bytes]
Fetching = Callable[[bytes], Fetch]


class Gated:
    """The real captioner, which waits at `gate` before each batch after the first, and can be made to fail."""

    def __init__(self, captioner: Captioner) -> None:
        self.inner = captioner
        self.gate = threading.Event()
        self.batches: list[list[int]] = []
        self.hated: set[int] = set()

    name = "gated"

    def caption(self, jobs: Sequence[tuple[Picture, ModelWish]]) -> list[Captioned]:
        seeds = [wish.seed for _, wish in jobs]
        if self.batches:
            assert self.gate.wait(30)
        self.batches.append(seeds)
        if self.hated.intersection(seeds):
            raise RuntimeError("no such luck")
        return self.inner.caption(jobs)

    def read(self, data: bytes) -> Picture:
        return self.inner.read(data)

    def draw(self, picture: Picture, boxes: Sequence[str]) -> Image.Image:
        return self.inner.draw(picture, boxes)

    def explain(self, picture: Picture, boxes: Sequence[str], style: str = "meme") -> bytes:
        return self.inner.explain(picture, boxes)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)
