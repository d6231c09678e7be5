"""The operator's page: memes and votes, models and how they are received, how long stages take, what was learnt."""

import datetime
from collections.abc import Callable, Iterable, Sequence
from xml.etree.ElementTree import Element

from aiohttp import web

from bot.events import Figures, Rated, Retrained, Service, Version

from .charts import Span, bars, spans
from .markup import page, tag

_NO_STORE = {"Cache-Control": "no-store"}
_STAGES = ("wait", "read", "caption", "draw")


class Dashboard:
    """Drawn anew at every request; it holds no script."""

    def __init__(self, service: Callable[[], Service]) -> None:
        self._service = service

    async def show(self, request: web.Request) -> web.Response:
        text = document(await self._service().figures())
        return web.Response(text=text, content_type="text/html", headers=_NO_STORE)


def document(figures: Figures) -> str:
    """The whole page as HTML."""
    header = tag("header", tag("h1", "Quipbot’s figures"), tag("a", "Back to the chat", href="/"))
    main = tag(
        "main",
        _section("Memes and votes", _days(figures)),
        _section("Models", _approvals(figures.versions), _versions(figures.versions)),
        _section("Time a meme takes", _stages(figures)),
        _section("Retraining", _retrainings(figures.retrainings)),
        _section("Best texts", _texts(figures.best, "texts with more votes for than against them")),
        _section("Worst texts", _texts(figures.worst, "texts with more votes against than for them")),
    )
    return page("Quipbot’s figures", "/static/dashboard.css", header, main)


def _section(title: str, *content: Element) -> Element:
    name = title.lower().replace(" ", "-")
    return tag("section", tag("h2", title, id=name), *content, aria_labelledby=name)


def _days(figures: Figures) -> Element:
    days = figures.days
    series = {"memes": [d.memes for d in days], "for": [d.up for d in days], "against": [d.down for d in days]}
    plot = bars("Memes and votes by day", [day.date[5:] for day in days], series)
    return tag("div", plot, tag("p", "Days begin at midnight in UTC.", class_="nothing"))


def _approvals(versions: Sequence[Version]) -> Element:
    rows = [Span(each.id, each.approval, each.low, each.high) for each in versions if each.memes]
    return spans("Share of the votes in favour by model, with 95 % intervals", rows) if rows else _nothing("memes")


def _versions(versions: Sequence[Version]) -> Element:
    rows = [
        (each.id, each.state, _date(each.created), each.parent or "–", each.labels or "–", each.memes, each.words)
        for each in versions
    ]
    return _table(("Model", "State", "Date", "From", "Votes on", "Memes", "Why"), rows)


def _stages(figures: Figures) -> Element:
    known = [stage for stage in _STAGES if stage in figures.stages]
    if not known:
        return _nothing("memes since the start")
    rows = [(stage, *(f"{seconds:.2f} s" for seconds in figures.stages[stage])) for stage in known]
    plot = bars(
        "Seconds a stage of a meme takes",
        known,
        {"median": [figures.stages[s][0] for s in known], "95th percentile": [figures.stages[s][1] for s in known]},
    )
    return tag("div", plot, _table(("Stage", "Median", "95th percentile"), rows))


def _retrainings(retrainings: Sequence[Retrained]) -> Element:
    if not retrainings:
        return _nothing("retrainings")
    rows = [
        (_date(each.began), _lasted(each), each.model, each.labels or "–", each.outcome or "under way", each.words)
        for each in retrainings
    ]
    return _table(("Began", "Took", "Model", "Votes on", "Outcome", "Why"), rows)


def _texts(rated: Sequence[Rated], what: str) -> Element:
    if not rated:
        return _nothing(what)
    return tag("ol", *(tag("li", tag("q", " / ".join(each.boxes)), _votes(each)) for each in rated))


def _votes(rated: Rated) -> Element:
    return tag("span", f"{rated.up:.3g} for, {rated.down:.3g} against", class_="votes")


def _table(head: Iterable[str], rows: Iterable[Sequence[object]]) -> Element:
    body = [tag("tr", *(tag("td", str(cell)) for cell in row)) for row in rows]
    table = tag("table", tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head))), tag("tbody", *body))
    return tag("div", table, class_="wide", tabindex="0", role="group")


def _nothing(what: str) -> Element:
    return tag("p", f"There are no {what} yet.", class_="nothing")


def _date(at: float | None) -> str:
    return datetime.datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M") if at else "–"


def _lasted(retrained: Retrained) -> str:
    if retrained.ended is None:
        return "–"
    minutes = (retrained.ended - retrained.began) / 60
    return f"{minutes:.0f} min" if minutes >= 1 else f"{60 * minutes:.0f} s"
