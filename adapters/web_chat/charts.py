"""Small plots as SVG: bars by day, and shares with their intervals. Colours are the style sheet's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from .markup import tag

_WIDTH, _HEIGHT = 640, 180
_LEFT, _BOTTOM, _TOP = 36, 24, 8
_ROW = 30
_NAMES = 150


@dataclass(frozen=True, slots=True)
class Span:
    """A share with its interval, each from 0 to 1; None where nothing is known."""

    name: str
    share: float | None
    low: float
    high: float


def bars(title: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> Element:
    """Groups of bars, one a label, a bar a series; hovering tells the numbers."""
    most = _rounded(max((max(values, default=0) for values in series.values()), default=0))
    scale = (_HEIGHT - _BOTTOM - _TOP) / most
    group = (_WIDTH - _LEFT) / max(1, len(labels))
    wide = 0.8 * group / max(1, len(series))
    chart = _chart(title, _HEIGHT)
    for line in (0, most / 2, most):
        y = _HEIGHT - _BOTTOM - line * scale
        chart.append(tag("line", x1=_LEFT, x2=_WIDTH, y1=_at(y), y2=_at(y), class_="grid"))
        chart.append(tag("text", f"{line:g}", x=_LEFT - 6, y=_at(y + 4), class_="end"))
    for place, label in enumerate(labels):
        x = _LEFT + place * group + 0.1 * group
        numbers = ", ".join(f"{name} {values[place]:g}" for name, values in series.items())
        drawn = [
            tag(
                "rect",
                x=_at(x + number * wide),
                y=_at(_HEIGHT - _BOTTOM - values[place] * scale),
                width=_at(wide),
                height=_at(values[place] * scale),
                class_=f"series{number}",
            )
            for number, values in enumerate(series.values())
        ]
        chart.append(tag("g", tag("title", f"{label}: {numbers}"), *drawn))
        if place % max(1, len(labels) // 6) == 0:
            chart.append(tag("text", label, x=_at(x), y=_HEIGHT - 4))
    return tag("figure", chart, _legend(list(series)))


def spans(title: str, rows: Sequence[Span]) -> Element:
    """A line a row on a scale from 0 to 100 %, with a dot for the share."""
    height = _ROW * len(rows) + _BOTTOM
    scale = _WIDTH - _NAMES - 16
    chart = _chart(title, height)
    for line in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = _at(_NAMES + line * scale)
        chart.append(tag("line", x1=x, x2=x, y1=0, y2=height - _BOTTOM, class_="grid"))
        chart.append(tag("text", f"{line:.0%}", x=x, y=height - 4, class_="middle"))
    for place, row in enumerate(rows):
        y = _ROW * (place + 0.5)
        chart.append(tag("text", row.name, x=_NAMES - 8, y=_at(y + 4), class_="end"))
        if row.share is None:
            continue
        words = f"{row.name}: {row.share:.1%} ({row.low:.1%} to {row.high:.1%})"
        low, high, share = (_at(_NAMES + value * scale) for value in (row.low, row.high, row.share))
        interval = tag("line", x1=low, x2=high, y1=_at(y), y2=_at(y), class_="interval")
        chart.append(tag("g", tag("title", words), interval, tag("circle", cx=share, cy=_at(y), r=5, class_="dot")))
    return tag("figure", chart)


def _chart(title: str, height: int) -> Element:
    box = f"0 0 {_WIDTH} {height}"
    return tag("svg", viewBox=box, role="img", aria_label=title, xmlns="http://www.w3.org/2000/svg")


def _legend(names: Sequence[str]) -> Element:
    entries = [tag("span", name, class_=f"key series{number}") for number, name in enumerate(names)]
    return tag("figcaption", *entries)


def _rounded(most: float) -> float:
    """The next of 2, 4, 10, 20, 40, 100, …, of which halves are whole; of fractions likewise."""
    step = 1.0 if most >= 1 or not most else 0.001
    while True:
        for factor in (2, 4, 10):
            if most <= factor * step:
                return factor * step
        step *= 10


def _at(number: float) -> str:
    return f"{number:.1f}"
