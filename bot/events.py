"""The vocabulary of the bot: what is posted, what is answered, and who talks to whom.

Standard library only. Adapters import this module and nothing else of ours; they reach the rest through the
`Service` they are handed. No object of a chat SDK ever appears in these types.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Style = Literal["meme", "describe"]
Fetch = Callable[[int], Awaitable[bytes]]
"""Fetches the picture's bytes, at most so many; raises `TooLarge` when there are more."""


class Expected(Exception):  # noqa: N818, what follows is no error of the program
    """A failure that a user causes or can understand; `str(error)` is a sentence that may be shown in the chat."""


class BadRequest(Expected):
    """Something in the request is missing or cannot be meant."""


class BadPicture(Expected):
    """The bytes are no picture that can be read."""


class TooLarge(Expected):
    """More bytes or pixels than the configuration allows."""


class Busy(Expected):
    """The queue is full, or the bot is stopping."""


class NotFound(Expected):
    """No such meme."""


class Gone(Expected):
    """The meme is known, its picture is not kept any more."""


class Failed(Expected):
    """Something broke that the user can do nothing about; the log has the traceback."""


@dataclass(frozen=True, slots=True)
class ImagePosted:
    """Somebody posted a picture, or asked for a meme of one."""

    platform: str
    chat: str
    message: str
    user: str
    fetch: Fetch = field(repr=False)
    text: str = ""
    """The words posted with the picture; captions may take them up."""
    own_boxes: tuple[str, ...] = ()
    """The user's own text, top to bottom; then nothing is generated but the description."""
    style: Style = "meme"
    seed: int | None = None
    candidates: int = 3
    addressed: bool = True
    """The bot was asked (a command, a mention, a reply); False for a picture that was merely posted."""
    from_bot: bool = False
    spoiler: bool = False


@dataclass(frozen=True, slots=True)
class ReactionChanged:
    """One user put an emoji on a meme, or took it off."""

    platform: str
    user: str
    emoji: str
    added: bool
    meme: str | None = None
    """The meme's id where the platform knows it, else `chat` and `message` name the reply."""
    chat: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One caption. `logprob` is the model's natural-log probability of the whole caption, `score` what ranks it."""

    boxes: tuple[str, ...]
    logprob: float
    reward: float | None
    score: float


@dataclass(frozen=True, slots=True)
class MemeReply:
    """A finished meme: the drawn picture and everything a reader, a voter or the next model needs to know of it."""

    id: str
    data: bytes = field(repr=False)
    content_type: str
    alt: str
    boxes: tuple[str, ...]
    description: str
    seed: int
    model: str
    candidates: tuple[Candidate, ...]
    chosen: int | None
    """Which candidate was drawn; None for the user's own text."""
    explored: bool = False
    """Posted without re-ranking, so that the next model can be judged without bias."""
    spoiler: bool = False


@dataclass(frozen=True, slots=True)
class MemeRecord:
    """A meme as the store remembers it, with its votes; `created` in seconds since the epoch."""

    id: str
    platform: str
    chat: str
    user: str
    created: float
    alt: str
    boxes: tuple[str, ...]
    description: str
    style: Style
    seed: int
    model: str
    candidates: tuple[Candidate, ...]
    chosen: int | None
    explored: bool
    content_type: str
    reactions: dict[str, int]
    """Emoji to the number of users who put it."""
    mine: tuple[str, ...] = ()
    """The emoji that the asking user put."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something every open window should hear of: a new meme, or the votes on one."""

    kind: Literal["meme", "reactions"]
    meme: MemeRecord


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of the model for one picture."""

    style: Style = "meme"
    seed: int = 0
    candidates: int = 3
    context: str = ""
    own_boxes: tuple[str, ...] = ()
    """Words to draw as they stand; then nothing is generated but the description."""
    description: str = ""
    """What the picture shows, where it is known already; with `own_boxes` the model is then not asked at all."""
    explore: bool = False
    max_bytes: int | None = None
    """The drawn file's upper size, where the platform has one (`Service.fit`)."""


