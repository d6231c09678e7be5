"""Which picture a message holds, and how its bytes are fetched.

Of a picture, a request's row keeps the address: Discord signs addresses for a day, and requests live for minutes.
"""

import asyncio
import dataclasses
import ipaddress
import re
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import aiohttp
import discord
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver

from bot.events import BadPicture, Fetch, TooLarge

LINK = re.compile(r"(?<![<\w])https?://[^\s<>|]+", re.IGNORECASE)
MARKUP = re.compile(r"<(?:[@#:/]|a:|t:|id:)[^>]*>")
"""People, channels, emoji, commands, times and pages, as Discord writes them into a message."""
SPOILER = re.compile(r"\|\|.+?\|\|", re.DOTALL)
PICTURE_NAME = re.compile(r"\.(?:jpe?g|png|gif|webp|bmp|tiff?|avif|hei[cf])$", re.IGNORECASE)
ATTEMPTS = 5
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Found:
    """A picture and where it comes from."""

    url: str
    size: int = 0
    """Bytes; 0 where Discord does not say."""
    given: bool = False
    """Whether Discord itself gives the address, rather than whoever wrote the message."""
    spoiler: bool = False
    message: str = ""
    author: str = ""
    text: str = ""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Found":
        return cls(**row)


class _Post(Protocol):
    """What messages, and the snapshots of forwarded ones, have in common."""

    content: str
    attachments: list[discord.Attachment]
    embeds: list[discord.Embed]


def in_message(message: discord.Message, *, previews: bool = True) -> Found | None:
    """The first picture of a message: attached, forwarded, embedded or linked.

    Without `previews`, what Discord shows of linked pages is left out: nobody posted those pictures.
    """
    posts: list[_Post] = [message, *message.message_snapshots]
    found = next((found for post in posts for found in _in_post(post, previews)), None)
    if found is None:
        return None
    return dataclasses.replace(found, message=str(message.id), author=str(message.author.id))


def words_of(content: str) -> str:
    """What somebody wrote, without Discord's markup."""
    return " ".join(MARKUP.sub(" ", content).split())


def attached(attachment: discord.Attachment) -> Found | None:
    """An attached picture; None for a file that says it is something else."""
    kind = (attachment.content_type or "").split("/")[0]
    if kind != "image" and (kind not in ("", "application") or not PICTURE_NAME.search(attachment.filename)):
        return None
    return Found(attachment.url, attachment.size, given=True, spoiler=attachment.is_spoiler())


def _in_post(post: _Post, previews: bool) -> Iterator[Found]:
    yield from filter(None, map(attached, post.attachments))
    hidden, shown = " ".join(SPOILER.findall(post.content)), SPOILER.sub(" ", post.content)
    for embed in post.embeds:
        if not previews and embed.type not in ("image", "gifv"):
            continue
        moving = [embed.video] if embed.type == "gifv" else []
        for picture in (*moving, embed.image, embed.thumbnail):
            if address := picture.proxy_url or picture.url:
                # Discord does not say of which link an embed is: with one covered, all are but those of others.
                covered = bool(LINK.search(hidden)) and (embed.url or "") not in LINK.findall(shown)
                yield Found(address, given=address == picture.proxy_url, spoiler=covered)
    for spoiler, words in ((False, shown), (True, hidden)):
        for link in LINK.findall(words):
            if _is_named_picture(link):
                yield Found(link, spoiler=spoiler)


def _is_named_picture(link: str) -> bool:
    try:
        return PICTURE_NAME.search(urlsplit(link).path) is not None
    except ValueError:  # what only looks like an address
        return False


class Pictures:
    """Fetches pictures by address. `async with` opens it.

    People can write any address into a message, so that those of this machine and of private networks are refused:
    only HTTPS to public addresses is fetched, but for the hosts and ports that the configuration names (`trusted`).
    Addresses that Discord itself gives may be of any port of these hosts.
    """

    def __init__(self, trusted: Collection[tuple[str, int]]) -> None:
        self._trusted, self._hosts = frozenset(trusted), frozenset(host for host, _ in trusted)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> "Pictures":
        connector = aiohttp.TCPConnector(resolver=_PublicResolver(self._hosts))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=20)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    def fetch(self, picture: Found) -> Fetch:
        """How the engine gets the picture's bytes, when it has room for them."""

        async def fetch(max_bytes: int) -> bytes:
            if picture.size > max_bytes:
                raise TooLarge(f"The file is larger than {max_bytes / 1e6:g} MB.")
            try:
                return await self._fetched(picture, max_bytes)
            except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
                raise BadPicture("The picture could not be fetched from where it lies.") from error

        return fetch

    async def _fetched(self, picture: Found, max_bytes: int) -> bytes:
        """Follows redirects, and tries again where a server stumbles."""
        url = picture.url
        for attempt in range(ATTEMPTS):
            self._check(url, given=picture.given)
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status == 200:
                    return await _body(response, max_bytes)
                if response.status in REDIRECTS:
                    url = urljoin(url, response.headers.get("Location", ""))
                elif response.status == 429 or response.status >= 500:
                    await asyncio.sleep(0.5 * 2**attempt)
                else:
                    raise BadPicture(f"The picture is not there any more (status {response.status}).")
        raise BadPicture("The picture could not be fetched from where it lies.")

    def _check(self, url: str, *, given: bool) -> None:
        parts, server = urlsplit(url), _server(url)
        if server in self._trusted or (given and server[0] in self._hosts):
            return
        if parts.scheme != "https" or not parts.hostname or not _may_be_public(parts.hostname):
            raise BadPicture("Pictures are fetched from public HTTPS addresses only.")


class _PublicResolver(AbstractResolver):
    """Names that lead to this machine or a private network lead nowhere, but for the trusted hosts'."""

    def __init__(self, trusted: Collection[str]) -> None:
        self._trusted = trusted
        self._resolver = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        public = [result for result in found if host in self._trusted or _may_be_public(result["host"])]
        if not public:
            raise OSError(f"{host} is no public address")
        return public

    async def close(self) -> None:
        await self._resolver.close()


def _may_be_public(host: str) -> bool:
    """False for addresses of private networks; a name is looked at when it is resolved."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host != "localhost"
    return address.is_global and not address.is_multicast


async def _body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    room = max_bytes
    async for part in response.content.iter_chunked(65_536):
        room -= len(part)
        if room < 0:
            raise TooLarge(f"The file is larger than {max_bytes / 1e6:g} MB.")
        parts.append(part)
    return b"".join(parts)


def servers(addresses: Iterable[str]) -> set[tuple[str, int]]:
    """The hosts and ports of addresses; a name of this machine stands for all that it has."""
    found = {_server(address) for address in addresses if address}
    return found | {(name, port) for host, port in found if host in LOOPBACK for name in LOOPBACK}


def _server(address: str) -> tuple[str, int]:
    """Host and port; raises ValueError for a port that is no number."""
    parts = urlsplit(address)
    return parts.hostname or "", parts.port or (443 if parts.scheme in ("https", "wss") else 80)
