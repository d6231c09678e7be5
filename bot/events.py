"""The vocabulary of the bot: what is posted, what is answered, and who talks to whom.

Standard library only. Adapters import this module and nothing else of ours; they reach the rest through the
`Service` they are handed. No object of a chat SDK ever appears in these types.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Style = Literal["meme", "describe"]
Filter = Literal["strict", "normal", "off"]
Outcome = Literal["answered", "silent", "refused", "expired"]
ANIMATED_PICTURES = frozenset({"image/gif", "image/webp"})
"""Content types that browsers show moving where they show pictures."""
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


class Blocked(Expected):
    """Words that the chat's filter does not let through."""


class TooSoon(Expected):
    """The chat's or the user's cool-down is not over; `wait` are the seconds that are left of it."""

    def __init__(self, sentence: str, wait: int) -> None:
        super().__init__(sentence)
        self.wait = wait


class Withdrawn(Expected):
    """Who asked for the meme, or whose picture it is, was forgotten while it was made: it is not kept."""


class Forbidden(Expected):
    """Not this user's to do: somebody else's meme, or the picture of a person who opted out."""


class Failed(Expected):
    """Something broke that the user can do nothing about; the log has the traceback."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where settings hold. A chat's own come before its server's, and these before the configuration's."""

    platform: str
    chat: str
    """"" for the whole server; of a thread, the channel that it belongs to."""
    server: str = ""
    """"" where chats belong to none."""
    adult: bool = False
    """The platform marks the chat as one for adults; only there may the filter be off."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the bot behaves in a place."""

    passive: bool = False
    """Pictures that are merely posted are answered, too."""
    chance: float = 1.0
    """Share of those that are."""
    cooldown_chat: float = 0.0
    """Seconds between two answers in a chat to pictures merely posted."""
    cooldown_user: float = 0.0
    """Seconds between two memes for one user."""
    filter: Filter = "normal"
    emoji: tuple[str, ...] = ("👍", "👎")
    """What the bot offers to vote with."""
    consent: bool = False
    """Features of posted pictures may be kept, to learn from."""


@dataclass(frozen=True, slots=True)
class Request:
    """Something that the bot took on: a row from before the platform hears of it until it is done with.

    `id` is unique on its platform and stays the same when the platform tells of the same thing again (the id of an
    interaction or a message). `payload` is whatever its adapter needs to go on after a crash, as JSON.
    """

    platform: str
    id: str
    chat: str
    user: str
    expires: float
    """Seconds since the epoch from which on the platform takes no answer."""
    payload: Mapping[str, Any] = field(repr=False)
    message: str = ""
    """The message with the picture; when it is deleted, the request is."""
    meme: str | None = None
    """What was made of it already."""
    sending: bool = False
    """The process ended while the answer was on its way: it may be there or not."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A meme that stands in a chat as a message, for its adapter to look at or delete."""

    meme: str
    chat: str
    message: str
    source: str = ""
    """The message that its picture is of, where there is one."""


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
    author: str = ""
    """Whose picture it is, where that is not the user."""
    place: Place | None = None
    """Whose settings hold; None for the chat's own."""
    request: str = ""
    """The accepted request that this answers."""
    max_bytes: int | None = None
    """The largest file that the platform takes here."""
    moving: frozenset[str] = ANIMATED_PICTURES
    """Content types of what the platform shows moving."""


@dataclass(frozen=True, slots=True)
class ReactionChanged:
    """One user put an emoji on a meme, or took it off. Adapters leave out bots."""

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
    server: str = ""
    message: str = ""
    """The message that brought the picture."""
    reply: str = ""
    """The message as which the meme stands in its chat."""
    author: str = ""
    """Whose picture it is."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A meme on the leaderboard."""

    meme: MemeRecord
    up: int
    down: int


@dataclass(frozen=True, slots=True)
class Stats:
    """The serving model, and how the memes are received whose words it chose; all over, on every platform."""

    model: str
    memes: int
    up: int
    down: int

    @property
    def approval(self) -> float | None:
        """Share of the votes that are in favour; None without any."""
        return self.up / (self.up + self.down) if self.up + self.down else None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was removed of a user; `str` is a sentence."""

    memes: int
    reactions: int
    requests: int
    gone: tuple[Placed, ...] = ()
    """The memes, oldest first."""
    voted: tuple[Placed, ...] = ()
    """Other people's memes that have fewer votes now."""

    def __str__(self) -> str:
        counted = {"meme": self.memes, "vote": self.reactions, "request": self.requests}
        words = [f"{count} {what}" if count == 1 else f"{count} {what}s" for what, count in counted.items()]
        return f"Forgotten: {', '.join(words)}."


