"""What happens when a button below a meme is pressed, or its dialogue is sent."""

import io
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import discord

from adapters.discord_chat import buttons, wording
from adapters.discord_chat.delivery import TOKEN_LIFE, persistently
from adapters.discord_chat.interactions import Interaction, acknowledge, tell
from bot.events import BadRequest, Expected, NotFound, Service

log = logging.getLogger(__name__)


class Presses:
    """Finds out by its id what an interaction is about, and sees to it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._deeds = {
            "another": self._another,
            "pick": self._pick,
            "take": self._take,
            "edit": self._edit,
            "words": self._words,
            "why": self._why,
            "delete": self._delete,
        }

    async def handle(self, interaction: Interaction) -> None:
        """Anything with an id of ours; failures are told to who pressed, and to nobody else."""
        data: Mapping[str, Any] = interaction.data or {}
        found = buttons.ID.fullmatch(data.get("custom_id", ""))
        if found is None:
            return
        try:
            await self._deeds[found["what"]](interaction, found["meme"], found["number"])
        except Expected as error:
            await tell(interaction, str(error))
        except Exception:
            log.exception("discord: a button broke")
            await tell(interaction, wording.BROKEN)

    async def _another(self, interaction: Interaction, meme: str, _: str | None) -> None:
        record = await self._service.check_kept(meme)
        await interaction.client.take_on(interaction, record.message, kind="another", meme=meme)

    async def _pick(self, interaction: Interaction, meme: str, _: str | None) -> None:
        record = await self._service.check_kept(meme)
        if len(record.candidates) < 2:
            raise BadRequest("These words are somebody's own: there is nothing to pick from.")
        text, view = buttons.choices(record)
        await interaction.response.send_message(text, view=view, ephemeral=True)

    async def _take(self, interaction: Interaction, meme: str, number: str | None) -> None:
        record = await self._service.check_kept(meme)
        candidate = int(number or 0)
        await interaction.client.take_on(interaction, record.message, kind="take", meme=meme, candidate=candidate)

    async def _edit(self, interaction: Interaction, meme: str, _: str | None) -> None:
        await interaction.response.send_modal(buttons.form(await self._service.check_kept(meme)))

    async def _words(self, interaction: Interaction, meme: str, _: str | None) -> None:
        record = await self._service.check_kept(meme)
        boxes = buttons.written(interaction.data or {})
        await interaction.client.take_on(interaction, record.message, kind="words", meme=meme, boxes=boxes)

    async def _why(self, interaction: Interaction, meme: str, _: str | None) -> None:
        await self._service.check_kept(meme)
        if not await acknowledge(interaction, ephemeral=True):
            return
        picture = await self._service.explain(meme)
        spoiler = (await self._service.reply(meme)).spoiler
        alt = "Each word over what it is about in the picture"
        file = discord.File(io.BytesIO(picture), "why.png", spoiler=spoiler, description=alt)
        await interaction.edit_original_response(attachments=[file])

    async def _delete(self, interaction: Interaction, meme: str, _: str | None) -> None:
        moderator = interaction.guild_id is not None and interaction.permissions.manage_messages
        user = str(interaction.user.id)
        await self._service.check_deletable(meme, user, moderator=moderator)
        try:
            await interaction.response.defer()
        except discord.NotFound:
            log.info("a press on Delete was answered too late")  # the meme stands, and so does its button
            return
        with suppress(discord.NotFound):  # somebody was quicker
            await persistently(interaction.delete_original_response, time.time() + TOKEN_LIFE)
        with suppress(NotFound):  # its deletion was heard of before
            await self._service.delete(meme, user, moderator=moderator)
