"""People's blind judgement of memes: what is rated, by whom how, and what comes of it."""

from bot.ratings.blind import KINDS, BlindRatings, exported, report
from bot.ratings.sheet import SheetError

__all__ = ["KINDS", "BlindRatings", "SheetError", "exported", "report"]
