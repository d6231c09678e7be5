"""Memes as JSON."""

from collections.abc import Sequence
from typing import Any

from bot.events import Candidate, MemeRecord, MemeReply


def address(meme: str) -> str:
    """Where a meme's picture is served."""
    return f"/memes/{meme}"


def reply(meme: MemeReply) -> dict[str, Any]:
    """The answer to a post."""
    return {
        "id": meme.id,
        "url": address(meme.id),
        "alt": meme.alt,
        "boxes": meme.boxes,
        "seed": meme.seed,
        "model": meme.model,
        "candidates": _candidates(meme.candidates),
    }


def record(meme: MemeRecord) -> dict[str, Any]:
    """A meme with its votes, as lists and the feed show it."""
    return {
        "id": meme.id,
        "url": address(meme.id),
        "alt": meme.alt,
        "boxes": meme.boxes,
        "seed": meme.seed,
        "model": meme.model,
        "candidates": _candidates(meme.candidates),
        "created": meme.created,
    } | votes(meme)


def votes(meme: MemeRecord) -> dict[str, Any]:
    """The counts, and which of them are the asking voter's."""
    return {"id": meme.id, "reactions": meme.reactions, "mine": meme.mine}


def _candidates(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    return [
        {"boxes": each.boxes, "logprob": each.logprob, "reward": each.reward, "score": each.score}
        for each in candidates
    ]
