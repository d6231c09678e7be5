"""How the process is doing: alive, ready, and in figures for Prometheus."""

from collections import deque
from collections.abc import Callable, Mapping
from statistics import quantiles

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from bot.events import Figures

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

RECENT = 1000
"""Memes whose stages are remembered one by one."""

MODELS = {
    "quipbot_model_serving": "1 for the model that serves",
    "quipbot_model_memes": "Memes with words that a model chose",
    "quipbot_model_approval": "Share of the votes on a model's memes that are in favour",
    "quipbot_model_approval_low": "Lower end of that share's 95 % interval",
    "quipbot_model_approval_high": "Upper end of it",
}

Probe = Callable[[], bool]


class Health:
    """Probes and counters. Each part that must be alive or ready is watched under the name that a sentence uses."""

    def __init__(self) -> None:
        self._alive: dict[str, Probe] = {}
        self._ready: dict[str, Probe] = {}
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._stages = Histogram(
            "quipbot_stage_seconds", "Time per stage of a meme", ["stage"], registry=self._registry, buckets=SECONDS
        )
        self._memes = Counter(
            "quipbot_memes", "Memes asked for, by how it ended", ["style", "outcome"], registry=self._registry
        )
        self._reactions = Counter("quipbot_reactions", "Votes written", ["change"], registry=self._registry)
        self._waiting = Gauge("quipbot_queue_waiting", "Pictures in the queue", registry=self._registry)
        self._recent: dict[str, deque[float]] = {}
        self._models = {name: self._by_model(name, words) for name, words in MODELS.items()}
        self._retrainings = Gauge(
            "quipbot_retrainings", "Retrainings, by how they ended", ["outcome"], registry=self._registry
        )

    def watch(self, name: str, *, alive: Probe | None = None, ready: Probe | None = None) -> None:
        if alive is not None:
            self._alive[name] = alive
        if ready is not None:
            self._ready[name] = ready

    def watch_queue(self, waiting: Callable[[], float]) -> None:
        self._waiting.set_function(waiting)

    def live(self) -> tuple[bool, str]:
        return _verdict(self._alive, "alive")

    def ready(self) -> tuple[bool, str]:
        if not self._ready:
            return False, "Not ready: starting."
        return _verdict(self._ready, "ready")

    def metrics(self) -> tuple[bytes, str]:
        """The exposition and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def count_meme(self, style: str, outcome: str, stages: Mapping[str, float]) -> None:
        """One request for a meme; `stages` in seconds, empty where nothing was made."""
        self._memes.labels(style, outcome).inc()
        for stage, seconds in stages.items():
            self._stages.labels(stage).observe(seconds)
            self._recent.setdefault(stage, deque(maxlen=RECENT)).append(seconds)

    def stages(self) -> dict[str, tuple[float, float]]:
        """Median and 95th percentile of the last memes' stages, in seconds."""
        # One more than there are: of a single number there are no quantiles.
        cuts = {
            stage: quantiles([*found, found[-1]], n=20, method="inclusive") for stage, found in self._recent.items()
        }
        return {stage: (cut[9], cut[18]) for stage, cut in cuts.items()}

    def learnt(self, figures: Figures) -> None:
        """The models and retrainings as they stand."""
        for gauge in (*self._models.values(), self._retrainings):
            gauge.clear()
        for version in figures.versions:
            self._models["quipbot_model_memes"].labels(version.id).set(version.memes)
            self._models["quipbot_model_serving"].labels(version.id).set(version.state == "serving")
            if version.approval is not None:
                self._models["quipbot_model_approval"].labels(version.id).set(version.approval)
                self._models["quipbot_model_approval_low"].labels(version.id).set(version.low)
                self._models["quipbot_model_approval_high"].labels(version.id).set(version.high)
        for outcome, count in figures.outcomes.items():
            self._retrainings.labels(outcome or "running").set(count)

    def count_reaction(self, added: bool, votes: int = 1) -> None:
        self._reactions.labels("added" if added else "removed").inc(votes)

    def _by_model(self, name: str, words: str) -> Gauge:
        return Gauge(name, words, ["model"], registry=self._registry)


def _verdict(probes: Mapping[str, Probe], word: str) -> tuple[bool, str]:
    failing = [name for name, probe in probes.items() if not probe()]
    if failing:
        return False, f"Not {word}: {', '.join(failing)}."
    return True, f"{word.capitalize()}."
