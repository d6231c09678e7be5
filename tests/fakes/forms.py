"""Multipart forms, read without temporary files: a client that is killed while it sends would leave them open."""

from aiohttp import BodyPartReader, web

Field = tuple[str | None, bytes]
"""The name of a file, None for a plain value; and the content."""


async def fields(request: web.Request) -> dict[str, Field]:
    """A form's fields by their names."""
    found: dict[str, Field] = {}
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        found[part.name or ""] = part.filename, bytes(await part.read(decode=True))
    return found
