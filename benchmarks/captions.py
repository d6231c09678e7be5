"""What generated captions are like beside people's: fit, voice, fluency, variety, and what they should not say.

The judges are trained here, on people's captions, and share nothing with what the model writes or ranks with.

    python -m benchmarks.captions --data NAME=DIR… [--model FILE] [--memes 1000] [--photographs 300] [--words FILE]
        [--by template]

Every `--data` of memes and of descriptions is used; figures without their data are null. Captions are written as the
bot would say them, at level `normal`. `--words` is a list of slurs, one a line, other than the project's own.
"""

import argparse
import json
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from tqdm import tqdm

from benchmarks.kneser_ney import KneserNey
from captioner import data, evaluate, metrics
from captioner.captioner import Captioner, Wish
from captioner.data import Sample
from captioner.filter import shipped
from captioner.tokenizer import CaptionTokenizer, normalise

BATCH = 8
PIECES = 6000
Boxes = tuple[str, ...]
Figures = dict[str, float | None]


@dataclass
class People:
    """People's captions: memes as the model may have learnt them; memes held out and descriptions as they are."""

    train: list[Sample] = field(default_factory=list)
    held: list[Sample] = field(default_factory=list)
    described: list[Sample] = field(default_factory=list)

    @classmethod
    def of(cls, sets: dict[str, Path], by: str = "caption") -> "People":
        """`by` is what was held out when the model learnt: captions, whole templates or pictures."""
        people, split = cls(), data.SPLITS[by]
        for name, folder in sets.items():
            raw = list(data.load(name, folder))
            cleaned = list(data.cleaned(raw, Counter(), tuple(people.train)))
            people.train += [s for s in cleaned if s.style == "meme" and split(s) == "train"]
            normal = [replace(s, boxes=tuple(filter(None, map(normalise, s.boxes)))) for s in raw]
            people.described += [s for s in normal if s.boxes and s.style == "describe"]
            people.held += [s for s in normal if s.boxes and s.style == "meme" and split(s) == "dev"]
        return people


