import json
import logging

import pytest

from bot import logs
from bot.config import Log, Secret


@pytest.fixture(autouse=True)
def _restored() -> object:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = before, level


def test_json_lines_and_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(Log(level="info", format="json"), [Secret('tok"en-123')])
    log = logging.getLogger("bot.test")
    log.info("a meme", extra={"fields": {"seed": 5, "text": 'has tok"en-123 in it'}})
    log.debug("not shown")
    logging.getLogger("some.library").info("chatter")
    try:
        raise ValueError('tok"en-123')
    except ValueError:
        log.exception('with tok"en-123')
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["message"], first["level"], first["seed"]) == ("a meme", "info", 5)
    assert first["time"].endswith("Z")
    assert "ValueError" in second["traceback"]
    assert "en-123" not in json.dumps([first, second])


def test_text_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(Log(), [])
    logging.getLogger("bot").warning("careful %s", "now", extra={"fields": {"meme": "abc", "wait": 0.5}})
    assert capsys.readouterr().err.endswith(" warning bot careful now meme=abc wait=0.5\n")
