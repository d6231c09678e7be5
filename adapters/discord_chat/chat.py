"""The adapter: opens the connection, and says in plain words how the bot stands with Discord."""

import logging
from collections.abc import Sequence

import discord
from discord.http import Route

from adapters.discord_chat import wording
from adapters.discord_chat.client import Client
from adapters.discord_chat.delivery import NETWORK
from adapters.discord_chat.pictures import Pictures, servers
from bot.events import Finding, Service, Unusable

log = logging.getLogger(__name__)

PERMISSIONS = discord.Permissions(
    view_channel=True,
    send_messages=True,
    send_messages_in_threads=True,
    attach_files=True,
    embed_links=True,
    add_reactions=True,
    read_message_history=True,
)
"""What the bot asks of a server; not to manage anything."""
PORTAL = "https://discord.com/developers/applications"
BAD_TOKEN = f"Discord does not know this token. Copy it anew from {PORTAL} → your application → Bot."
NO_INTENT = (
    "discord.message_content is on, but the application may not have it: switch on “Message Content Intent” at "
    f"{PORTAL} → your application → Bot."
)
WITHOUT_INTENT = (
    f"not asked for: /meme with a picture and *{wording.MEME_THIS}* work; the last picture of a channel, mentions in "
    "replies and passive mode need discord.message_content=true and the same switch at Discord"
)


class DiscordChat:
    """Discord, by its own SDK. `api_base` and `gateway_url` say where its servers stand."""

    name = wording.NAME

    def __init__(
        self,
        token: str,
        *,
        api_base: str,
        gateway_url: str,
        message_content: bool,
        sharded_from: int,
        max_bytes: int,
    ) -> None:
        self._token = token
        self._api_base = api_base.rstrip("/")
        self._gateway_url = gateway_url
        self._message_content = message_content
        self._sharded_from = sharded_from
        self._max_bytes = max_bytes
        self._client: Client | None = None

    @property
    def ready(self) -> bool:
        return self._client is not None and self._client.connected

    async def run(self, service: Service) -> None:
        """Serve until cancelled; raises `Unusable` where Discord does not take the token."""
        Route.BASE = self._api_base
        async with Pictures(servers([self._api_base, self._gateway_url])) as pictures:
            try:
                await self._serve(service, pictures, self._message_content)
            except discord.PrivilegedIntentsRequired:
                log.error("%s Until then it goes on without, and passive mode is off.", NO_INTENT)
                await self._serve(service, pictures, False)

    async def examine(self, chats: Sequence[str]) -> list[Finding]:
        """Ask Discord for the bot's account, its switches, and the way to invite it."""
        Route.BASE = self._api_base
        async with discord.Client(intents=discord.Intents.none()) as client:
            try:
                await client.login(self._token)
            except discord.LoginFailure:
                return [Finding(self.name, False, BAD_TOKEN)]
            except (discord.HTTPException, *NETWORK) as error:
                return [Finding(self.name, False, f"Discord cannot be reached at {self._api_base}: {error}")]
            application = client.application
            if application is None:
                return [Finding(self.name, False, f"Discord does not say at {self._api_base} whose token this is")]
            return [
                Finding(self.name, True, f"{client.user} is on {application.approximate_guild_count} servers"),
                self._examined_intent(application.flags),
                Finding(f"{self.name} invitation", True, _invitation(application.id)),
            ]

    def _examined_intent(self, flags: discord.ApplicationFlags) -> Finding:
        name = f"{self.name} message content"
        if not self._message_content:
            return Finding(name, True, WITHOUT_INTENT)
        if flags.gateway_message_content or flags.gateway_message_content_limited:
            return Finding(name, True, "asked for, and switched on at Discord")
        return Finding(name, False, NO_INTENT)

    async def _serve(self, service: Service, pictures: Pictures, message_content: bool) -> None:
        client = Client(
            service,
            pictures,
            gateway_url=self._gateway_url,
            message_content=message_content,
            sharded_from=self._sharded_from,
            max_bytes=self._max_bytes,
        )
        try:
            async with client:
                self._client = client
                await client.start(self._token)
        except discord.LoginFailure as error:
            raise Unusable(BAD_TOKEN) from error
        except discord.ConnectionClosed as error:
            if error.code == 4004:
                raise Unusable(BAD_TOKEN) from error
            raise
        finally:
            self._client = None


def _invitation(application: int) -> str:
    """The address by which somebody adds the bot to a server, and the permissions that it asks for."""
    address = discord.utils.oauth_url(application, permissions=PERMISSIONS, scopes=("bot", "applications.commands"))
    return f"{address} (permissions {PERMISSIONS.value})"
