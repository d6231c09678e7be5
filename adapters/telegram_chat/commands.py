"""Commands other than /meme: help, settings, and what the bot remembers of people."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from telegram import BotCommand, InputFile
from telegram.error import BadRequest
from telegram.error import Forbidden as Barred

from bot.events import Forbidden, Ranked, Service, Settings

from .job import PLATFORM, Job
from .outbox import Outbox, reply_to
from .rights import Rights

MENU = [
    BotCommand("meme", "a meme of this picture, or of the one you reply to; your own words may follow: top | bottom"),
    BotCommand("settings", "how I behave in this chat"),
    BotCommand("leaderboard", "the best memes of this chat"),
    BotCommand("model", "which model writes, and how it is liked"),
    BotCommand("privacy", "what I remember"),
    BotCommand("export", "everything I remember of you, as a file"),
    BotCommand("forget", "remove everything I remember of you"),
    BotCommand("optout", "no memes of your pictures by others"),
    BotCommand("optin", "others may make memes of your pictures again"),
    BotCommand("help", "what I can do"),
]

HELP = """\
Post a picture, get a meme.

In a private chat, send me a photo, a picture file, a sticker or an album. In a group, write /meme below a picture or in
 reply to one, or mention me. After /meme come your own words, if you like: /meme top | bottom

The buttons below a meme make another one, let you pick among the captions, put your own words on the picture, show what
 the model looked at, or delete it. Reactions are votes, from which the next model learns.

/settings /leaderboard /model /privacy /export /forget /optout""".replace("\n ", " ")

HINT = "Which picture? Send one, write /meme below it, or reply to it with /meme."

UNREADABLE = "I cannot write on that: send me a photo, a picture as a file, a still sticker or a GIF."

OURS = "That is one of my memes already, and I do not remember its picture."

PRIVACY = """\
The captioner runs inside this bot: your picture goes to nobody else.

Pictures and memes are kept for some days to serve the buttons, never for training. Kept longer are the captions I
 wrote, their descriptions, your own words on pictures, and the votes, with the numbers of chats and users. What I learn
 from are my own captions and the votes on them. What was written with a picture is kept until it is answered, and in
 memory for a day. Other messages are not stored.

