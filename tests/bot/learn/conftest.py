"""What the tests of learning share: memes with votes, and a retraining whose captioner is a stand-in."""

from collections.abc import Awaitable, Callable

import pytest

from bot.config import Config
from bot.events import Candidate, Kept, MemeRecord, ReactionChanged
from bot.learn.retraining import Retraining
from bot.store import Store
from tests.fakes.learning_bot import CAPTIONER

Told = Callable[..., Awaitable[None]]
Trained = Callable[..., Retraining]
NOON = 1_763_726_400.0


def meme(name: str, **changes: object) -> MemeRecord:
    """A meme of the first of two captions."""
    fields: dict[str, object] = {
        "id": name,
        "platform": "test",
        "chat": "c",
        "user": "asker",
        "created": NOON,
        "alt": "",
        "boxes": ("top", name),
        "description": "a dog",
        "style": "meme",
        "seed": 1,
        "model": "tiny",
        "candidates": (Candidate(("top", name), -1.5, 0.25, 2.0), Candidate(("other",), -2.5, None, 1.0)),
        "chosen": 0,
        "explored": False,
        "content_type": "image/jpeg",
        "reactions": {},
        "author": "poster",
    }
    return MemeRecord(**(fields | changes))  # type: ignore[arg-type]


async def react(store: Store, name: str, user: str, emoji: str, later: float = 60.0) -> None:
    await store.react(name, ReactionChanged("test", user, emoji, added=True), NOON + later)


@pytest.fixture
async def voted(store: Store) -> Store:
    """Thirty memes of one chat: two thirds liked by two, the others disliked."""
    for number in range(30):
        name = f"m{number:02d}"
        await store.add(meme(name, created=NOON + number), Kept(b"drawn", template="doge"))
        for user in ("ann", "bob"):
            await react(store, name, user, "👎" if number % 3 == 0 else "😂")
    return store


@pytest.fixture
def trained(configured: Callable[..., Config]) -> Trained:
    def retraining(*overrides: str, **changes: object) -> Retraining:
        return Retraining(configured(*overrides), captioner=CAPTIONER, **changes)  # type: ignore[arg-type]

    return retraining