@dataclass(frozen=True, slots=True)
class Change:
    """Something every open window should hear of: a new meme, the votes on one, or that one is remembered no more.

    It tells which meme, and nothing of what it holds: that may be forgotten before a slow listener hears of it.
    """

    kind: Literal["meme", "reactions", "gone"]
    platform: str
    chat: str
    meme: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of the model for one picture."""

    style: Style = "meme"
    seed: int = 0
    candidates: int = 3
    again: bool = False
    """Whether something else is wanted than what was made of the picture before."""
    context: str = ""
    own_boxes: tuple[str, ...] = ()
    """Words to draw as they stand; then nothing is generated but the description."""
    picked: bool = False
    """Whether these are a caption of the model's, to be put where it suits the picture."""
    description: str = ""
    """What the picture shows, where it is known already; with `own_boxes` the model is then not asked at all."""
    explore: bool = False
    max_bytes: int | None = None
    """The drawn file's upper size, where the platform has one."""
    filter: Filter = "normal"
    """What neither the model nor a user may write."""
    chat: str = ""
    """Whose taste ranks the captions."""
    trial: bool = False
    """To be made by the model that is on trial, where there is one."""
    features: bool = False
    """Whether what the model saw is wanted too, to learn from."""
    template: str | None = None
    """The template that the picture is known to be of, for words that the model is not asked for."""
    mirrored: bool = False
    """Whether that is as in a mirror."""
    moving: frozenset[str] = ANIMATED_PICTURES
    """Content types that an animation may come back as."""
    request: str = ""
    """By which `ahead` finds the picture in the queue."""
    kept: bool = False
    """Whether the picture is one that is kept already, as it was kept."""


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
    features: bytes = field(default=b"", repr=False)
    """What the model saw, packed in 8 bits a number; only where it was wanted."""
    mirrored: bool = False
    """The picture is of its template as in a mirror."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a chat thought of one caption that it was shown at a unix time: weighted votes for it and against it."""

    boxes: tuple[str, ...]
    template: str | None
    up: float
    down: float
    chat: str
    at: float


@dataclass(frozen=True, slots=True)
class Preference:
    """Two captions of one picture of which somebody chose one at a unix time."""

    better: tuple[str, ...]
    worse: tuple[str, ...]
    template: str | None
    chat: str
    at: float
    weight: float


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

    def ahead(self, request: str) -> int | None:
        """How many pictures come before that of a request; None when it does not wait (any more)."""
        ...

    async def make(self, fetch: Fetch, wish: Wish) -> Made:
        """Read, caption and draw one picture; raises `Busy` at once when the queue is full."""
        ...

    async def explain(self, fetch: Fetch, boxes: Sequence[str], style: Style) -> bytes:
        """A PNG of the caption's words over the attention they paid to the picture."""
        ...

    async def fit(self, data: bytes, max_bytes: int) -> tuple[bytes, str]:
        """A drawn meme encoded smaller, and its content type; raises `TooLarge` where it cannot be."""
        ...

    async def swap(self, model: str) -> None:
        """Serve another checkpoint file; what is being captioned finishes on the old one."""
        ...

    async def try_out(self, model: str) -> None:
        """Serve wishes for the model on trial by another checkpoint file, or by none."""
        ...

    async def taste(self, chat: str, judged: Sequence[Judgement], preferred: Sequence[Preference]) -> None:
        """Rank a chat's captions by what it liked from now on; "" stands for chats that have not voted yet."""
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """What the store writes for one meme beside its record; the pictures are bytes of image files."""

    picture: bytes = field(repr=False)
    source: bytes = field(default=b"", repr=False)
    """The picture without text; empty for a meme of the picture that its `parent` was made of."""
    parent: str | None = None
    """The meme that this one is another version of."""
    template: str | None = None
    mirrored: bool = False
    spoiler: bool = False
    request: str = ""
    """The accepted request that the meme answers."""
    picked: bool = False
    """Somebody chose it among the candidates."""
    features: bytes = field(default=b"", repr=False)
    """What the model saw, where the chat consented."""
    place: str = ""
    """The chat whose consent that is."""


@dataclass(frozen=True, slots=True)
class Day:
    """A day's figures; `date` as in 2026-11-21."""

    date: str
    memes: int
    up: int
    down: int