@dataclass(frozen=True, slots=True)
class Made:
    """What the engine made of one picture."""

    data: bytes = field(repr=False)
    content_type: str
    candidates: tuple[Candidate, ...]
    chosen: int | None
    boxes: tuple[str, ...]
    description: str
    model: str
    template: str | None = None
    picture: bytes = field(default=b"", repr=False)
    """The upright picture without text and without metadata, as it is kept for buttons."""
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds a stage: wait, read, caption (encode and decode), draw."""


class Engine(Protocol):
    """The one door to the model. Every method may raise `Expected`."""

    @property
    def model(self) -> str:
        """The serving model's name."""
        ...

    @property
    def ready(self) -> bool: ...

    @property
    def waiting(self) -> int:
        """How many pictures are queued."""
        ...

    async def make(self, fetch: Fetch, wish: Wish) -> Made:
        """Read, caption and draw one picture; raises `Busy` at once when the queue is full."""
        ...

    async def explain(self, fetch: Fetch, boxes: Sequence[str], style: Style) -> bytes:
        """A PNG of the caption's words over the attention they paid to the picture."""
        ...

    async def swap(self, model: str) -> None:
        """Serve another checkpoint file; what is being captioned finishes on the old one."""
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """What the store writes for one meme beside its record; the pictures are bytes of image files."""

    picture: bytes = field(repr=False)
    source: bytes = field(default=b"", repr=False)
    """The picture without text; empty for a meme of the picture that its `parent` was made of."""
    message: str = ""
    """The message that brought the picture."""
    parent: str | None = None
    """The meme that this one is another version of."""
    template: str | None = None
    spoiler: bool = False


class Store(Protocol):
    """What is remembered. Every method may raise `NotFound`; what it returned from has been written."""

    async def add(self, meme: MemeRecord, kept: Kept) -> None:
        """A new meme with its candidates and pictures, all or nothing."""
        ...

    async def sent(self, meme: str, message: str) -> None: ...

    async def reply(self, platform: str, chat: str, message: str) -> str:
        """The id of the meme that was sent as this message."""
        ...

    async def react(self, meme: str, change: ReactionChanged, at: float) -> bool:
        """Write one vote (`change.emoji` is normalised); False where it stood so already."""
        ...

    async def record(self, meme: str, user: str = "") -> MemeRecord: ...

    async def latest(self, platform: str, chat: str, user: str, limit: int) -> list[MemeRecord]: ...

    async def picture(self, meme: str) -> bytes:
        """The drawn file; raises `Gone` when it is not kept any more."""
        ...

    async def source(self, meme: str) -> bytes:
        """The picture without text; raises `Gone` when it is not kept any more."""
        ...

    async def spoiler(self, meme: str) -> bool: ...


class Changes(Protocol):
    """An endless iterator of changes. It listens from the moment it is made, not from the first `anext`."""

    def __aiter__(self) -> "Changes": ...

    async def __anext__(self) -> Change: ...

    async def aclose(self) -> None: ...


class Service(Protocol):
    """What adapters may ask of the bot. Every method may raise `Expected`."""

    async def post(self, event: ImagePosted) -> MemeReply | None:
        """Answer a picture; None where policy says to stay silent."""
        ...

    async def react(self, change: ReactionChanged) -> None:
        """Count a vote; adding twice counts once; raises `NotFound` for a meme that is not ours."""
        ...

    async def redo(self, meme: str, user: str, *, candidate: int | None = None, seed: int | None = None) -> MemeReply:
        """Another meme of the same picture: the given candidate of that meme drawn, or new captions by a new seed."""
        ...

    async def own_text(self, meme: str, user: str, boxes: Sequence[str]) -> MemeReply:
        """The user's own words on a meme's picture."""
        ...

    async def sent(self, meme: str, message: str) -> None:
        """The meme stands in its chat as this message; votes may name it so from now on."""
        ...

    async def explain(self, meme: str) -> bytes:
        """A PNG: the words of the meme over the attention they paid."""
        ...

    async def picture(self, meme: str) -> tuple[bytes, str]:
        """The drawn meme and its content type."""
        ...

    async def record(self, meme: str, user: str = "") -> MemeRecord: ...

    async def latest(self, platform: str, chat: str, user: str, limit: int = 30) -> list[MemeRecord]:
        """The chat's last memes, oldest first, with votes."""
        ...

    def changes(self, platform: str, chat: str) -> Changes:
        """Every new meme and vote of a chat from now on, until the iterator is closed or the bot stops.

        A reader that lags gets the newest state of each meme; `mine` is always empty here.
        """
        ...


class Adapter(Protocol):
    """One platform. `run` serves until it is cancelled; `ready` tells whether users are being answered."""

    name: str

    @property
    def ready(self) -> bool: ...

    async def run(self, service: Service) -> None: ...


class Health(Protocol):
    """What the HTTP server tells of the process."""

    def live(self) -> tuple[bool, str]: ...

    def ready(self) -> tuple[bool, str]: ...

    def metrics(self) -> tuple[bytes, str]:
        """The exposition and its content type."""
        ...
