"""A posted form: the picture goes to a temporary file while it arrives, so that memory stays flat.

The file has no name in the spool folder, and is gone even when the process is killed.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from bot.events import BadRequest, TooLarge

FIELDS = ("text", "style", "seed", "n")

_CHUNK = 64 * 1024
_FIELD_BYTES = 16 * 1024
_SLACK = 64 * 1024
"""What a form may weigh beside the picture: boundaries, headers and small fields."""
_SECONDS = 120
_BROKEN = (ValueError, AssertionError, RuntimeError, BadHttpMessage)
"""What aiohttp's reader raises for a form that does not keep to the format."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One picture on disk, and the fields that came with it."""

    file: IO[bytes]
    fields: dict[str, str]

    async def fetch(self, max_bytes: int) -> bytes:
        """The picture, at most so many bytes; raises `TooLarge`."""
        data = await asyncio.to_thread(self._read, max_bytes + 1)
        if len(data) > max_bytes:
            raise too_large(max_bytes)
        return data

    def _read(self, size: int) -> bytes:
        self.file.seek(0)
        return self.file.read(size)


def too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"The picture is larger than {max_bytes / 1e6:.3g} MB, which is the most the bot takes.")


@asynccontextmanager
async def receive(request: web.Request, spool: Path, max_bytes: int) -> AsyncIterator[Upload]:
    """Take in a multipart form with exactly one `image`, of at most `max_bytes`.

    Raises `BadRequest` and `TooLarge`, the latter as soon as it is certain: the rest is left unread, and aiohttp drains
    it for some seconds after the answer, so that clients that write first and read later see the answer.
    """
    if request.content_type != "multipart/form-data":
        raise web.HTTPUnsupportedMediaType(text="Send the picture as multipart/form-data, in a field named “image”.")
    if request.content_length is not None and request.content_length > max_bytes + _SLACK:
        raise too_large(max_bytes)
    with tempfile.TemporaryFile(dir=spool) as file:
        try:
            async with asyncio.timeout(_SECONDS):
                fields = await _Form(file, max_bytes).read(await request.multipart())
        except TimeoutError:
            raise web.HTTPRequestTimeout(text="The picture took too long to arrive.") from None
        except _BROKEN as error:
            raise BadRequest("The form is broken: it does not follow multipart/form-data to its end.") from error
        yield Upload(file, fields)


class _Form:
    """Reads the parts of one form in the order they come."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._total = 0
        self._pictures = 0
        self._fields: dict[str, str] = {}

    async def read(self, parts: MultipartReader) -> dict[str, str]:
        while (part := await parts.next()) is not None:
            if not isinstance(part, BodyPartReader):
                raise BadRequest("The form has a form inside, which the bot does not read.")
            if part.name == "image":
                await self._picture(part)
            else:
                await self._field(part)
        if not self._pictures:
            raise BadRequest("There is no picture in the form: send one in a field named “image”.")
        return self._fields

    async def _picture(self, part: BodyPartReader) -> None:
        self._pictures += 1
        if self._pictures > 1:
            raise BadRequest("There is more than one picture in the form: send them one at a time.")
        size = 0
        async for chunk in self._chunks(part):
            size += len(chunk)
            if size > self._max_bytes:
                raise too_large(self._max_bytes)
            self._file.write(chunk)
        if not size:
            raise BadRequest("The picture is empty.")

    async def _field(self, part: BodyPartReader) -> None:
        """Keep a field we know, read past any other."""
        data = bytearray()
        async for chunk in self._chunks(part):
            if part.name in FIELDS:
                data += chunk
            if len(data) > _FIELD_BYTES:
                raise BadRequest(f"The field “{part.name}” is too long.")
        if part.name not in FIELDS:
            return
        if part.name in self._fields:
            raise BadRequest(f"The field “{part.name}” comes twice.")
        try:
            self._fields[part.name] = data.decode()
        except UnicodeDecodeError:
            raise BadRequest(f"The field “{part.name}” is not UTF-8 text.") from None

    async def _chunks(self, part: BodyPartReader) -> AsyncIterator[bytes]:
        while not part.at_eof():
            chunk = await part.read_chunk(_CHUNK)
            self._total += len(chunk)
            if self._total > self._max_bytes + _SLACK:
                raise too_large(self._max_bytes)
            yield chunk
