import asyncio
import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from bot.config import Config
from bot.engine import Engine
from bot.events import BadPicture, BadRequest, Busy, Failed, Fetch, Made, TooLarge, Wish
from captioner import images, video
from captioner.captioner import Captioned, Captioner
from captioner.captioner import Wish as ModelWish
from captioner.decoders import AttentionGRU
from captioner.draw import Lettering
from captioner.images import Picture

Configured = Callable[..., Config]
Jpeg = Callable[..., bytes]
Fetching = Callable[[bytes], Fetch]


class Gated:
    """The real captioner, which waits at `gate` before each batch after the first, and can be made to fail."""

    def __init__(self, captioner: Captioner) -> None:
        self.inner = captioner
        self.gate = threading.Event()
        self.begun: list[list[int]] = []
        """Batches that came as far as the gate."""
        self.batches: list[list[int]] = []
        self.hated: set[int] = set()

    name = "gated"

    def caption(self, jobs: Sequence[tuple[Picture, ModelWish]]) -> list[Captioned]:
        seeds = [wish.seed for _, wish in jobs]
        self.begun.append(seeds)
        if self.batches:
            assert self.gate.wait(30)
        self.batches.append(seeds)
        if self.hated.intersection(seeds):
            raise RuntimeError("no such luck")
        return self.inner.caption(jobs)

    def read(self, data: bytes) -> Picture:
        return self.inner.read(data)

    def letter(self, picture: Picture, boxes: Sequence[str], template: str | None, **how: bool) -> list[Lettering]:
        return self.inner.letter(picture, boxes, template, **how)

    def explain(self, picture: Picture, boxes: Sequence[str], style: str = "meme") -> bytes:
        return self.inner.explain(picture, boxes)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
def gated(captioner: Captioner) -> Gated:
    return Gated(captioner)


@pytest.fixture
def small(configured: Configured, gated: Gated) -> Engine:
    """Batches of one and a queue of two; two more hold a place."""
    return Engine(configured("engine.batch=1", "engine.queue=2", "engine.wait_ms=0"), lambda _: gated)


async def test_a_meme_with_everything(engine: Engine, jpeg: Jpeg, fetching: Fetching) -> None:
    assert (engine.ready, engine.alive, engine.model, engine.waiting) == (True, True, "tiny", 0)
    made = await engine.make(fetching(jpeg(1, (300, 200))), Wish(seed=7, candidates=2))
    assert Image.open(io.BytesIO(made.data)).size == (300, 200)
    assert Image.open(io.BytesIO(made.picture)).size == (300, 200)
    assert (made.content_type, made.model, made.chosen) == ("image/jpeg", "tiny", 0)
    assert made.boxes == made.candidates[0].boxes
    assert made.description
    assert set(made.stages) == {"wait", "read", "caption", "draw"}
    assert all(seconds >= 0 for seconds in made.stages.values())


async def test_the_same_wish_gives_the_same_bytes_alone_or_in_company(
    engine: Engine, jpeg: Jpeg, fetching: Fetching
) -> None:
    alone = await engine.make(fetching(jpeg(1)), Wish(seed=7))
    crowd = await asyncio.gather(*(engine.make(fetching(jpeg(n)), Wish(seed=7)) for n in range(6)))
    assert crowd[1].data == alone.data
    assert len({made.data for made in crowd}) == 6


async def test_large_pictures_are_scaled_down(configured: Configured, jpeg: Jpeg, fetching: Fetching) -> None:
    async with Engine(configured("draw.max_side=128")) as engine:
        made = await engine.make(fetching(jpeg(1, (600, 300))), Wish())
    assert Image.open(io.BytesIO(made.data)).size == (128, 64)


async def test_own_words_are_drawn_and_described(engine: Engine, jpeg: Jpeg, fetching: Fetching) -> None:
    made = await engine.make(fetching(jpeg(1)), Wish(own_boxes=("my", "words")))
    assert (made.boxes, made.candidates, made.chosen) == (("my", "words"), (), None)
    assert made.description == (await engine.make(fetching(jpeg(1)), Wish(seed=3))).description


async def test_what_is_known_is_not_asked_again(small: Engine, gated: Gated, jpeg: Jpeg, fetching: Fetching) -> None:
    async with small as engine:
        made = await engine.make(fetching(jpeg(1)), Wish(own_boxes=("a",), description="a dog"))
    assert (made.boxes, made.description) == (("a",), "a dog")
    assert len(gated.batches) == 1


async def test_a_description_is_drawn_in_one_box(engine: Engine, jpeg: Jpeg, fetching: Fetching) -> None:
    made = await engine.make(fetching(jpeg(1)), Wish(style="describe"))
    assert len(made.boxes) == 1


async def test_explain_gives_a_png(engine: Engine, jpeg: Jpeg, fetching: Fetching) -> None:
    png = await engine.explain(fetching(jpeg(1)), ["one dog"], "meme")
    assert Image.open(io.BytesIO(png)).format == "PNG"


