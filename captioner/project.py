"""A data set seen at a glance: its pictures and its texts as points in two and three dimensions, by category.

A picture of points misleads easily, so figures stand beside it: how well the categories separate in the full features
and in what is shown. scikit-learn's handwritten digits are shown the same way: they do separate.

The category of a meme is its template, that of a photograph the subject on which its descriptions agree. Pictures are
the encoder's features, averaged over the picture; of a template, which is one picture, distorted copies are taken, as
people post them. Texts are TF-IDF of words, by latent semantic analysis.
"""

import json
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize
from tqdm import tqdm

from captioner import data
from captioner.augment import views
from captioner.data.pairs import words
from captioner.data.samples import Sample
from captioner.encoders import build
from captioner.images import opened

Method = Literal["pca", "umap"]

NEIGHBOURS = 10
_PICTURES, _TEXTS = 60, 150
"""Points of a category at most."""
_LATENT = 100
"""Dimensions of the latent semantic analysis at most."""
_LEAST = 4
"""Points, and features of each, to be shown in space."""
_AGREED = 2
"""Descriptions of a photograph that must agree on its subject."""


@dataclass(frozen=True)
class Cloud:
    """Points to project: features (N, D), and of each point its category and a few words."""

    name: str
    features: np.ndarray
    categories: list[str]
    words: list[str]


@dataclass(frozen=True)
class Separation:
    """How well categories separate in one space.

    `silhouette` (Rousseeuw 1987) is from -1 to 1: 1 where categories lie far apart, 0 where they mix. `purity` is the
    share of a point's nearest neighbours that are of its category, `chance` what it is where points lie at random.
    """

    space: str
    silhouette: float
    purity: float
    chance: float


@dataclass(frozen=True)
class Projected:
    """A cloud, its points in the plane (N, 2) and in space (N, 3), and how it separates: in full and as shown."""

    cloud: Cloud
    plane: np.ndarray
    space: np.ndarray
    separations: list[Separation]


def project(
    sets: Mapping[str, Path], out: Path, method: Method, categories: int = 10, seed: int = 0
) -> list[Projected]:
    """Writes a PNG a cloud, the figures as JSON, and a page to turn the points around; gives what they show.

    Raises ValueError or FileNotFoundError for data that cannot be read, or has no two categories.
    """
    if categories < 2:
        raise ValueError("--categories takes a number of two or more: what separates are categories.")
    samples = [s for name, folder in sets.items() for s in data.cleaned(data.load(name, folder), Counter())]
    chosen = _chosen(samples, categories)
    if len(chosen) < 2:
        raise ValueError("There are no two categories in the data.")
    clouds = [_pictures(chosen, seed), _texts(chosen, seed), _digits()]
    for cloud in clouds:
        if min(cloud.features.shape) < _LEAST:
            raise ValueError(f"There are too few {cloud.name} to project, or they have too little in common.")
    found = [_projected(cloud, method, seed) for cloud in clouds]
    out.mkdir(parents=True, exist_ok=True)
    for each in found:
        plot(each, method, out / f"{each.cloud.name}.png")
    figures = {each.cloud.name: [asdict(s) for s in each.separations] for each in found}
    (out / "projection.json").write_text(json.dumps({"method": method, "seed": seed} | figures, indent=1), "utf-8")
    (out / "projection.html").write_text(page(found, method), "utf-8")
    return found


def separation(space: str, points: np.ndarray, categories: Sequence[str]) -> Separation:
    """Of points (N, D) by Euclidean distance."""
    _, labels = np.unique(categories, return_inverse=True)
    shares = np.bincount(labels) / len(labels)
    count = min(NEIGHBOURS, len(labels) - 1)
    near = NearestNeighbors(n_neighbors=count).fit(points).kneighbors(return_distance=False)  # (N, K), not itself
    purity = float((labels[near] == labels[:, None]).mean())
    return Separation(space, float(silhouette_score(points, labels)), purity, float((shares**2).sum()))


def table(found: Sequence[Projected]) -> str:
    """The figures for people."""
    lines = [f"{'':12}{'points':>8}{'categories':>12}  {'in':12}{'silhouette':>10}{'purity':>8}{'chance':>8}"]
    for each in found:
        counts = f"{len(each.cloud.words):8}{len(set(each.cloud.categories)):12}"
        for i, s in enumerate(each.separations):
            head = f"{each.cloud.name:12}{counts}" if i == 0 else " " * 32
            lines.append(f"{head}  {s.space:12}{s.silhouette:10.2f}{s.purity:8.0%}{s.chance:8.0%}")
    return "\n".join(lines)


# ------------------------------------------------------------------ categories and features


