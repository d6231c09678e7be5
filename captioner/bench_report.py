"""The bench's table, as Markdown and JSON, and its curves."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

COLUMNS = {
    "bleu1": ("BLEU-1", ".1f"),
    "bleu2": ("BLEU-2", ".1f"),
    "bleu3": ("BLEU-3", ".1f"),
    "bleu4": ("BLEU-4", ".1f"),
    "rouge_l": ("ROUGE-L", ".1f"),
    "cider_d": ("CIDEr-D", ".1f"),
    "meteor": ("METEOR 1.0", ".1f"),
    "meteor_1_5": ("METEOR 1.5", ".1f"),
    "spice": ("SPICE", ".1f"),
    "bits_per_char": ("bits/char", ".3f"),
    "distinct1": ("distinct-1", ".3f"),
    "distinct2": ("distinct-2", ".3f"),
    "self_bleu": ("self-BLEU", ".1f"),
    "different": ("different", ".0%"),
    "copy_rate": ("copied", ".0%"),
    "drawn_distinct2": ("drawn: distinct-2", ".3f"),
    "drawn_self_bleu": ("drawn: self-BLEU", ".1f"),
    "drawn_copy_rate": ("drawn: copied", ".0%"),
    "parameters": ("parameters", ",d"),
    "tokens_per_second": ("tokens/s", ",.0f"),
    "ms_per_picture": ("ms/picture", ".1f"),
    "kilobytes": ("kB/picture", ",.0f"),
}
"""The figures of a row, their headings and formats; a column that nobody has a figure for is left out."""


def table(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    """Markdown, one line a system; what was not measured is a dash, what failed says so."""
    kept = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    lines = ["| system | " + " | ".join(COLUMNS[key][0] for key in kept) + " | note |"]
    lines.append("|---|" + "---:|" * len(kept) + "---|")
    for row in rows:
        cells = [_cell(row.get(key), COLUMNS[key][1]) for key in kept]
        note = f"failed: {row['error']}" if row.get("error") else row.get("note", "")
        lines.append(
            " | ".join([f"| {titles[row['system']]}", *cells, " ".join(note.replace("|", "/").split())]) + " |"
        )
    return "\n".join(lines) + "\n"


def write(folder: Path, rows: Sequence[Row], titles: Mapping[str, str]) -> None:
    """The table as `table.md` and `table.json`, the curves as `curves.png`."""
    made = table(rows, titles)
    print(made, flush=True)
    (folder / "table.md").write_text(made, "utf-8")
    (folder / "table.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False), "utf-8")
    plot(rows, titles, folder / "curves.png")


def plot(rows: Sequence[Row], titles: Mapping[str, str], file: Path) -> None:
    """Held-out bits per character over the seconds of training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots()
    colours = 10  # of matplotlib's cycle; further curves are dashed
    for number, row in enumerate(row for row in rows if row.get("curve")):
        seconds, bits = zip(*row["curve"], strict=True)
        style = "-" if number < colours else "--"
        axes.plot(seconds, bits, style, color=f"C{number % colours}", marker=".", label=titles[row["system"]])
    axes.set(xlabel="seconds of training", ylabel="held-out bits per character")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(file)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