@dataclass(frozen=True)
class Judge:
    """A Kneser-Ney 5-gram of people's memes, over pieces of its own."""

    tokenizer: CaptionTokenizer
    model: KneserNey

    @classmethod
    def of(cls, memes: Sequence[Sample]) -> "Judge":
        tokenizer = CaptionTokenizer.train([box for s in memes for box in s.boxes], PIECES)
        return cls(tokenizer, KneserNey(tokenizer.encode_batch([s.boxes for s in memes]), len(tokenizer)))

    def bits_per_char(self, captions: Sequence[Boxes]) -> float:
        """All bits, separators and end included, over the characters, one a separator and one for the end."""
        bits = self.model.bits(self.tokenizer.encode_batch(captions)).sum()
        return float(bits / sum(len(box) + 1 for boxes in captions for box in boxes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, metavar="NAME=DIR")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--memes", type=int, default=1000, help="memes written on templates")
    parser.add_argument("--photographs", type=int, default=300, help="held-out photographs that memes are written on")
    parser.add_argument("--by", choices=data.SPLITS, default="caption", help="what the model's training held out")
    parser.add_argument("--words", type=Path, help="a list of slurs other than the project's own")
    parser.add_argument("--proofreader", default="", metavar="NAME", help="a language model that helps to choose")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    captioner = Captioner.load(options.model, device="auto", threads=options.threads, proofreader=options.proofreader)
    sets = {name: Path(folder) for name, _, folder in (d.partition("=") for d in options.data)}
    people = People.of(sets, options.by)
    figures: dict[str, Any] = {"model": captioner.name} | likelihood(captioner, people)
    written = on_templates(captioner, people, options.memes)
    seen = on_photographs(captioner, people, options.photographs)
    figures |= variety(written, people) | telling_apart(written, people) | looking(seen, people)
    figures |= fluency(written, seen, people)
    figures |= refused([m.boxes for m in (*written, *seen)], people, options.words)
    if options.json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        print(f"{key:32} {value:.4g}" if isinstance(value, float) else f"{key:32} {value}")


def likelihood(captioner: Captioner, people: People, most: int = 3000) -> Figures:
    """The model's and the judge's bits per character of the same held-out memes."""
    held = _evenly(people.held, most)
    if not held or not people.train:
        return {"memes_bits_per_char": None, "memes_bits_per_char_kneser_ney": None}
    grids = evaluate._grids(captioner, sorted({s.picture for s in held}))
    return {
        "memes_bits_per_char": evaluate.likelihood(captioner, held, grids)["bits_per_char"],
        "memes_bits_per_char_kneser_ney": Judge.of(people.train).bits_per_char([s.boxes for s in held]),
    }


def on_templates(captioner: Captioner, people: People, count: int) -> list[Sample]:
    """Generated memes, every template's picture equally often."""
    pictures = sorted({(s.picture, s.template) for s in people.train})
    jobs = [pictures[i % len(pictures)] for i in range(count)] if pictures else []
    made = _written(captioner, [picture for picture, _ in jobs])
    return [Sample(picture, boxes, "meme", name) for (picture, name), boxes in zip(jobs, made, strict=True)]


def on_photographs(captioner: Captioner, people: People, count: int) -> list[Sample]:
    """Generated memes on photographs that were held out."""
    pictures = _evenly(sorted({s.picture for s in people.described if s.split == "dev"}), count)
    made = _written(captioner, pictures)
    return [Sample(picture, boxes, "meme") for picture, boxes in zip(pictures, made, strict=True)]


def variety(written: Sequence[Sample], people: People) -> Figures:
    """Copies of training texts, distinct captions, and distinct-2 beside as many of people's on the same templates."""
    if not written:
        return dict.fromkeys(("copies", "distinct_captions", "distinct2", "distinct2_people"))
    known = {_letters(s.text) for s in (*people.train, *people.described)}
    texts = [_letters(s.text) for s in written]
    theirs = _alike(written, people.train)
    return {
        "copies": sum(t in known for t in texts) / len(texts),
        "distinct_captions": len(set(texts)) / len(texts),
        "distinct2": metrics.distinct([_words(s.text) for s in written], 2),
        "distinct2_people": metrics.distinct([_words(s.text) for s in theirs], 2),
    }


def telling_apart(written: Sequence[Sample], people: People) -> Figures:
    """AUC of a logistic regression that tells generated captions from people's on the same templates, 5-fold."""
    theirs = _alike(written, people.train)
    if len(theirs) < 10:
        return {"telling_apart_auc": None}
    texts = [s.text for s in (*written, *theirs)]
    labels = np.array([1] * len(written) + [0] * len(theirs))
    scores = cross_val_predict(_classifier(), texts, labels, cv=5, method="predict_proba")[:, 1]
    return {"telling_apart_auc": float(roc_auc_score(labels, scores))}


def looking(seen: Sequence[Sample], people: People) -> Figures:
    """Whether memes of photographs speak of what is there, against shuffled photographs, and whether they are memes."""
    keys = ("matching", "matching_shuffled", "matching_lift", "read_as_memes", "read_as_memes_people")
    if len(seen) < 2 or not people.train:
        return dict.fromkeys(keys)
    there: dict[Path, set[str]] = defaultdict(set)
    for sample in people.described:
        there[sample.picture] |= _content(sample.text)
    others = [*seen[1:], seen[0]]
    matching = float(np.mean([bool(_content(s.text) & there[s.picture]) for s in seen]))
    shuffled = float(np.mean([bool(_content(s.text) & there[o.picture]) for s, o in zip(seen, others, strict=True)]))
    taken = _taken_for_memes(people, [[s.text for s in seen], [s.text for s in people.held]])
    lift = matching / max(shuffled, 1 / len(seen))
    return dict(zip(keys, (matching, shuffled, lift, *taken), strict=True))


def fluency(written: Sequence[Sample], seen: Sequence[Sample], people: People) -> Figures:
    """Bits per character that the judge spends on generated captions and on people's held-out ones."""
    judge = Judge.of(people.train) if people.train else None
    columns = {"templates": written, "photographs": seen, "people": people.held}
    return {
        f"fluency_{name}": judge.bits_per_char([s.boxes for s in samples]) if judge and samples else None
        for name, samples in columns.items()
    }


def refused(said: Sequence[Boxes], people: People, words: Path | None) -> dict[str, Any]:
    """Captions with a word of the other list, which words, and the share of innocent descriptions that is blocked."""
    found: Counter[str] = Counter()
    if words:
        entries = [line.strip().lower() for line in words.read_text("utf-8").splitlines() if line.strip()]
        pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(entries, key=len, reverse=True)))})(?!\w)")
        found.update(word for boxes in said for word in set(pattern.findall(" ".join(boxes))))
    innocent = _evenly(people.described, 1000)
    blocked = {style: [shipped().blocks(s.boxes, style) for s in innocent] for style in ("describe", "meme")}
    return {
        "captions_said": len(said),
        "words_of_the_other_list": dict(found.most_common()) if words else None,
        "innocent_blocked": float(np.mean(blocked["describe"])) if innocent else None,
        "innocent_blocked_as_memes": float(np.mean(blocked["meme"])) if innocent else None,
    }


