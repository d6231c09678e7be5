"""Discord: pictures in, memes out, reactions counted."""

from adapters.discord_chat.chat import DiscordChat

__all__ = ["DiscordChat"]