async def test_a_model_that_looks_nowhere_says_so(
    engine: Engine, jpeg: Jpeg, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(AttentionGRU, "weights")
    with pytest.raises(BadRequest, match="as a whole"):
        await engine.explain(fetching(jpeg(1)), ["one dog"], "meme")


async def test_bad_pictures_are_told_apart(configured: Configured, captioner: Captioner, fetching: Fetching) -> None:
    async def too_much(max_bytes: int) -> bytes:
        raise TooLarge(f"More than {max_bytes} bytes.")

    async def unreachable(max_bytes: int) -> bytes:
        raise ConnectionError("reset by peer: secret address")

    limits = ("images.max_bytes=20000",)
    async with Engine(configured(*limits), lambda _: captioner) as engine:
        for fetch, kind in ((fetching(b"text"), BadPicture), (fetching(b""), BadPicture), (too_much, TooLarge)):
            with pytest.raises(kind):
                await engine.make(fetch, Wish())
        with pytest.raises(Failed) as error:
            await engine.make(unreachable, Wish())
        assert str(error.value) == "The picture could not be fetched."
        with pytest.raises(BadPicture):
            await engine.explain(fetching(b"text"), ["a"], "meme")
        assert engine.waiting == 0


async def test_a_fetch_that_hangs_ends(configured: Configured, captioner: Captioner) -> None:
    async def never(max_bytes: int) -> bytes:
        await asyncio.Event().wait()
        return b""

    async with Engine(configured("engine.fetch_timeout=0.01"), lambda _: captioner) as engine:
        with pytest.raises(Failed):
            await engine.make(never, Wish())


async def test_one_failure_does_not_take_its_batch_along(
    configured: Configured, gated: Gated, jpeg: Jpeg, fetching: Fetching, caplog: pytest.LogCaptureFixture
) -> None:
    gated.hated = {3}
    gated.gate.set()
    async with Engine(configured("engine.wait_ms=200"), lambda _: gated) as engine:
        wishes = [engine.make(fetching(jpeg(n)), Wish(seed=n)) for n in range(5)]
        bad = engine.make(fetching(b"no picture"), Wish())
        *made, unread = await asyncio.gather(*wishes, bad, return_exceptions=True)
    assert [isinstance(each, Made) for each in made] == [True, True, True, False, True]
    assert isinstance(made[3], Failed)
    assert "no such luck" not in str(made[3])
    assert "RuntimeError: no such luck" in caplog.text
    assert isinstance(unread, BadPicture)
    assert max(map(len, gated.batches)) > 1


async def test_a_full_queue_says_so_at_once(small: Engine, gated: Gated, jpeg: Jpeg, fetching: Fetching) -> None:
    async with small as engine:
        tasks = [asyncio.create_task(engine.make(fetching(jpeg(n)), Wish(seed=n))) for n in range(4)]
        await until(lambda: engine.waiting == 2)
        fetched = False

        async def fetch(max_bytes: int) -> bytes:
            nonlocal fetched
            fetched = True
            return jpeg(9)

        with pytest.raises(Busy):
            await engine.make(fetch, Wish())
        assert not fetched
        gated.gate.set()
        assert len({made.data for made in await asyncio.gather(*tasks)}) == 4
        assert engine.waiting == 0
        await engine.make(fetch, Wish())


async def test_who_leaves_is_not_captioned(small: Engine, gated: Gated, jpeg: Jpeg, fetching: Fetching) -> None:
    async with small as engine:
        first = asyncio.create_task(engine.make(fetching(jpeg(1)), Wish(seed=1)))
        await until(lambda: gated.begun[1:] == [[1]])  # of two that are read at once either may come first
        leaving = [asyncio.create_task(engine.make(fetching(jpeg(n)), Wish(seed=n))) for n in (2, 3)]
        await until(lambda: engine.waiting == 1)
        last = asyncio.create_task(engine.make(fetching(jpeg(4)), Wish(seed=4)))
        await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*leaving, return_exceptions=True)
        )
        gated.gate.set()
        await asyncio.gather(first, last)
        assert engine.waiting == 0
    assert gated.batches[1:] == [[1], [4]]


async def test_a_stop_finishes_what_was_accepted(small: Engine, gated: Gated, jpeg: Jpeg, fetching: Fetching) -> None:
    async with small as engine:
        tasks = [asyncio.create_task(engine.make(fetching(jpeg(n)), Wish(seed=n))) for n in range(4)]
        await until(lambda: engine.waiting == 2)
        stopping = asyncio.create_task(engine.drain())
        await asyncio.sleep(0)
        assert not engine.ready
        with pytest.raises(Busy, match="stopping"):
            await engine.make(fetching(jpeg(1)), Wish())
        gated.gate.set()
        await stopping
        assert all(isinstance(made, Made) for made in await asyncio.gather(*tasks))


async def test_what_grace_is_too_short_for_ends_with_busy(
    configured: Configured, gated: Gated, jpeg: Jpeg, fetching: Fetching
) -> None:
    async with Engine(configured("stop.grace=0.01"), lambda _: gated) as engine:
        task = asyncio.create_task(engine.make(fetching(jpeg(1)), Wish()))
        await asyncio.sleep(0)
        await engine.drain()
        with pytest.raises(Busy):
            await task
        gated.gate.set()


