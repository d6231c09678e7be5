"""Log lines, as text or as JSON, on standard error. Secrets that slip into a message or a traceback become stars."""

import json
import logging
import sys
import time
from collections.abc import Sequence

from bot.config import Log, Secret


class Redacting(logging.Formatter):
    """What every format shares: time, level, logger, message, the fields of `extra={"fields": {…}}`, the traceback."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, secrets: Sequence[Secret]) -> None:
        super().__init__()
        self._secrets = sorted((secret.reveal() for secret in secrets), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redacted(record.getMessage()),
            **{name: self._redacted(value) for name, value in getattr(record, "fields", {}).items()},
        }
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return self.line(fields, str(self._redacted(trace)))

    def _redacted(self, value: object) -> object:
        if not isinstance(value, str):
            return value
        for secret in self._secrets:
            value = value.replace(secret, "**********")
        return value

    def line(self, fields: dict[str, object], trace: str) -> str:
        raise NotImplementedError


class Text(Redacting):
    def line(self, fields: dict[str, object], trace: str) -> str:
        head = " ".join(str(fields.pop(name)) for name in ("time", "level", "logger", "message"))
        tail = " ".join(f"{name}={value}" for name, value in fields.items())
        return "\n".join(filter(None, (f"{head} {tail}".rstrip(), trace)))


class Json(Redacting):
    def line(self, fields: dict[str, object], trace: str) -> str:
        return json.dumps(fields | ({"traceback": trace} if trace else {}), ensure_ascii=False, default=str)


def setup(log: Log, secrets: Sequence[Secret]) -> None:
    """Send all logs of the process to standard error. Libraries' chatter is shown from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json(secrets) if log.format == "json" else Text(secrets))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelName(log.level.upper())))
    for ours in ("bot", "adapters", "captioner"):
        logging.getLogger(ours).setLevel(log.level.upper())
