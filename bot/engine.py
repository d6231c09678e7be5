"""The one door to the model: a bounded queue, micro-batches, threads, and the switch to another checkpoint.

A request waits for one of few places, then is fetched, decoded and scaled down, captioned with whatever else is ready,
and drawn. Only pictures that hold a place are in memory; those in the queue are no more than a way to fetch them.
"""

import asyncio
import dataclasses
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from PIL import Image

from bot.config import Config
from bot.events import (
    BadPicture,
    BadRequest,
    Blocked,
    Busy,
    Candidate,
    Expected,
    Failed,
    Fetch,
    Judgement,
    Made,
    Preference,
    Style,
    TooLarge,
    Wish,
)
from captioner import animation, images
from captioner.animation import Animation
from captioner.attention_map import NoAttentionError
from captioner.captioner import Captioned, Captioner, ModelError
from captioner.captioner import Wish as ModelWish
from captioner.draw import Lettering, paint
from captioner.filter import shipped as blocklist
from captioner.fonts import FontError, Fonts
from captioner.images import ImageError, ImageTooLarge, Limits, Picture, scaled, to_jpeg
from captioner.labels import Judged, Pair
from captioner.proofreader import ProofreaderError
from captioner.ranking import Ranking
from captioner.taste import Taste
from captioner.tokenizer import normalise

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Load = Callable[[Path | None], "Model"]

DECODERS = 2
"""Pictures decoded or drawn at a time: one of 50 megapixels takes 150 MB until it is scaled down."""
KEPT_QUALITY = 95
"""JPEG quality of the picture that is kept for buttons."""
MOST_TASTES = 200
"""Chats whose own tastes are kept, those that voted last; some hundred kilobytes each."""
NO_GPU = (
    "; a GPU is not needed, and none is used: if the machine has one, install its driver and PyTorch's build for it, "
    "and leave captioner.device at auto"
)
SMALLEST_SIDE = 64
"""Pixels below which a meme is not scaled to fit a platform's limit."""


class Model(Protocol):
    """What the engine asks of a captioner; `caption` and `explain` are called from one thread only."""

    @property
    def name(self) -> str: ...

    def read(self, data: bytes) -> Picture: ...

    def caption(self, jobs: Sequence[tuple[Picture, ModelWish]]) -> list[Captioned]: ...

    def letter(
        self, picture: Picture, boxes: Sequence[str], template: str | None, *, mirrored: bool, own: bool
    ) -> Sequence[Lettering]: ...

    def explain(self, picture: Picture, boxes: Sequence[str], style: Style = "meme") -> bytes: ...


@dataclass(eq=False, slots=True)
class _Job:
    """A picture that waits to be captioned; `done` is cancelled when nobody waits for it any more."""

    picture: Picture
    wish: ModelWish
    trial: bool
    since: float
    done: "asyncio.Future[tuple[Captioned, float, float]]"
    """What came of it, and when captioning began and ended."""


def loader(config: Config) -> Callable[[Path | None], Captioner]:
    """How checkpoints are loaded with these settings; None is the one that ships."""

    def load(path: Path | None) -> Captioner:
        return Captioner.load(
            path,
            device=config.captioner.device,
            threads=config.captioner.threads,
            limits=Limits(config.images.max_bytes, config.images.max_pixels),
            font=config.draw.font or None,
            max_side=config.draw.max_side,
            ranking=Ranking(**dataclasses.asdict(config.ranking)),
            proofreader=config.captioner.proofreader,
        )

    return load