@dataclass(frozen=True, slots=True)
class Version:
    """A model that served or might: how it came to be, and how its memes are received."""

    id: str
    state: str
    """serving, shipped, promoted, trial, refused, unjudged, broken or removed."""
    parent: str
    created: float | None
    labels: int
    """Memes with votes that it learnt from."""
    memes: int
    """Those with words that it chose: no picks, people's own texts or descriptions."""
    approval: float | None
    """Share of the votes that are in favour, 0 to 1, and its 95 % interval; None without votes."""
    low: float
    high: float
    verdict: Mapping[str, Any]
    """What the gate said."""
    words: str = ""


@dataclass(frozen=True, slots=True)
class Retrained:
    """One retraining; `outcome` is empty as long as it goes on."""

    number: int
    began: float
    ended: float | None
    model: str
    labels: int
    outcome: str
    words: str


@dataclass(frozen=True, slots=True)
class Rated:
    """The text of a meme, and its weighted votes."""

    boxes: tuple[str, ...]
    up: float
    down: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What the operator sees of a bot that learns."""

    days: Sequence[Day]
    versions: Sequence[Version]
    retrainings: Sequence[Retrained]
    best: Sequence[Rated]
    worst: Sequence[Rated]
    stages: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Median and 95th percentile of the last memes, in seconds."""
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """How many retrainings ended how; "" for those under way."""


class Store(Protocol):
    """What is remembered. Every method may raise `NotFound`; what it returned from has been written."""

    async def accept(self, request: Request, at: float) -> bool: ...

    async def unfinished(self, platform: str, now: float) -> list[Request]: ...

    async def concerns(self, platform: str, request: str, message: str) -> None: ...

    async def sending(self, platform: str, request: str) -> bool: ...

    async def finish(self, platform: str, request: str, outcome: Outcome, why: str = "") -> None: ...

    async def withdraw(self, platform: str, chat: str, message: str, why: str) -> None: ...

    async def counts(self, platform: str) -> dict[str, int]: ...

    async def add(self, meme: MemeRecord, kept: Kept) -> None:
        """A new meme with its candidates and pictures, all or nothing."""
        ...

    async def sent(self, meme: str, message: str) -> None: ...

    async def reply(self, platform: str, chat: str, message: str) -> str:
        """The id of the meme that was sent as this message."""
        ...

    async def standing(self, platform: str, since: float) -> list[Placed]: ...

    async def react(self, meme: str, change: ReactionChanged, at: float) -> bool:
        """Write one vote (`change.emoji` is normalised); False where it stood so already."""
        ...

    async def set_votes(
        self, meme: str, platform: str, votes: Collection[tuple[str, str]], at: float, *, user: str | None = None
    ) -> tuple[int, int]:
        """Exactly these (user, emoji) votes stand on a meme, or these of one user; how many were new, and gone."""
        ...

    async def clear_votes(self, meme: str, emoji: str | None) -> int: ...

    async def record(self, meme: str, user: str = "") -> MemeRecord: ...

    async def latest(self, platform: str, chat: str, user: str, limit: int) -> list[MemeRecord]: ...

    async def tallies(
        self, place: Place, since: float, among: Collection[str] | None = None
    ) -> dict[str, dict[str, int]]: ...

    async def picture(self, meme: str) -> bytes:
        """The drawn file; raises `Gone` when it is not kept any more."""
        ...

    async def source(self, meme: str) -> bytes:
        """The picture without text; raises `Gone` when it is not kept any more."""
        ...

    async def spoiler(self, meme: str) -> bool: ...

    async def layout(self, meme: str) -> tuple[str | None, bool]: ...

    async def check_kept(self, meme: str) -> None: ...

    async def count_votes(
        self, meme: str, platform: str, totals: Mapping[str, int], at: float, *, named: bool
    ) -> tuple[int, int]: ...

    async def delete(self, memes: Sequence[str]) -> None: ...

    async def about(self, platform: str, chat: str, message: str) -> list[Placed]: ...

    async def settings(self, place: Place) -> dict[str, Any]: ...

    async def change_settings(self, place: Place, user: str, changes: Mapping[str, Any], at: float) -> None: ...

    async def move(self, platform: str, old: str, new: str) -> None: ...

    async def opt_out(self, platform: str, user: str, out: bool, at: float) -> None: ...

    async def opted_out(self, platform: str, user: str) -> bool: ...

    async def votes(self, model: str) -> tuple[int, dict[str, int]]: ...

    async def export(self, platform: str, user: str) -> dict[str, Any]: ...

    async def forget(self, platform: str, user: str, at: float) -> Forgotten: ...

    async def figures(self, up: Collection[str], down: Collection[str], model: str, now: float) -> Figures: ...


