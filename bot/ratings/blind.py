"""The blind rating of memes: who rates what next, without being told who wrote it."""

import csv
import io
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from bot.events import BadRequest, RatingTask
from bot.ratings import results
from bot.ratings.sheet import Sheet

YES_NO = "yes", "no"
WHICH = "first", "second", "same"
KINDS = ".csv", ".jsonl"


class Rows(Protocol):
    """What the store keeps of ratings."""

    async def rate(
        self, platform: str, user: str, memes: Sequence[str], answers: Mapping[str, str], at: float
    ) -> None: ...

    async def take_rating_back(self, platform: str, user: str) -> tuple[str, ...]: ...

    async def ratings(self) -> list[dict[str, Any]]: ...


class BlindRatings:
    """Memes of a folder, one at a time or two of a picture, in an order of each rater's own."""

    def __init__(
        self, folder: Path, rows: Rows, show: Literal["single", "pairs"], *, clock: Callable[[], float] = time.time
    ) -> None:
        """Raises `SheetError` for a folder that cannot be rated."""
        self._sheet = Sheet(folder)
        self._rows = rows
        self._clock = clock
        self._tasks: list[tuple[str, ...]] = [(meme,) for meme in self._sheet.items]
        if show == "pairs":
            self._tasks = list(self._sheet.pairs())

    async def next(self, platform: str, user: str) -> RatingTask:
        """What this rater is to be shown next: of what was rated least, anything; without memes when all is rated."""
        rows = await self._rows.ratings()
        mine = {_key(row) for row in rows if (row["platform"], row["user"]) == (platform, user)}
        open_tasks = [task for task in self._tasks if frozenset(task) not in mine]
        if not open_tasks:
            return self._task((), len(self._tasks))
        raters = Counter(key for key, _, _ in {(_key(row), row["platform"], row["user"]) for row in rows})
        least = min(raters[frozenset(task)] for task in open_tasks)
        dice = random.Random(f"{platform}:{user}:{len(mine)}")  # noqa: S311, no secret: a reload shows the same
        task = dice.choice([task for task in open_tasks if raters[frozenset(task)] == least])
        return self._task(dice.sample(task, len(task)), len(self._tasks) - len(open_tasks))

    async def rate(self, platform: str, user: str, memes: Sequence[str], answers: Mapping[str, str]) -> None:
        """Write down the answers on a meme, or two; no answers pass it over. Raises `BadRequest` or `NotFound`."""
        items = [self._sheet.item(meme) for meme in memes]
        if frozenset(memes) not in map(frozenset, self._tasks):
            raise BadRequest("These memes are not rated together.")
        questions, allowed = (results.SINGLE, YES_NO) if len(items) == 1 else (results.PAIR, WHICH)
        if answers and set(answers) != set(questions):
            raise BadRequest(f"The questions are {', '.join(questions)}; all of them, or none.")
        if any(answer not in allowed for answer in answers.values()):
            raise BadRequest(f"The answers are {', '.join(allowed)}.")
        await self._rows.rate(platform, user, memes, answers, self._clock())

    async def take_back(self, platform: str, user: str) -> RatingTask:
        """Forget this rater's last answers and show again what they were on."""
        memes = await self._rows.take_rating_back(platform, user)
        task = await self.next(platform, user)
        known = memes and frozenset(memes) in map(frozenset, self._tasks)
        return self._task(memes, task.done) if known else task

    def picture(self, meme: str) -> tuple[bytes, str]:
        """The drawn meme and its content type; raises `NotFound`."""
        item = self._sheet.item(meme)
        return item.file.read_bytes(), item.content_type

    def _task(self, memes: Sequence[str], done: int) -> RatingTask:
        words = tuple(self._sheet.item(meme).boxes for meme in memes)
        return RatingTask(tuple(memes), words, done, len(self._tasks))


def report(folder: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    """What the ratings of a folder's memes come to, as a table. Raises `SheetError`."""
    return results.table(results.standings(Sheet(folder).items, rows))


def exported(folder: Path, rows: Iterable[Mapping[str, Any]], kind: str) -> str:
    """Every answer with what it was on, raters by number: CSV, or a JSON object a line. Raises `SheetError`."""
    items, numbers = Sheet(folder).items, dict[tuple[str, str], int]()
    lines = []
    for row in rows:
        rater = numbers.setdefault((row["platform"], row["user"]), len(numbers) + 1)
        memes = [items.get(row[key]) for key in ("meme", "other") if row[key]]
        if row["question"] and None not in memes:
            told = [(item.file.name, item.picture, item.system, " | ".join(item.boxes)) for item in memes if item]
            first, second = (*told, ("",) * 4)[:2]
            lines.append((rater, row["question"], row["answer"], row["created"], *first, *second))
    columns = ["rater", "question", "answer", "at", "file", "picture", "system", "boxes"]
    columns += ["other_file", "other_picture", "other_system", "other_boxes"]
    if kind == ".jsonl":
        return "".join(json.dumps(dict(zip(columns, line, strict=True)), ensure_ascii=False) + "\n" for line in lines)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows([columns, *lines])
    return out.getvalue()


def _key(row: Mapping[str, Any]) -> frozenset[str]:
    """What was rated, whichever of two stood first."""
    return frozenset(filter(None, (row["meme"], row["other"])))