class Engine:
    """`async with Engine(config) as engine:` loads and warms up the model; raises `Failed` where it cannot be read.

    Leaving the block finishes what was accepted, within `stop.grace` seconds.
    """

    def __init__(self, config: Config, load: Load | None = None, *, first: str = "") -> None:
        """`first` is a checkpoint file that serves from the start, if it can, instead of `captioner.model`."""
        self._config = config
        self._first = first
        self.file = self.trial_file = ""
        """The checkpoint files that serve; "" for the shipped one, and for no trial."""
        self._load = load or loader(config)
        self._model: Model | None = None
        self._trial: Model | None = None
        self._tastes: dict[str, Taste] = {}
        self._capacity = 2 * config.engine.batch  # one batch is captioned, the next is being read
        self._places = asyncio.Semaphore(self._capacity)
        self._fetches = asyncio.Semaphore(max(2, config.engine.batch // 2))  # each may hold images.max_bytes
        self._read_jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._accepted: set[asyncio.Task[Any]] = set()
        self._line: dict[str, None] = {}
        """Requests that wait for a place, in their order."""
        self._stopping = False
        self._swapping = asyncio.Lock()
        self._batcher: asyncio.Task[None] | None = None
        self._torch = ThreadPoolExecutor(1, thread_name_prefix="torch")
        self._pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="pictures")

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            self._shut_down_threads()
            raise
        self._batcher = asyncio.create_task(self._serve(), name="batcher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain()
        if self._batcher is not None:
            self._batcher.cancel()
            await asyncio.wait([self._batcher])
        self._shut_down_threads()

    @property
    def model(self) -> str:
        return self._serving.name

    @property
    def ready(self) -> bool:
        return self.alive and not self._stopping

    @property
    def alive(self) -> bool:
        return self._batcher is not None and not self._batcher.done()

    @property
    def waiting(self) -> int:
        """How many accepted pictures have no place yet."""
        return max(0, len(self._accepted) - self._capacity)

    def ahead(self, request: str) -> int | None:
        """How many pictures come before that of a request; None when it does not wait (any more)."""
        return self._capacity + list(self._line).index(request) if request in self._line else None

    async def make(self, fetch: Fetch, wish: Wish) -> Made:
        """Read, caption and draw one picture; raises `Busy` at once when the queue is full, `Blocked` for own words."""
        if blocklist().blocks(wish.own_boxes, level=wish.filter):
            raise Blocked("These words are not for this chat.")
        return await self._accept(self._make(fetch, wish))

    async def fit(self, data: bytes, max_bytes: int) -> tuple[bytes, str]:
        """A drawn meme encoded smaller, and its content type; raises `TooLarge` where it cannot be."""
        with _translated("The meme could not be made smaller."):
            return await self._in_pool(self._fit, data, max_bytes)

    async def explain(self, fetch: Fetch, boxes: Sequence[str], style: Style) -> bytes:
        """A PNG of the caption's words over the attention they paid to the picture."""
        return await self._accept(self._explain(fetch, boxes, style))

    async def swap(self, model: str) -> None:
        """Serve another checkpoint file ("": the shipped one) from the next batch on.

        Raises `Failed` where it cannot be read; then the old one goes on serving.
        """
        async with self._swapping:
            self._model, self.file = await self._loaded(model), model
        log.info("model loaded", extra={"fields": {"model": self._model.name}})

    async def try_out(self, model: str) -> None:
        """Serve wishes for the model on trial by this checkpoint file from the next batch on; "": by the serving one.

        Raises `Failed` as `swap` does.
        """
        async with self._swapping:
            self._trial = await self._loaded(model) if model else None
            self.trial_file = model

    async def taste(self, chat: str, judged: Sequence[Judgement], preferred: Sequence[Preference]) -> None:
        """Rank a chat's captions by what it liked from now on; "" stands for chats that have not voted yet.

        Without anything liked or disliked, all tastes are forgotten.
        """
        if not (judged or preferred):
            self._tastes.clear()
            return
        taste = await asyncio.to_thread(_taste, chat, judged, preferred)
        self._tastes.pop(chat, None)
        self._tastes[chat] = taste
        if len(self._tastes) > MOST_TASTES:  # the one of all chats is fitted as often as any, so is never the oldest
            del self._tastes[next(iter(self._tastes))]

    @property
    def busy(self) -> bool:
        """Whether anything is being made."""
        return bool(self._accepted)

    async def drain(self) -> None:
        """Take nothing more, and finish what was accepted; what `stop.grace` is too short for ends with `Busy`."""
        self._stopping = True
        if not self._accepted:
            return
        _, late = await asyncio.wait(self._accepted, timeout=self._config.stop.grace)
        for task in late:
            task.cancel()

    @property
    def _serving(self) -> Model:
        if self._model is None:
            raise Busy("The bot is still starting. Try again in a moment.")
        return self._model

    async def _begin(self) -> None:
        if self._first:
            try:
                await self.swap(self._first)
            except Failed as error:
                log.error("the promoted model does not serve, captioner.model does: %s", error)
        if self._model is None:
            await self.swap(self._config.captioner.model)

    async def _loaded(self, model: str) -> Model:
        """A model that has captioned a test picture; raises `Failed` where it cannot."""
        loop = asyncio.get_running_loop()
        try:
            loaded = await loop.run_in_executor(None, self._load, Path(model) if model else None)
            await loop.run_in_executor(self._torch, _try_out, loaded)
        except (ModelError, FontError, ProofreaderError) as error:
            raise Failed(str(error)) from error
        except Exception as error:
            log.exception("the model %s does not work", model)
            raise Failed(f"The model {model} could not caption a test picture. The log says why.") from error
        return loaded

    async def _accept(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run the work as a task of its own, which ends with its caller, and with the engine."""
        if self._stopping or self.waiting >= self._config.engine.queue:
            work.close()
            raise Busy("The bot is stopping." if self._stopping else "Too many pictures are waiting. Try again soon.")
        task = asyncio.create_task(work)
        self._accepted.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is None or caller.cancelling():
                raise
            raise Busy("The bot is stopping.") from None
        finally:
            self._accepted.discard(task)

    async def _make(self, fetch: Fetch, wish: Wish) -> Made:
        accepted = time.perf_counter()
        async with self._place(wish.request):
            placed = time.perf_counter()
            picture, moving, data = await self._read(fetch)
            moving = moving and moving.shown_as(wish.moving)
            kept = data if wish.kept else await self._in_pool(_to_keep, picture, moving)
            read = time.perf_counter()
            stages = {"wait": placed - accepted, "read": read - placed}
            made = Made(b"", "image/jpeg", (), None, wish.own_boxes, wish.description, self.model, stages=stages)
            made = dataclasses.replace(made, template=wish.template, mirrored=wish.mirrored)
            if not (wish.own_boxes and wish.description):
                # Captioned is what is kept: so a seed makes the same meme of it later on.
                seen = picture if wish.kept else await self._in_pool(_kept, picture, kept)
                captioned, began, ended = await self._caption(seen, wish)
                made = _captioned(made, captioned)
                stages |= {"wait": placed - accepted + began - read, "caption": ended - began}
            drawing = time.perf_counter()
            if moving is None:
                data = await self._in_pool(self._draw, picture, made, wish)
            else:
                data = await self._in_pool(self._animate, picture, moving, made, wish)
                made = dataclasses.replace(made, content_type=moving.content_type)
            stages["draw"] = time.perf_counter() - drawing
            return dataclasses.replace(made, data=data, picture=kept)

    @asynccontextmanager
    async def _place(self, request: str) -> AsyncIterator[None]:
        """Entered when it is a request's turn."""
        self._line |= {request: None} if request else {}
        try:
            await self._places.acquire()
        finally:
            self._line.pop(request, None)
        try:
            yield
        finally:
            self._places.release()

    async def _explain(self, fetch: Fetch, boxes: Sequence[str], style: Style) -> bytes:
        async with self._places:
            picture, _, _ = await self._read(fetch)
            loop = asyncio.get_running_loop()
            with _translated("The attention of this caption could not be shown."):
                return await loop.run_in_executor(self._torch, self._serving.explain, picture, boxes, style)

    async def _read(self, fetch: Fetch) -> tuple[Picture, Animation | None, bytes]:
        """The decoded picture, no larger than it will be drawn, its frames where it moves, and the file."""
        async with self._fetches:
            with _translated("The picture could not be fetched."):
                async with asyncio.timeout(self._config.engine.fetch_timeout):
                    data = await fetch(self._config.images.max_bytes)
            with _translated("The picture could not be read."):
                picture = await self._in_pool(self._serving.read, data)
                moving = await self._in_pool(animation.read, data, picture) if picture.frames > 1 else None
                return picture, moving, data

    async def _caption(self, picture: Picture, wish: Wish) -> tuple[Captioned, float, float]:
        asked = _for_model(wish, self._tastes.get(wish.chat) or self._tastes.get(""))
        job = _Job(picture, asked, wish.trial, time.perf_counter(), asyncio.get_running_loop().create_future())
        self._read_jobs.put_nowait(job)
        return await job.done

    def _letter(self, picture: Picture, made: Made, wish: Wish) -> Sequence[Lettering]:
        own = bool(wish.own_boxes) and not wish.picked
        return self._serving.letter(picture, made.boxes, made.template, mirrored=made.mirrored, own=own)

    def _draw(self, picture: Picture, made: Made, wish: Wish) -> bytes:
        with _translated("The meme could not be drawn."):
            drawn = paint(picture.image.copy(), self._letter(picture, made, wish))
            data = to_jpeg(drawn, self._config.draw.quality)
            if wish.max_bytes is not None and len(data) > wish.max_bytes:
                data = _fitted(drawn, wish.max_bytes, self._config.draw.quality)
            return data

    def _animate(self, picture: Picture, moving: Animation, made: Made, wish: Wish) -> bytes:
        """The words on every frame; its faces are where the picture has them, however small the frames become."""

        def letter(first: Image.Image) -> Sequence[Lettering]:
            return self._letter(dataclasses.replace(picture, image=first), made, wish)

        with _translated("The meme could not be drawn."):
            return animation.fitted(moving, wish.max_bytes, letter)

    def _fit(self, data: bytes, max_bytes: int) -> tuple[bytes, str]:
        picture = self._serving.read(data)
        moving = animation.read(data, picture)
        if moving is not None:
            return animation.fitted(moving, max_bytes), moving.content_type
        return _fitted(picture.image, max_bytes, self._config.draw.quality), "image/jpeg"

    async def _in_pool(self, work: Callable[..., Result], *args: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    async def _serve(self) -> None:
        while True:
            batch = await self._gathered()
            on_trial = [job for job in batch if job.trial and self._trial]
            if on_trial and self._trial:
                await self._caption_batch(self._trial, on_trial)
            if others := [job for job in batch if job not in on_trial]:
                await self._caption_batch(self._serving, others)

    async def _gathered(self) -> list[_Job]:
        """The next job that somebody waits for, and what else is ready a moment later."""
        jobs = [await self._read_jobs.get()]
        if self._read_jobs.qsize() < self._config.engine.batch - 1:
            await asyncio.sleep(self._config.engine.wait_ms / 1000)
        while len(jobs) < self._config.engine.batch and not self._read_jobs.empty():
            jobs.append(self._read_jobs.get_nowait())
        return [job for job in jobs if not job.done.done()]

    async def _caption_batch(self, model: Model, jobs: Sequence[_Job]) -> None:
        """Answer every job; where a batch fails, each is tried alone, so that only the guilty one fails."""
        began = time.perf_counter()
        pairs = [(job.picture, job.wish) for job in jobs]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._torch, model.caption, pairs)
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    await self._caption_batch(model, [job])
            elif not jobs[0].done.done():
                log.error("captioning failed", exc_info=error)
                jobs[0].done.set_exception(Failed("The model could not caption this picture. The log says why."))
            return
        ended = time.perf_counter()
        for job, answer in zip(jobs, answers, strict=True):
            if not job.done.done():
                job.done.set_result((answer, began, ended))

    def _shut_down_threads(self) -> None:
        for executor in (self._pool, self._torch):
            executor.shutdown(wait=False, cancel_futures=True)


def examine(config: Config) -> Iterator[tuple[str, Callable[[], str]]]:
    """What a doctor looks at here: a name, and a check that says what it found or raises `Failed`."""
    yield "font", lambda: _examined_font(config)
    yield "model", lambda: _examined_model(config)


def _examined_font(config: Config) -> str:
    try:
        fonts = Fonts.resolve(config.draw.font or None)
    except FontError as error:
        raise Failed(f"{error} Leave draw.font empty to take the best one installed.") from error
    emoji = "colour emoji" if fonts.emoji else "no font for colour emoji is installed (try fonts-noto-color-emoji)"
    return f"{' '.join(filter(None, fonts.primary.at(20).getname()))}; {emoji}"


def _examined_model(config: Config) -> str:
    """Whatever the font is, which is looked at by itself."""
    config = dataclasses.replace(config, draw=dataclasses.replace(config.draw, font=""))
    try:
        loaded = loader(config)(Path(config.captioner.model) if config.captioner.model else None)
    except (ModelError, ProofreaderError) as error:
        raise Failed(str(error)) from error
    read = f", read by {config.captioner.proofreader}" if config.captioner.proofreader else ""
    return f"{loaded.name} loads and runs on {loaded.device}{read}{NO_GPU if loaded.device.type == 'cpu' else ''}"


def _try_out(model: Model) -> None:
    """Caption a grey picture: the first user need not wait for what frameworks do once, nor meet a model that fails.

    Raises ValueError where nothing comes of it that could be posted.
    """
    picture = Picture(Image.new("RGB", (224, 224), "grey"), "PNG", 1)
    (captioned,) = model.caption([(picture, ModelWish(n=1))])
    for caption in captioned.captions:
        if not any(caption.boxes) or not math.isfinite(caption.score):
            raise ValueError(f"{model.name} wrote {caption}")
    model.letter(picture, captioned.captions[0].boxes, None, mirrored=False, own=False)


@contextmanager
def _translated(sentence: str) -> Iterator[None]:
    """The captioner's errors as those of the vocabulary; what nobody expected is logged and becomes the sentence."""
    try:
        yield
    except Expected:
        raise
    except ImageTooLarge as error:
        raise TooLarge(str(error)) from error
    except ImageError as error:
        raise BadPicture(str(error)) from error
    except NoAttentionError as error:
        raise BadRequest(str(error)) from error
    except Exception as error:
        log.exception("a stage failed: %s", sentence)
        raise Failed(sentence) from error


def _taste(chat: str, judged: Sequence[Judgement], preferred: Sequence[Preference]) -> Taste:
    """In the words of the captioner, which writes everything in lower case."""
    votes = [Judged(_spelt(j.boxes), j.template, j.up, j.down, j.chat, j.at) for j in judged]
    picks = [Pair(_spelt(p.better), _spelt(p.worse), p.template, p.chat, p.at, p.weight) for p in preferred]
    return Taste.fitted(votes, chat or None, picks)


def _spelt(boxes: Sequence[str]) -> tuple[str, ...]:
    return tuple(filter(None, map(normalise, boxes)))


def _for_model(wish: Wish, taste: Taste | None) -> ModelWish:
    """Own words need a description only: the search that every caption's description comes from anyway."""
    if wish.own_boxes:
        return ModelWish(n=0, seed=wish.seed)
    return ModelWish(
        wish.style,
        "beam" if wish.style == "describe" and not wish.again else "sample",  # the best description, or another one
        wish.candidates,
        wish.seed,
        wish.context,
        explore=wish.explore,
        filter=wish.filter,
        features=wish.features,
        taste=taste,
    )


def _to_keep(picture: Picture, moving: Animation | None) -> bytes:
    """The picture as it is kept for buttons: without metadata, no larger than it is drawn."""
    with _translated("The picture could not be kept."):
        return to_jpeg(picture.image, KEPT_QUALITY) if moving is None else animation.encode(moving)


def _kept(picture: Picture, data: bytes) -> Picture:
    """The picture as it will be seen when it is captioned again."""
    return dataclasses.replace(picture, image=images.read(data).image)


def _captioned(made: Made, captioned: Captioned) -> Made:
    """What was made, with the model's words for it; own words stay as they are."""
    made = dataclasses.replace(
        made,
        description=captioned.description,
        model=captioned.model,
        template=captioned.template[0] if captioned.template else None,
        mirrored=captioned.mirrored,
        features=captioned.features or b"",
    )
    if made.boxes:
        return made
    candidates = tuple(Candidate(c.boxes, c.logprob, c.reward, c.score) for c in captioned.captions)
    return dataclasses.replace(made, candidates=candidates, chosen=0, boxes=candidates[0].boxes)


def _fitted(image: Image.Image, max_bytes: int, quality: int) -> bytes:
    """A JPEG of at most so many bytes: coarser at first, then smaller; raises `TooLarge` where neither helps."""
    while max(image.size) >= SMALLEST_SIDE:
        for coarser in (quality, 75, 55):
            data = to_jpeg(image, min(quality, coarser))
            if len(data) <= max_bytes:
                return data
        image = scaled(image, max(image.size) * 3 // 4)
    raise TooLarge("The meme cannot be made small enough for this chat.")
