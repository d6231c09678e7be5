"""`python -m bot`, but what learns is a stand-in: `python -m tests.fakes.learning_bot [command] section.key=value`."""

import functools
import sys
from pathlib import Path

from bot import __main__ as bot
from bot.learn import commands, learner, process
from bot.learn.retraining import Retraining

CAPTIONER = (sys.executable, str(Path(__file__).with_name("captioner_commands.py")))

if __name__ == "__main__":
    learner.WATCH = learner.FIGURES = learner.SCHEDULE = 0.1
    process.STILL, process.MOVE = 0.5, 0.5  # so that what learns gets on beside clients that never pause
    bot.Retraining = commands.Retraining = functools.partial(Retraining, captioner=CAPTIONER)  # type: ignore[misc, assignment]
    sys.exit(bot.main())
