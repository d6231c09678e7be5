"""How often the reward ranks held-out captions right, beside ridge regression on hashed words and word pairs.

A pair counts if both captions are of one template and one decile of views and their vote percentiles lie at least a
half apart. Trains everything anew on the cleaned training captions; chance is 50 %.

    python benchmarks/reward.py --data DIR [--tokenizer MODEL] [--held-out 0.1]

DIR is ImgFlip575K as published. Captions are held out by their text, whatever template they are on.
"""

import argparse
import hashlib
import statistics
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from captioner import data, reward
from captioner.checkpoint import Checkpoint
from captioner.data.samples import Sample
from captioner.tokenizer import CaptionTokenizer

_BUCKETS = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="a model whose tokenizer to take; without one it is trained")
    parser.add_argument("--held-out", type=float, default=0.1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    samples = [s for s in data.cleaned(data.load("imgflip575k", options.data), Counter()) if s.exposure is not None]
    aside = np.array([_place(s) < options.held_out for s in samples])
    train = [s for s, held in zip(samples, aside, strict=True) if not held]
    dev = [s for s, held in zip(samples, aside, strict=True) if held]
    tokenizer = (
        Checkpoint.load(options.tokenizer).tokenizer
        if options.tokenizer
        else CaptionTokenizer.train([box for s in train for box in s.boxes])
    )
    print(f"{len(train)} captions to learn from, {len(dev)} held out")
    began = time.perf_counter()
    trained = reward.Reward.fit(train, tokenizer)
    print(f"trained in {time.perf_counter() - began:.0f} s")
    report(trained, dev)
    groups = reward.group_numbers(dev)
    print(f"{'ridge, words and pairs':28} {_percent(reward.pair_accuracy(ridge(train, dev), groups, _votes(dev)))}")
    cost(trained, dev)


def report(trained: reward.Reward, dev: list[Sample]) -> None:
    """Accuracies with the template told and not, of the ensemble and of each member."""
    groups, votes = reward.group_numbers(dev), _votes(dev)
    captions = [s.boxes for s in dev]
    for told in (True, False):
        suffix = "" if told else ", template not told"
        print(f"{'ensemble' + suffix:28} {_percent(trained.accuracy(dev, told))}")
        raw = trained.members(captions, [s.template if told else None for s in dev])
        for name, scores in zip(trained.MEMBERS, raw.T, strict=True):
            print(f"{'  ' + name + suffix:28} {_percent(reward.pair_accuracy(scores, groups, votes))}")


def ridge(train: list[Sample], dev: list[Sample]) -> np.ndarray:
    """The baseline's scores: percentiles regressed on hashed words and word pairs, the template unknown."""

    def features(samples: list[Sample]) -> reward.Ragged:
        found = reward.grams(reward.words([s.boxes for s in samples]), orders=(1, 2))
        return found._replace(items=(found.items % np.uint64(_BUCKETS)).astype(np.int64))

    x, z = features(train), features(dev)
    one_group = np.zeros(len(train), np.int64)
    weights = reward.least_squares(x, reward.scale(x), _votes(train), one_group)
    weights = np.pad(weights, (0, _BUCKETS - len(weights)))
    return np.asarray(reward.scale(z) * np.bincount(z.rows, weights[z.items], z.captions))


def cost(trained: reward.Reward, dev: list[Sample]) -> None:
    """Milliseconds of processor time for a hundred captions, and megabytes in a checkpoint."""
    captions = [s.boxes for s in dev[:100]]
    times = []
    for _ in range(30):
        began = time.process_time()
        trained.score(captions, dev[0].template)
        times.append((time.process_time() - began) * 1000)
    size = sum(t.numel() * t.element_size() for t in trained.tensors().values())
    print(f"{'100 captions, ms':28} {statistics.median(times[5:]):.1f}")
    print(f"{'in a checkpoint, MB':28} {size / 1e6:.2f}")


def _votes(samples: list[Sample]) -> np.ndarray:
    return np.array([s.percentile for s in samples], np.float64)


def _place(sample: Sample) -> float:
    """A number from 0 to 1 that follows from the words."""
    text = " ".join(w for w in sample.text.split())
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64


def _percent(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{100 * accuracy:.2f} %"


if __name__ == "__main__":
    main()
