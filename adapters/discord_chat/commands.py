"""The commands that Discord offers its users."""

import io
from typing import Any, Literal

import discord
from discord import app_commands

from adapters.discord_chat import wording
from adapters.discord_chat.interactions import Interaction, acknowledge, open_chats, place_of, tell
from adapters.discord_chat.pictures import Found, attached, in_message, words_of
from bot.events import BadRequest, Forbidden, NotFound, Place, TooLarge

Filter = Literal["strict", "normal", "off"]
Where = Literal["channel", "server"]
MAX_SEED = 2**53
"""The largest number that Discord's options hold."""

everywhere = app_commands.allowed_contexts(guilds=True, dms=True, private_channels=True)
for_all = app_commands.allowed_installs(guilds=True, users=True)


@app_commands.command(name="meme", description="A meme of a picture: the attached one, or the last one posted here")
@app_commands.describe(
    image="The picture; without it the last one of this channel",
    top="Your own words for the top",
    bottom="Your own words for the bottom",
    style="meme (the default), or describe: what the picture shows",
    seed="A number; the same one makes the same meme",
)
@everywhere
@for_all
async def meme(
    interaction: Interaction,
    image: discord.Attachment | None = None,
    top: app_commands.Range[str, 0, 300] | None = None,
    bottom: app_commands.Range[str, 0, 300] | None = None,
    style: Literal["meme", "describe"] = "meme",
    seed: app_commands.Range[int, 0, MAX_SEED] | None = None,
) -> None:
    found = _checked(interaction, image) if image else None
    if found is None:
        _check_sight(interaction)
    boxes = [top or "", bottom or ""] if top or bottom else []
    await _post(interaction, found, boxes=boxes, style=style, seed=seed)


@app_commands.context_menu(name=wording.MEME_THIS)
@everywhere
@for_all
async def meme_this(interaction: Interaction, message: discord.Message) -> None:
    found = in_message(message)
    if found is None:
        raise BadRequest(wording.NO_PICTURE)
    if message.author == interaction.client.user:
        await _another(interaction, message)
        return
    service = interaction.client.service
    if found.author != str(interaction.user.id) and await service.opted_out(wording.NAME, found.author):
        raise Forbidden(wording.OPTED_OUT)
    await _post(interaction, found, text=words_of(message.content))


@app_commands.command(name="settings", description="How I behave in this channel or on this server")
@app_commands.describe(
    where="This channel (the default), or the whole server",
    passive="Answer pictures that are merely posted",
    chance="Share of those that I answer, from 0 to 1",
    cooldown_chat="Seconds between two such answers",
    cooldown_user="Seconds between two memes for one person",
    filter="What memes may not say; off in age-restricted channels only",
    emoji="What to vote with, with spaces between",
    consent="Keep features of posted pictures to learn from",
    reset="Take all settings of this channel or server back first",
)
@app_commands.guild_only()
@app_commands.default_permissions(manage_guild=True)
@app_commands.allowed_installs(guilds=True, users=False)
async def settings(
    interaction: Interaction,
    where: Where = "channel",
    passive: bool | None = None,
    chance: app_commands.Range[float, 0, 1] | None = None,
    cooldown_chat: app_commands.Range[float, 0, 86400] | None = None,
    cooldown_user: app_commands.Range[float, 0, 86400] | None = None,
    filter: Filter | None = None,  # noqa: A002, the option's name
    emoji: str | None = None,
    consent: bool | None = None,
    reset: bool = False,
) -> None:
    if not interaction.permissions.manage_guild:
        raise Forbidden(wording.ADMINISTRATORS)
    given = {
        "passive": passive,
        "chance": chance,
        "cooldown_chat": cooldown_chat,
        "cooldown_user": cooldown_user,
        "filter": filter,
        "emoji": emoji,
        "consent": consent,
    }
    changes = {key: value for key, value in given.items() if reset or value is not None}
    service, place = interaction.client.service, _place(interaction, where)
    user = str(interaction.user.id)
    held = await (service.change_settings(place, user, changes) if changes else service.settings(place))
    unseen = wording.UNSEEN if held.passive and not interaction.client.sees_content else ""
    await tell(interaction, wording.of_settings(held, f"this {where}") + unseen)