/export sends you everything about you, /forget removes it, /optout keeps others from making memes of your pictures.\
""".replace("\n ", " ")

SUPERGROUP = "-100"
"""What the numbers of supergroups and channels begin with; their messages have addresses."""
MAX_WORDS = 100
"""Characters of a meme on the leaderboard."""

SETTINGS_HELP = "Change one with, for example, /settings passive on, or /settings chance default."


class Commands:
    """`answer` never raises anything but `Expected` and what Telegram says."""

    def __init__(self, outbox: Outbox, service: Service, rights: Rights) -> None:
        self._outbox = outbox
        self._service = service
        self._rights = rights

    async def answer(self, job: Job) -> None:
        await COMMANDS[job.command](self, job)

    async def help(self, job: Job) -> None:
        await self._say(job, HELP)

    async def hint(self, job: Job) -> None:
        await self._say(job, HINT)

    async def unreadable(self, job: Job) -> None:
        await self._say(job, UNREADABLE)

    async def ours(self, job: Job) -> None:
        await self._say(job, OURS)

    async def privacy(self, job: Job) -> None:
        await self._say(job, PRIVACY)

    async def settings(self, job: Job) -> None:
        """Without words they are shown; `key value` changes one, for administrators."""
        key, _, value = job.text.partition(" ")
        if not key:
            shown = await self._service.settings(job.place)
            await self._say(job, f"{_in_words(shown)}\n\n{SETTINGS_HELP}")
            return
        if not await self._rights.is_administrator(job.chat, job.user):
            raise Forbidden("Only administrators of this chat can change settings.")
        wanted = None if value.strip() == "default" else value.strip()
        shown = await self._service.change_settings(job.place, job.user, {key: wanted})
        await self._say(job, _in_words(shown))

    async def leaderboard(self, job: Job) -> None:
        ranked = await self._service.leaderboard(job.place)
        lines = [f"{place}. {_line(each)}" for place, each in enumerate(ranked, start=1)]
        await self._say(job, "\n".join(lines) or "No meme of this chat has got a vote in favour this month.")

    async def model(self, job: Job) -> None:
        stats = await self._service.stats()
        liked = "no votes yet" if stats.approval is None else f"{stats.approval:.0%} of the votes in favour"
        await self._say(job, f"The model {stats.model} has made {stats.memes} memes: {liked}.")

    async def export(self, job: Job) -> None:
        """The file goes to the user in private, wherever it was asked for."""
        if int(job.user) < 0:  # an anonymous administrator or a channel: what is sent there, everybody sees
            raise Forbidden("Ask me as yourself, not in the name of a chat.")
        data = await self._service.export(PLATFORM, job.user)

        async def attempt(chat: int) -> None:
            await self._outbox.bot.send_document(
                chat,
                InputFile(data, filename="quipbot.json"),
                reply_parameters=reply_to(job.to) if chat == job.chat else None,
            )

        try:
            await self._outbox.send(int(job.user), attempt)
        except (Barred, BadRequest) as error:
            if isinstance(error, BadRequest) and "chat not found" not in error.message.lower():
                raise
            raise Forbidden("I cannot write to you: start a private chat with me first.") from error
        if job.chat < 0:
            await self._say(job, "I have sent it to you in private.")

    async def forget(self, job: Job) -> None:
        gone = await self._service.forget(PLATFORM, job.user)
        await self._say(job, str(gone))

    async def optout(self, job: Job) -> None:
        await self._service.opt_out(PLATFORM, job.user, True)
        await self._say(job, "Nobody else gets memes of your pictures from me. /optin takes it back.")

    async def optin(self, job: Job) -> None:
        await self._service.opt_out(PLATFORM, job.user, False)
        await self._say(job, "Others may make memes of your pictures again.")

    async def _say(self, job: Job, text: str) -> None:
        await self._outbox.say(job.chat, text, to=job.to, thread=job.thread)


COMMANDS: dict[str, Callable[[Commands, Job], Awaitable[None]]] = {
    "start": Commands.help,
    "help": Commands.help,
    "hint": Commands.hint,
    "unreadable": Commands.unreadable,
    "ours": Commands.ours,
    "settings": Commands.settings,
    "privacy": Commands.privacy,
    "export": Commands.export,
    "forget": Commands.forget,
    "optout": Commands.optout,
    "optin": Commands.optin,
    "leaderboard": Commands.leaderboard,
    "model": Commands.model,
}


def _in_words(settings: Settings) -> str:
    lines = {
        "passive": f"{_switch(settings.passive)} (answer pictures that are merely posted)",
        "chance": f"{settings.chance:g} (share of those that are answered)",
        "cooldown_chat": f"{settings.cooldown_chat:g} s (between two such answers)",
        "cooldown_user": f"{settings.cooldown_user:g} s (between two memes for one user)",
        "filter": f"{settings.filter} (strict or normal)",
        "emoji": " ".join(settings.emoji),
        "consent": f"{_switch(settings.consent)} (features of pictures may be kept, to learn from)",
    }
    return "\n".join(f"{key}: {value}" for key, value in lines.items())


def _switch(on: bool) -> str:
    return "on" if on else "off"


def _line(ranked: Ranked) -> str:
    meme = ranked.meme
    day = datetime.fromtimestamp(meme.created).date().isoformat()
    is_linkable = meme.reply and meme.chat.startswith(SUPERGROUP)
    link = f" https://t.me/c/{meme.chat.removeprefix(SUPERGROUP)}/{meme.reply}" if is_linkable else ""
    words = " / ".join(filter(None, meme.boxes))[:MAX_WORDS]
    return f"{words} (👍 {ranked.up}, 👎 {ranked.down}, {day}){link}"
