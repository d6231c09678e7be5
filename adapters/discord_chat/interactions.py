"""Small things about interactions and the channels that they happen in."""

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

import discord

from adapters.discord_chat import wording
from adapters.discord_chat.delivery import UNREADABLE, Undeliverable, persistently
from bot.events import Place

log = logging.getLogger(__name__)

ACKNOWLEDGE = 2.5
"""Seconds within which an interaction has to be acknowledged, less what the way takes."""
LONGEST_WAIT = 1.0
"""Seconds that work waits at most until others are acknowledged."""
ALREADY_ACKNOWLEDGED = 40060

Interaction = discord.Interaction[Any]


class Pace:
    """Acknowledgements come before work: `async with` one is under way, and `quiet` waits for the end of all."""

    def __init__(self) -> None:
        self._under_way = 0
        self._none = asyncio.Event()

    async def __aenter__(self) -> None:
        self._under_way += 1
        self._none.clear()

    async def __aexit__(self, *error: object) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._none.set()

    async def quiet(self) -> None:
        """Wait, but not for long: somebody is always writing where many are."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT):
                await self._none.wait()


def place_of(channel: Any, guild: int | None) -> Place:
    """Whose settings hold in a channel: of a thread, those of the channel that it belongs to."""
    chat = channel.parent_id if isinstance(channel, discord.Thread) else getattr(channel, "id", 0)
    adult = guild is not None and hasattr(channel, "is_nsfw") and channel.is_nsfw()
    return Place(wording.NAME, str(chat), str(guild or ""), adult)


def open_chats(interaction: Interaction) -> set[str]:
    """The channels and threads of a server that everybody on it may see; age-restricted ones from such ones only."""
    guild, adult = interaction.guild, place_of(interaction.channel, interaction.guild_id).adult
    if guild is None:
        return set()

    def is_open(channel: discord.abc.GuildChannel) -> bool:
        restricted = getattr(channel, "nsfw", False)
        return channel.permissions_for(guild.default_role).view_channel and (adult or not restricted)

    channels = {channel.id for channel in guild.channels if is_open(channel)}
    threads = {thread.id for thread in guild.threads if thread.parent_id in channels and not thread.is_private()}
    return set(map(str, channels | threads))


def may_react(interaction: Interaction) -> bool:
    """Whether the bot can put reactions there: where a user brought it along, it is no member."""
    if interaction.guild_id is None:
        return bool(interaction.context.dm_channel)
    return interaction.client.get_guild(interaction.guild_id) is not None and interaction.app_permissions.add_reactions


def may_write(interaction: Interaction) -> bool:
    """Whether a user may have something posted: below a meme anybody who sees it finds buttons. Of commands, servers
    themselves say who may use them."""
    if interaction.guild_id is None or interaction.type is discord.InteractionType.application_command:
        return True
    may, is_thread = interaction.permissions, isinstance(interaction.channel, discord.Thread)
    return may.administrator or (may.send_messages_in_threads if is_thread else may.send_messages)


async def acknowledge(interaction: Interaction, *, ephemeral: bool = False) -> bool:
    """Defer an answer, whatever the network does; False where it is too late for that."""
    try:
        await persistently(
            lambda: interaction.response.defer(thinking=True, ephemeral=ephemeral), time.time() + ACKNOWLEDGE
        )
    except Undeliverable:
        return False
    except discord.HTTPException as error:
        return error.code == ALREADY_ACKNOWLEDGED
    except UNREADABLE as error:
        log.debug("acknowledged, in words that the library does not understand: %r", error)
    return True


async def tell(interaction: Interaction, sentence: str) -> None:
    """A sentence for the user alone, or instead of the deferred answer."""
    if interaction.response.is_done():
        await interaction.edit_original_response(content=sentence, allowed_mentions=discord.AllowedMentions.none())
    else:
        await interaction.response.send_message(sentence, ephemeral=True)