class Changes(Protocol):
    """An endless iterator of changes. It listens from the moment it is made, not from the first `anext`."""

    def __aiter__(self) -> "Changes": ...

    async def __anext__(self) -> Change: ...

    async def aclose(self) -> None: ...


class Service(Protocol):
    """What adapters may ask of the bot. Every method may raise `Expected`."""

    async def accept(self, request: Request) -> bool:
        """Take a request on; it is on the disk when this returns. False where it was taken on before."""
        ...

    async def unfinished(self, platform: str) -> list[Request]:
        """What an earlier process took on and did not finish, oldest first; what is too late ends as expired."""
        ...

    async def concerns(self, platform: str, request: str, message: str) -> None:
        """It has turned out which message has the picture that a request asks for: it ends when that is deleted."""
        ...

    async def sending(self, platform: str, request: str) -> bool:
        """The answer is about to be sent. False where the request has ended meanwhile: then it is not to be sent."""
        ...

    async def finish(self, platform: str, request: str, outcome: Outcome, why: str = "") -> None:
        """A request is done with; `why` is the sentence that was shown. `sent` does this for one that got a meme."""
        ...

    def ahead(self, platform: str, request: str) -> int | None:
        """How many pictures come before that of a request; None when it does not wait (any more)."""
        ...

    async def post(self, event: ImagePosted) -> MemeReply | None:
        """Answer a picture; None where policy says to stay silent."""
        ...

    async def react(self, change: ReactionChanged) -> None:
        """Count a vote; adding twice counts once; raises `NotFound` for a meme that is not ours."""
        ...

    async def set_votes(
        self, platform: str, chat: str, message: str, votes: Collection[tuple[str, str]], *, user: str | None = None
    ) -> None:
        """Exactly these (user, emoji) votes stand on the meme that was sent as `message`; with `user`, of that user.

        For what a platform tells in whole sets, and to catch up after a restart. Raises `NotFound` as `react` does.
        """
        ...

    async def count_votes(
        self, platform: str, chat: str, message: str, totals: Mapping[str, int], *, named: bool
    ) -> None:
        """Votes that a platform tells as totals by emoji only; with `named`, votes by name are part of the totals.

        They are kept as votes of the users `anonymous:1`, `anonymous:2`, … Raises `NotFound` as `react` does.
        """
        ...

    async def clear_votes(self, platform: str, chat: str, message: str, written: str | None = None) -> None:
        """All votes on a meme are gone, or all with one emoji."""
        ...

    async def standing(self, platform: str, since: float) -> list[Placed]:
        """Memes that were made since and stand in a chat: those whose votes may have changed unseen."""
        ...

    async def redo(
        self,
        meme: str,
        user: str,
        *,
        candidate: int | None = None,
        seed: int | None = None,
        place: Place | None = None,
        request: str = "",
    ) -> MemeReply:
        """Another meme of the same picture: the given candidate of that meme drawn, or new captions by a new seed."""
        ...

    async def own_text(
        self, meme: str, user: str, boxes: Sequence[str], *, place: Place | None = None, request: str = ""
    ) -> MemeReply:
        """The user's own words on a meme's picture; raises `Blocked`."""
        ...

    async def meme_at(self, platform: str, chat: str, message: str) -> str:
        """The id of the meme that was sent as this message; raises `NotFound`."""
        ...

    async def check_kept(self, meme: str) -> MemeRecord:
        """A meme that buttons can work on; raises `NotFound`, or `Gone` where its picture is not kept any more."""
        ...

    async def reply(self, meme: str) -> MemeReply:
        """A meme as it was made, to be sent after a crash; raises `Gone`."""
        ...

    async def fit(self, reply: MemeReply, max_bytes: int) -> MemeReply:
        """The same meme, encoded smaller; raises `TooLarge` where it cannot be."""
        ...

    async def sent(self, meme: str, message: str) -> None:
        """The meme stands in its chat as this message; votes may name it so from now on. Its request is answered."""
        ...

    async def check_deletable(self, meme: str, user: str, *, moderator: bool = False) -> None:
        """Raises `Forbidden` for anybody but a meme's asker, the picture's author and moderators; `NotFound`."""
        ...

    async def delete(self, meme: str, user: str, *, moderator: bool = False) -> None:
        """Forget a meme; raises what `check_deletable` raises. Its message goes first: else nobody could ask again."""
        ...

    async def deleted(self, platform: str, chat: str, message: str) -> list[Placed]:
        """A message is gone from its chat: forget the meme that it was, and requests for memes of its picture.

        Those that stand in the chat are returned, for the adapter to delete, and to tell of in the same way: until then
        they are remembered, so that a later process can go on with it.
        """
        ...

    async def explain(self, meme: str) -> bytes:
        """A PNG: the words of the meme over the attention they paid."""
        ...

    async def picture(self, meme: str) -> tuple[bytes, str]:
        """The drawn meme and its content type."""
        ...

    async def record(self, meme: str, user: str = "") -> MemeRecord: ...

    async def latest(self, platform: str, chat: str, user: str, limit: int = 30) -> list[MemeRecord]:
        """The chat's last memes whose pictures are kept, oldest first, with votes."""
        ...

    async def settings(self, place: Place) -> Settings:
        """How the bot behaves there; the filter is never off outside a chat for adults."""
        ...

    async def change_settings(self, place: Place, user: str, changes: Mapping[str, Any]) -> Settings:
        """Set some of a place's settings by name (None: as its server or the configuration has it); `BadRequest`."""
        ...

    async def moved(self, platform: str, old: str, new: str) -> None:
        """The platform gave a chat another number: what is remembered of it goes with it."""
        ...

    async def opt_out(self, platform: str, user: str, out: bool) -> None:
        """Whether other people may have memes made of this user's pictures."""
        ...

    async def opted_out(self, platform: str, user: str) -> bool: ...

    async def leaderboard(
        self, place: Place, *, among: Collection[str] | None = None, days: float = 30, limit: int = 10
    ) -> list[Ranked]:
        """The memes with the best votes, of a chat, or of a server where `place.chat` is empty: of chats `among`."""
        ...

    async def stats(self) -> Stats: ...

    async def export(self, platform: str, user: str) -> bytes:
        """Everything that is remembered of a user, as JSON."""
        ...

    async def forget(self, platform: str, user: str) -> Forgotten:
        """Remove everything of a user but the wish not to be memed."""
        ...

    async def figures(self) -> Figures:
        """Memes, votes, models and retrainings, for the operator."""
        ...

    def changes(self, platform: str, chat: str) -> Changes:
        """What new memes, votes and forgotten memes a chat has from now on, until it is closed or the bot stops.

        A reader that lags gets one change of each meme.
        """
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """What a doctor found: fine or not, and in plain words what it is, or what is missing and how to mend it."""

    name: str
    well: bool
    words: str