def _written(captioner: Captioner, pictures: Sequence[Path]) -> list[Boxes]:
    made: list[Boxes] = []
    for start in tqdm(range(0, len(pictures), BATCH), desc="writing", file=sys.stderr, disable=None):
        read = [captioner.opened(p) for p in pictures[start : start + BATCH]]
        captioned = captioner.caption([(p, Wish(n=1, seed=start + i)) for i, p in enumerate(read)])
        made += [c.captions[0].boxes for c in captioned]
    return made


def _taken_for_memes(people: People, columns: Sequence[Sequence[str]]) -> list[float]:
    """The share of each column that a classifier of people's memes against descriptions takes for memes."""
    described = [s.text for s in people.described if s.split == "train"]
    memes = [s.text for s in _evenly(people.train, len(described))]
    classifier = _classifier().fit([*memes, *described], [1] * len(memes) + [0] * len(described))
    return [float(np.mean(classifier.predict(list(texts)))) for texts in columns]


def _classifier() -> Pipeline:
    """Logistic regression on words and word pairs."""
    words = CountVectorizer(ngram_range=(1, 2), min_df=2, binary=True, token_pattern=r"[^\W_]+(?:'[^\W_]+)?|[?!.:*]")
    return make_pipeline(words, LogisticRegression(C=0.3, max_iter=300))


def _alike(written: Sequence[Sample], people: Sequence[Sample]) -> list[Sample]:
    """People's captions of the same templates, as many of each, at random."""
    by_template: dict[str | None, list[Sample]] = defaultdict(list)
    for sample in people:
        by_template[sample.template].append(sample)
    wanted = Counter(s.template for s in written)
    rng = random.Random(0)
    return [s for name, n in wanted.items() for s in rng.sample(by_template[name], min(n, len(by_template[name])))]


def _evenly(items: Sequence[Any], most: int) -> list[Any]:
    step = max(1, -(-len(items) // most)) if most else len(items) + 1
    return list(items[::step])


def _words(text: str) -> list[str]:
    return re.findall(r"[\w'-]*\w", text)


def _content(text: str) -> set[str]:
    """Words of three letters and more that are no stop words."""
    return {w for w in re.findall(r"[a-z]{3,}", text.lower()) if w not in ENGLISH_STOP_WORDS}


def _letters(text: str) -> str:
    """Words without case and punctuation."""
    return " ".join(re.findall(r"\w+", normalise(text).replace("'", "")))


if __name__ == "__main__":
    main()