def _chosen(samples: Sequence[Sample], count: int) -> dict[str, list[Sample]]:
    """The samples of the `count` most frequent categories."""
    memes: dict[str, list[Sample]] = defaultdict(list)
    described: dict[Path, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.style == "meme":
            memes[sample.template or sample.picture.stem].append(sample)
        else:
            described[sample.picture].append(sample)
    by_category = dict(memes)
    for picture, subject in _subjects(described).items():
        by_category.setdefault(subject, []).extend(described[picture])
    frequent = sorted(by_category, key=lambda category: (-len(by_category[category]), category))
    return {category: by_category[category] for category in frequent[:count]}


def _subjects(described: Mapping[Path, Sequence[Sample]]) -> dict[Path, str]:
    """The word of each photograph that most of its descriptions have; of several, the commonest."""
    counts = {picture: Counter(w for s in own for w in words(s.text)) for picture, own in described.items()}
    frequency = Counter(word for own in counts.values() for word, n in own.items() if n >= _AGREED)
    return {
        picture: max(own, key=lambda word: (own[word], frequency[word], word))
        for picture, own in counts.items()
        if own and max(own.values()) >= _AGREED
    }


@torch.inference_mode()
def _pictures(chosen: Mapping[str, list[Sample]], seed: int) -> Cloud:
    encoder, dice = build(), np.random.default_rng(seed)
    features, categories, names = [], [], []
    for category, samples in tqdm(chosen.items(), desc="pictures", unit="category", disable=None, file=sys.stderr):
        files = sorted({sample.picture for sample in samples})
        files = [files[i] for i in dice.permutation(len(files))[:_PICTURES]]
        copies = -(-_PICTURES // len(files)) if samples[0].style == "meme" else 1
        for file in files:
            made = views(opened(file).image, copies, zlib.crc32(file.name.encode()), template=True)
            features += [encoder(encoder.pixels([view])).mean(1)[0].numpy() for view in made]
            categories += [category] * copies
            names += [file.stem] * copies
    return Cloud("pictures", normalize(np.stack(features)), categories, names)


def _texts(chosen: Mapping[str, list[Sample]], seed: int) -> Cloud:
    dice = np.random.default_rng(seed)
    picked = [
        (category, samples[i].text)
        for category, samples in chosen.items()
        for i in dice.permutation(len(samples))[:_TEXTS]
    ]
    categories, texts = ([entry[at] for entry in picked] for at in (0, 1))
    try:
        found = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(texts)
    except ValueError:  # no word that two texts share
        return Cloud("texts", np.zeros((len(texts), 0)), categories, texts)
    if min(found.shape) < _LEAST:
        return Cloud("texts", found.toarray(), categories, texts)
    latent = TruncatedSVD(min(_LATENT, found.shape[1] - 1), random_state=seed).fit_transform(found)
    return Cloud("texts", normalize(latent), categories, texts)


def _digits() -> Cloud:
    pictures, labels = load_digits(return_X_y=True)
    return Cloud("digits", pictures / 16, [str(label) for label in labels], [f"a handwritten {i}" for i in labels])


def _projected(cloud: Cloud, method: Method, seed: int) -> Projected:
    plane, space = (_reduced(cloud.features, dimensions, method, seed) for dimensions in (2, 3))
    spaces = {"full": cloud.features, "2-D": plane, "3-D": space}
    found = [separation(name, points, cloud.categories) for name, points in spaces.items()]
    return Projected(cloud, plane, space, found)


def _reduced(features: np.ndarray, dimensions: int, method: Method, seed: int) -> np.ndarray:
    """Points (N, `dimensions`) by principal components, or by UMAP (McInnes, Healy and Melville 2018)."""
    if method == "pca":
        return np.asarray(PCA(dimensions, random_state=seed).fit_transform(features))
    import umap  # takes half a minute of compiling

    return np.asarray(umap.UMAP(n_components=dimensions, random_state=seed, n_jobs=1).fit_transform(features))


# ------------------------------------------------------------------ what is written


def plot(found: Projected, method: Method, file: Path) -> None:
    """The plane and the space side by side, a colour a category, the figures in the titles."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    names = sorted(set(found.cloud.categories))
    colours = colormaps["tab20"](np.arange(len(names)) % 20)
    figure = Figure(figsize=(14, 6.5), layout="constrained")
    panels = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2, projection="3d")
    own = np.array(found.cloud.categories)
    for panel, points, s in zip(panels, (found.plane, found.space), found.separations[1:], strict=True):
        for name, colour in zip(names, colours, strict=True):
            panel.scatter(*points[own == name].T, s=12, alpha=0.75, color=colour, label=name)
        panel.set_title(f"{s.space}: silhouette {s.silhouette:.2f}, purity {s.purity:.0%}")
    full = found.separations[0]
    figure.suptitle(
        f"{found.cloud.name}, {method.upper()}: in full, silhouette {full.silhouette:.2f}, "
        f"purity {full.purity:.0%} of {NEIGHBOURS} neighbours (by chance {full.chance:.0%})"
    )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, markerscale=2)
    figure.savefig(file, dpi=110)


def page(found: Sequence[Projected], method: Method) -> str:
    """A page without anything from elsewhere: the points on a canvas, to turn, to zoom and to point at."""
    clouds = [_as_json(each) for each in found]
    # "<" never stands in the data, so that no caption ends the script.
    text = json.dumps({"method": method, "neighbours": NEIGHBOURS, "clouds": clouds}, ensure_ascii=False)
    shell = resources.files("captioner").joinpath("projection.html").read_text("utf-8")
    return shell.replace('"DATA"', text.replace("<", "\\u003c"))


def _as_json(found: Projected) -> dict[str, Any]:
    names = sorted(set(found.cloud.categories))
    return {
        "name": found.cloud.name,
        "categories": names,
        "category": [names.index(category) for category in found.cloud.categories],
        "words": [text[:120] for text in found.cloud.words],
        "plane": _even(found.plane),
        "space": _even(found.space),
        "separations": [asdict(s) for s in found.separations],
    }


def _even(points: np.ndarray) -> list[list[float]]:
    """The points around 0, the farthest at 1 in its widest direction."""
    centred = points - (points.max(0) + points.min(0)) / 2
    scaled: list[list[float]] = np.round(centred / np.abs(centred).max(), 4).tolist()
    return scaled