class Unusable(Exception):  # noqa: N818, what the platform says, not a bug
    """The platform does not take the bot as it is configured; `str(error)` says why, and how to mend it."""


class Adapter(Protocol):
    """One platform. `run` serves until it is cancelled; `ready` tells whether users are being answered.

    When `run` raises, the adapter is started again after a while: at once after most errors, late after `Unusable`.
    """

    name: str

    @property
    def ready(self) -> bool: ...

    async def run(self, service: Service) -> None: ...


class Chat(Adapter, Protocol):
    """An adapter of a platform elsewhere, which can say how the bot stands there."""

    async def examine(self, chats: Sequence[str]) -> list[Finding]:
        """Ask the platform, changing nothing; `chats` are the last ones in which memes were made."""
        ...


@dataclass(frozen=True, slots=True)
class RatingTask:
    """What a rater is shown: one meme, two of the same picture, or none when all is rated.

    Who wrote a meme is no part of it, nor told by its id.
    """

    memes: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    """The texts on each meme."""
    done: int
    all: int


class Ratings(Protocol):
    """The blind rating of memes. Every method may raise `Expected`."""

    async def next(self, platform: str, user: str) -> RatingTask: ...

    async def rate(self, platform: str, user: str, memes: Sequence[str], answers: Mapping[str, str]) -> None:
        """Write down answers by question; without any, the memes were passed over."""
        ...

    async def take_back(self, platform: str, user: str) -> RatingTask:
        """Forget the rater's last answers; what they were on is shown again."""
        ...

    def picture(self, meme: str) -> tuple[bytes, str]:
        """A drawn meme and its content type."""
        ...


class Health(Protocol):
    """What the HTTP server tells of the process."""

    def live(self) -> tuple[bool, str]: ...

    def ready(self) -> tuple[bool, str]: ...

    def metrics(self) -> tuple[bytes, str]:
        """The exposition and its content type."""
        ...
