"""Descriptions by teachers, for a student to learn beside people's (sequence-level distillation: Kim and Rush 2016).

People describe a photograph in five ways; a network that learns them by heart learns little of what they agree on.
Teachers that never saw a photograph say what is usual of it: each learns all but one part of the photographs and
describes that part. Or several that have learnt all of them, each in its own way, describe them together: what they
agree on is no longer what one of them knows by heart. Of what they find likely, that is kept which is most like what
people wrote: what the photograph itself bears out.

Shapes: V views, R places of the grid, D their features.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from captioner import data
from captioner.checkpoint import Checkpoint
from captioner.corpora import Corpus, held_back, prepare, read
from captioner.data.samples import Sample, told_apart
from captioner.decoders.together import ensemble
from captioner.metrics import words
from captioner.recipe import Recipe, run_folder
from captioner.search import Lane, Rules, Search, search
from captioner.self_critical import Likeness
from captioner.train import check_decoder, check_sizes, introduce, tokenizer_of, untrained
from captioner.trainer import Trainer

_SEARCH = Search("beam", width=5, steps=24, max_boxes=1)
_VIEWS = 3
"""Of every photograph, that candidates are written of."""
_KEPT = 3
"""Captions of a photograph."""
_AT_ONCE = 16


def described_by(teachers: Sequence[Path], sets: dict[str, Path], out: Path, recipe: Recipe) -> int:
    """Writes what trained teachers say together of the photographs to learn from; gives how many captions.

    Raises ValueError where nothing is described, or teachers cannot write together (`captioner.decoders.together`).
    """
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    run = run_folder(out, sets.values())
    run.mkdir(parents=True, exist_ok=True)
    members = {str(file): Checkpoint.load(file) for file in teachers}
    samples, split = _described_samples(sets, recipe)
    teacher = ensemble(members)
    corpora = prepare(samples, split, teacher, replace(recipe, counts=0), run)
    described = corpora["train"][0]
    written = _described(teacher, described, told_apart(s.picture for s in described.samples), "teachers")
    out.write_text(json.dumps(written, ensure_ascii=False, indent=0), "utf-8")
    return sum(map(len, written.values()))


def _described_samples(sets: dict[str, Path], recipe: Recipe) -> tuple[list[Sample], list[str]]:
    samples = [s for s in read(sets, recipe.by)[0] if s.style == "describe"]
    if not samples:
        raise ValueError("None of these data sets describes pictures.")
    return samples, [data.SPLITS[recipe.by](s) for s in samples]


def distil(
    sets: dict[str, Path], out: Path, recipe: Recipe, decoder_name: str, parts: int = 3, asked: Collection[str] = ()
) -> int:
    """Trains the teachers in a folder of `out`'s name beside it and writes their captions; gives how many.

    Of a checkpoint to start from they get the eyes alone: its decoder has seen every photograph. The encoder is not
    fine-tuned here, whatever the recipe's `tune` says: start from a checkpoint where it was. Raises ValueError where
    nothing is described or for fewer than two parts, and as `train` does. `asked` are the settings that were named.
    """
    if parts < 2:
        raise ValueError("A teacher has to learn from another part than it describes: parts is 2 or more.")
    check_decoder(decoder_name, recipe, asked)
    torch.manual_seed(recipe.seed)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    run = run_folder(out, sets.values())
    eyes = Checkpoint.load(Path(recipe.start)) if recipe.start else None
    if eyes:
        check_sizes({"encoder": eyes.encoder, "features": eyes.reduction.basis.shape[1]}, recipe, asked)
    run.mkdir(parents=True, exist_ok=True)
    samples, split = _described_samples(sets, recipe)
    recipe = replace(recipe, start="", features=eyes.reduction.basis.shape[1] if eyes else recipe.features)
    base = untrained(samples, split, tokenizer_of(samples, split, recipe, run), recipe, decoder_name, out.stem, eyes)
    corpora = prepare(samples, split, base, recipe, run)
    introduce(base, corpora["train"], recipe)
    names = told_apart(s.picture for s in corpora["train"][0].samples)
    written: dict[str, list[str]] = {}
    for part in range(parts):
        teacher = deepcopy(base)
        learns, described = held_back(corpora["train"], 1 / parts, part)
        folder = run / f"teacher-{part + 1}"
        folder.mkdir(exist_ok=True)
        Trainer(teacher, recipe, folder).fit(learns, corpora["dev"])
        written |= _described(teacher, described[0], names, f"part {part + 1} of {parts}")
    out.write_text(json.dumps(written, ensure_ascii=False, indent=0), "utf-8")
    return sum(map(len, written.values()))


def _described(teacher: Checkpoint, corpus: Corpus, names: dict[Path, str], what: str) -> dict[str, list[str]]:
    """By the names of the corpus's pictures, the candidates that are most like what people wrote."""
    references: dict[int, list[str]] = {}
    files: dict[int, str] = {}
    for sample, row in zip(corpus.samples, corpus.rows.tolist(), strict=True):
        references.setdefault(row, []).append(sample.text)
        files[row] = names[sample.picture]
    rows = list(references)
    likeness = Likeness([[words(text) for text in references[row]] for row in rows])
    kept: dict[str, list[str]] = {}
    for start in tqdm(range(0, len(rows), _AT_ONCE), desc=what, unit="batch"):
        chunk = rows[start : start + _AT_ONCE]
        for place, candidates in enumerate(_candidates(teacher, corpus, chunk), start):
            likes = [likeness(place, words(text)) for text in candidates]
            ranked = sorted(zip(likes, candidates, strict=True), reverse=True)
            kept[files[rows[place]]] = [text for _, text in ranked[:_KEPT]]
    return kept


@torch.inference_mode()
def _candidates(teacher: Checkpoint, corpus: Corpus, rows: Sequence[int]) -> Iterator[list[str]]:
    """What a beam search finds on views of the pictures whose views begin at these rows, each text once."""
    views = min(_VIEWS, corpus.views)
    grids = torch.from_numpy(np.concatenate([corpus.grids[row : row + views] for row in rows])).float()  # (· V, R, D)
    tokenizer = teacher.tokenizer
    rules = Rules(tokenizer, grids.device, teacher.decoder.shortlist)
    lanes = [Lane(i, teacher.prefix("describe"), _SEARCH) for i in range(len(grids))]
    found = search(teacher.decoder, rules, grids, lanes)
    for i in range(len(rows)):
        texts = [" ".join(tokenizer.decode(h.ids)) for of in found[i * views : (i + 1) * views] for h in of]
        yield list(dict.fromkeys(filter(None, texts)))
