"""What the bot's tests share: settings, pictures, and a real captioner with a tiny model."""

import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bot import config
from bot.config import Config
from bot.engine import Engine
from bot.events import Fetch, ImagePosted
from bot.store import Store
from captioner.captioner import Captioner

Configured = Callable[..., Config]
Posted = Callable[..., ImagePosted]


def jpeg_of(seed: int, size: tuple[int, int] = (96, 64)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize(size).save(out, "JPEG")
    return out.getvalue()


def fetch_of(data: bytes) -> Fetch:
    async def fetch(max_bytes: int) -> bytes:
        return data

    return fetch


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    return jpeg_of


@pytest.fixture
def fetching() -> Callable[[bytes], Fetch]:
    return fetch_of


@pytest.fixture
def configured(tmp_path: Path, tiny_model: Path) -> Configured:
    """Settings for a test: everything is written below its own folder."""
    file = tmp_path / "test.toml"
    file.write_text(f'[store]\npath = "{tmp_path}/data/q.db"\n[captioner]\nmodel = "{tiny_model}"\nthreads = 1\n')
    return lambda *overrides: config.load(file, overrides, {})


@pytest.fixture(scope="session")
def captioner(tiny_model: Path) -> Captioner:
    return Captioner.load(tiny_model, device="cpu", threads=1)


@pytest.fixture
async def engine(configured: Configured, captioner: Captioner) -> AsyncIterator[Engine]:
    async with Engine(configured(), lambda _: captioner) as engine:
        yield engine


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store(tmp_path / "data" / "q.db") as store:
        yield store


@pytest.fixture
def posted() -> Posted:
    """A picture that somebody asks a meme of; keywords change the event."""

    def event(seed: int = 1, **changes: object) -> ImagePosted:
        fields: dict[str, object] = {
            "platform": "test",
            "chat": "c",
            "message": f"m{seed}",
            "user": "u",
            "fetch": fetch_of(jpeg_of(seed)),
        }
        return ImagePosted(**(fields | changes))  # type: ignore[arg-type]

    return event
