"""Says in plain words what is there and what is missing, changing nothing."""

import http.client
import platform
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bot import engine, store
from bot.config import Config, Web
from bot.database import StoreError
from bot.events import Failed, Finding
from bot.ratings import SheetError
from bot.ratings.sheet import Sheet


def report(config: Config, platforms: Sequence[Finding]) -> bool:
    """Print a line a check, and what the platforms were found to be; whether all is well."""
    well = True
    for name, check in _checks(config):
        try:
            mark, finding = "ok", check()
        except (Failed, SheetError, StoreError) as error:
            mark, finding, well = "MISSING", str(error), False
        print(f"{mark:8}{name}: {finding}", flush=True)
    for found in platforms:
        print(f"{'ok' if found.well else 'MISSING':8}{found.name}: {found.words}", flush=True)
    return well and all(found.well for found in platforms)


def _checks(config: Config) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "python", lambda: f"{platform.python_version()} at {sys.executable}"
    yield "database", lambda: store.examine(config.store.path)
    yield "address", lambda: _examined_address(config.web)
    yield "token", lambda: "set" if config.web.token else "none, so only this machine can use the page"
    if config.rate.folder:
        yield "ratings", lambda: f"{len(Sheet(Path(config.rate.folder)).items)} memes to rate in {config.rate.folder}"
    if config.learn.data:
        yield "data", lambda: _examined_data(config.learn.data)
    yield from engine.examine(config)


def _examined_data(entries: Sequence[str]) -> str:
    folders = [Path(entry.partition("=")[2]) for entry in entries]
    for folder in folders:
        if not folder.is_dir():
            raise Failed(f"There is no folder {folder}: see learn.data.")
    return ", ".join(map(str, folders))


def _examined_address(web: Web) -> str:
    if _is_running(web):
        return f"the bot is running at {web.host}:{web.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(web.host, web.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise Failed(f"{web.host}:{web.port} cannot be listened on: {error.strerror}.") from error
    return f"{web.host}:{web.port} is free"


def _is_running(web: Web) -> bool:
    """Whether it is a bot that listens there; a name or address for everywhere stands for this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(web.host, web.host)  # noqa: S104
    connection = http.client.HTTPConnection(host, web.port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.headers.get("X-Bot") == "quipbot"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