async def test_swapping_serves_the_new_model_and_survives_a_bad_one(
    configured: Configured, captioner: Captioner, tmp_path: Path, jpeg: Jpeg, fetching: Fetching
) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing of use")
    async with Engine(configured()) as engine:
        with pytest.raises(Failed, match="cannot be read"):
            await engine.swap(str(bad))
        assert (await engine.make(fetching(jpeg(1)), Wish())).model == "tiny"
        serving = engine._serving
        await engine.swap(configured().captioner.model)
        assert engine._serving is not serving
        assert (await engine.make(fetching(jpeg(1)), Wish())).model == "tiny"


async def test_a_model_that_cannot_be_read_stops_the_start(configured: Configured, tmp_path: Path) -> None:
    for setting in (
        f"captioner.model={tmp_path / 'missing'}",
        "captioner.device=mps",
        f"draw.font={tmp_path / 'no.ttf'}",
        f"captioner.proofreader={tmp_path / 'no'}",
    ):
        with pytest.raises(Failed) as error:
            async with Engine(configured(setting)):
                pass
        assert str(error.value).endswith(".")


@pytest.mark.parametrize("max_bytes", [40_000, 9_000, 3_000])
async def test_a_platforms_limit_is_kept(engine: Engine, max_bytes: int) -> None:
    noise = Image.effect_noise((512, 384), 90).convert("RGB")
    out = io.BytesIO()
    noise.save(out, "PNG")

    async def fetch(_: int) -> bytes:
        return out.getvalue()

    made = await engine.make(fetch, Wish(max_bytes=max_bytes))
    assert len(made.data) <= max_bytes
    width, height = Image.open(io.BytesIO(made.data)).size
    assert abs(width / height - 4 / 3) < 0.05


async def test_a_limit_that_nothing_meets(engine: Engine, jpeg: Jpeg, fetching: Fetching) -> None:
    with pytest.raises(TooLarge):
        await engine.make(fetching(jpeg(1)), Wish(max_bytes=100))


async def test_few_pictures_are_in_memory_at_a_time(small: Engine, gated: Gated, jpeg: Jpeg) -> None:
    held, most = 0, 0

    async def fetch(_: int) -> bytes:
        nonlocal held, most
        held += 1
        most = max(most, held)
        return jpeg(1)

    async def one() -> None:
        nonlocal held
        await small.make(fetch, Wish())
        held -= 1

    gated.gate.set()
    async with small:
        await asyncio.gather(*(one() for _ in range(4)))
    assert most <= 3


async def test_animations_come_back_animated(engine: Engine, fetching: Fetching) -> None:
    frames = [Image.new("RGB", (640, 480), colour) for colour in ("red", "green", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=70)
    made = await engine.make(fetching(out.getvalue()), Wish(own_boxes=("top", "bottom")))
    assert made.content_type == "image/gif"
    for data in (made.data, made.picture):
        with Image.open(io.BytesIO(data)) as after:
            assert (after.format, after.n_frames, after.size) == ("GIF", 3, (640, 480))
    again = await engine.make(fetching(made.picture), Wish(own_boxes=("other",), description="three colours"))
    assert again.content_type == "image/gif"
    smaller, content_type = await engine.fit(made.data, len(made.data) // 2)
    assert content_type == "image/gif"
    with Image.open(io.BytesIO(smaller)) as after:
        assert after.n_frames == 3


async def test_who_waits_knows_how_many_come_before(
    small: Engine, gated: Gated, jpeg: Jpeg, fetching: Fetching
) -> None:
    async with small as engine:
        work = [asyncio.create_task(engine.make(fetching(jpeg(n)), Wish(request=f"r{n}"))) for n in range(4)]
        await until(lambda: engine.waiting == 2)
        assert [engine.ahead(f"r{n}") for n in range(4)] == [None, None, 2, 3]
        assert engine.ahead("") is None
        work[2].cancel()
        await until(lambda: engine.ahead("r3") == 2)
        gated.gate.set()
        await asyncio.gather(*work, return_exceptions=True)
        assert engine.ahead("r3") is None


async def test_a_video_becomes_a_picture_where_videos_are_none(engine: Engine, fetching: Fetching) -> None:
    film = video.encode([Image.new("RGB", (96, 64), colour) for colour in ("red", "blue")], [90, 90])
    assert (await engine.make(fetching(film), Wish(moving=frozenset({"video/mp4"})))).content_type == "video/mp4"
    made = await engine.make(fetching(film), Wish())
    assert made.content_type == "image/webp"
    with Image.open(io.BytesIO(made.data)) as after:
        assert (after.format, after.n_frames) == ("WEBP", 2)
    with Image.open(io.BytesIO(made.picture)) as kept:
        assert kept.format == "WEBP"
    assert (await engine.fit(made.data, 100_000))[1] == "image/webp"
    back = await engine.make(fetching(made.data), Wish(moving=frozenset({"image/gif", "video/mp4"})))
    assert back.content_type == "video/mp4"
    assert (images.read(back.data).format, images.read(back.picture).frames) == ("MP4", 2)