@app_commands.command(name="leaderboard", description="The best memes of the last 30 days")
@app_commands.describe(where="Of this server (the default), or of this channel")
@app_commands.guild_only()
@app_commands.allowed_installs(guilds=True, users=False)
async def leaderboard(interaction: Interaction, where: Where = "server") -> None:
    here = str(interaction.channel_id)
    if where == "channel":
        ranked = await interaction.client.service.leaderboard(Place(wording.NAME, here, str(interaction.guild_id)))
    else:
        among = {here, *open_chats(interaction)}
        ranked = await interaction.client.service.leaderboard(_place(interaction, where), among=among)
    await interaction.response.send_message(wording.of_leaderboard(ranked), suppress_embeds=True)


@app_commands.command(name="model", description="Which model writes the memes, and how they are received")
@everywhere
@for_all
async def model(interaction: Interaction) -> None:
    await tell(interaction, wording.of_stats(await interaction.client.service.stats()))


@app_commands.command(name="privacy", description="What I keep, for how long, and what of it I learn from")
@everywhere
@for_all
async def privacy(interaction: Interaction) -> None:
    await tell(interaction, wording.PRIVACY)


@app_commands.command(name="export", description="Everything I remember of you, as a file")
@everywhere
@for_all
async def export(interaction: Interaction) -> None:
    if not await acknowledge(interaction, ephemeral=True):
        return
    rows = await interaction.client.service.export(wording.NAME, str(interaction.user.id))
    await interaction.edit_original_response(attachments=[discord.File(io.BytesIO(rows), "quipbot.json")])


@app_commands.command(name="forget", description="Remove everything I remember of you: memes, votes, requests")
@everywhere
@for_all
async def forget(interaction: Interaction) -> None:
    if not await acknowledge(interaction, ephemeral=True):
        return
    gone = await interaction.client.service.forget(wording.NAME, str(interaction.user.id))
    await tell(interaction, wording.of_forgotten(gone))


@app_commands.command(name="optout", description="Keep others from having memes made of your pictures")
@app_commands.describe(back="Let them again")
@everywhere
@for_all
async def optout(interaction: Interaction, back: bool = False) -> None:
    await interaction.client.service.opt_out(wording.NAME, str(interaction.user.id), not back)
    await tell(interaction, wording.of_opting_out(not back))


ALL: tuple[app_commands.Command[Any, ..., None] | app_commands.ContextMenu, ...] = (
    meme,
    meme_this,
    settings,
    leaderboard,
    model,
    privacy,
    export,
    forget,
    optout,
)


async def _another(interaction: Interaction, message: discord.Message) -> None:
    """Another meme of a meme's picture: what stands on it already is nobody's picture."""
    client = interaction.client
    try:
        meme = await client.delivery.meme_at(str(message.channel.id), str(message.id))
    except NotFound:
        raise NotFound(wording.FORGOTTEN_MEME) from None
    record = await client.service.check_kept(meme)
    await client.take_on(interaction, record.message, kind="another", meme=meme)


async def _post(interaction: Interaction, found: Found | None, **changes: Any) -> None:
    picture = None if found is None else found.to_json()
    message = "" if found is None else found.message
    await interaction.client.take_on(interaction, message, kind="post", picture=picture, **changes)


def _checked(interaction: Interaction, image: discord.Attachment) -> Found:
    """The attached picture, where it can be one."""
    found = attached(image)
    if found is None:
        raise BadRequest(wording.NOT_A_PICTURE)
    if image.size > interaction.client.max_bytes:
        raise TooLarge(f"The file is larger than {interaction.client.max_bytes / 1e6:g} MB.")
    return found


def _check_sight(interaction: Interaction) -> None:
    """Raises `Expected` where the last picture of the channel cannot be looked for."""
    if interaction.guild_id is None:
        return
    if not interaction.client.sees_content:
        raise BadRequest(wording.NO_INTENT)
    if not interaction.permissions.read_message_history:
        raise Forbidden(wording.NOT_YOURS_TO_READ)


def _place(interaction: Interaction, where: Where) -> Place:
    place = place_of(interaction.channel, interaction.guild_id)
    return place if where == "channel" else Place(place.platform, "", place.server)
