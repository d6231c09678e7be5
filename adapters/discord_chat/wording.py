"""What the bot says on Discord."""

from collections.abc import Sequence

from bot.events import Forgotten, Ranked, Settings, Stats

NAME = "discord"
MEME_THIS = "Meme this"
POINTER = f"Right-click the picture (on a phone: press it long) and choose *Apps → {MEME_THIS}*."

NO_PICTURE = "There is no picture in that message."
NO_LAST_PICTURE = "There is no picture in the last 50 messages."
NO_INTENT = f"I cannot see the pictures of this channel. {POINTER} Or attach a picture to /meme."
NO_HISTORY = f"I may not read this channel's messages. {POINTER} Or attach a picture to /meme."
NOT_YOURS_TO_READ = "You may not read this channel's messages, so I do not look for a picture in them."
UNSEEN_REPLY = f"I cannot see the picture in that message. {POINTER}"
NOT_A_PICTURE = "That file is no picture."
HOW_TO = f"Reply to a picture and mention me, use /meme, or: {POINTER}"
BROKEN = "Something broke on the bot's side. Its log says what."
FORGOTTEN_MEME = "I do not remember that meme any more."
MAY_NOT_WRITE = "You may not write here, so I post nothing for you."
OPTED_OUT = "Whose picture this is does not want memes made of it."
BEFORE_YOURS = "{} pictures come before yours …"
NO_PERMISSION = "I may not send pictures here. Whoever manages this server can allow it: *Attach Files*."
WITHDRAWN = "The picture was deleted."
ADMINISTRATORS = "Only who may manage the server can change settings."
UNSEEN = (
    "\nI cannot see posted pictures, though: whoever runs me has to switch on the message-content intent "
    "(`discord.message_content`)."
)

PRIVACY = """**What I keep**
- Of a meme: picture and meme for some days, so that the buttons work; then only its texts, seed, model and votes.
- Who asked for it, whose picture it is, and who voted with which emoji.
- Pictures are never used for training. What is learnt from is my own captions with the votes on them. Only where this \
server's administrators agreed (`/settings consent`), numbers computed from a picture are kept to learn from.
- What was written with a picture: until it is answered, and for a day in memory, so that *Another one* knows it.
- Nothing leaves the machine I run on: the model runs there.

`/export` shows what I know of you, `/forget` removes it, `/optout` keeps others from memeing your pictures. \
Deleting your picture deletes the memes made of it."""


def of_settings(settings: Settings, where: str) -> str:
    """A place's settings as a list."""
    lines = [
        f"**Settings of {where}**",
        f"passive: {_switch(settings.passive)} (answer pictures that are merely posted)",
        f"chance: {settings.chance:g} (share of those that are answered)",
        f"cooldown_chat: {settings.cooldown_chat:g} s (between two such answers)",
        f"cooldown_user: {settings.cooldown_user:g} s (between two memes for one person)",
        f"filter: {settings.filter}",
        f"emoji: {' '.join(settings.emoji)} (to vote with)",
        f"consent: {_switch(settings.consent)} (keep features of pictures to learn from)",
    ]
    return "\n".join(lines)


def of_stats(stats: Stats) -> str:
    approval = "no votes yet" if stats.approval is None else f"{stats.approval:.0%} of {stats.up + stats.down} votes"
    return f"Model **{stats.model}**: {stats.memes} memes, approval {approval}."


def of_leaderboard(ranked: Sequence[Ranked]) -> str:
    """The best memes with links to them."""
    if not ranked:
        return "Nobody has voted for a meme here in the last 30 days."
    lines = ["**The best memes of the last 30 days**"]
    for number, entry in enumerate(ranked, start=1):
        meme = entry.meme
        words = " / ".join(box for box in meme.boxes if box)[:80].replace("`", "'")
        link = f" https://discord.com/channels/{meme.server or '@me'}/{meme.chat}/{meme.reply}" if meme.reply else ""
        lines.append(f"{number}. +{entry.up} −{entry.down} `{words}`{link}")
    return "\n".join(lines)[:2000]


def of_forgotten(gone: Forgotten) -> str:
    return f"{gone} Messages that stand in chats stay; whoever may can delete them."


def of_opting_out(out: bool) -> str:
    if out:
        return "Nobody but you can have memes made of your pictures now. `/optout back:True` takes that back."
    return "Others can have memes made of your pictures again."


def _switch(on: bool) -> str:
    return "on" if on else "off"
