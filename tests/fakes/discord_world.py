"""What exists on the loopback Discord, and how Discord writes it: servers, channels, users, messages, reactions."""

import itertools
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

APPLICATION = "100"
"""The id of the application and of its bot."""
EPHEMERAL = 64
LOADING = 128
ALL_PERMISSIONS = str((1 << 50) - 1)
EVERYBODY = str((1 << 50) - 1 - (1 << 3))
"""All but an administrator's, from whom no channel is hidden."""
MEMBER_PERMISSIONS = str(1 << 6 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 15 | 1 << 16)
"""React, see, write, links, files, history: what an ordinary member may."""

_numbers = itertools.count(1)


def snowflake() -> str:
    """An id that says when it was made, as Discord's do."""
    return str(int(time.time() * 1000 - 1_420_070_400_000) << 22 | next(_numbers) % (1 << 22))


def now() -> str:
    return datetime.now(UTC).isoformat()


def user(number: str, *, bot: bool = False) -> Json:
    return {
        "id": number,
        "username": f"user{number}",
        "discriminator": "0",
        "avatar": None,
        "global_name": None,
        "bot": bot,
        "public_flags": 0,
    }


def member(number: str, permissions: str = MEMBER_PERMISSIONS, *, bot: bool = False) -> Json:
    return {
        "user": user(number, bot=bot),
        "roles": [],
        "joined_at": now(),
        "deaf": False,
        "mute": False,
        "flags": 0,
        "permissions": permissions,
    }


@dataclass
class Channel:
    """A text channel, a thread (type 11), or direct messages (type 1)."""

    id: str
    guild: str | None
    type: int = 0
    nsfw: bool = False
    parent: str | None = None
    history_hidden: bool = False
    """Whether the bot may not read earlier messages, and so reply to none."""
    messages: dict[str, "Message"] = field(default_factory=dict)

    def to_json(self) -> Json:
        data: Json = {"id": self.id, "type": self.type, "name": f"channel{self.id}", "permissions": ALL_PERMISSIONS}
        if self.type == 1:
            return data | {"recipients": [user("1")], "last_message_id": None}
        data |= {"guild_id": self.guild, "position": 0, "nsfw": self.nsfw, "permission_overwrites": []}
        if self.type == 11:
            data |= {
                "parent_id": self.parent,
                "owner_id": "1",
                "message_count": 0,
                "member_count": 1,
                "thread_metadata": {
                    "archived": False,
                    "auto_archive_duration": 60,
                    "archive_timestamp": now(),
                    "locked": False,
                },
            }
        return data


@dataclass
class Message:
    """A message; `files` are the bytes that its attachments are made of."""

    id: str
    channel: Channel
    author: Json
    content: str = ""
    attachments: list[Json] = field(default_factory=list)
    embeds: list[Json] = field(default_factory=list)
    components: list[Json] = field(default_factory=list)
    snapshots: list[Json] = field(default_factory=list)
    reference: Json | None = None
    flags: int = 0
    files: list[bytes] = field(default_factory=list)
    reactions: dict[str, dict[str, bool]] = field(default_factory=dict)
    """Emoji to users, and whether each is a bot."""
    webhook: str | None = None
    edited: int = 0

    def buttons(self) -> dict[str, str]:
        """Labels of the buttons to their ids."""
        return {b["label"]: b["custom_id"] for row in self.components for b in row["components"]}

    def mentions(self, number: str) -> bool:
        return f"<@{number}>" in self.content or f"<@!{number}>" in self.content

    def to_json(self, *, hidden: bool = False) -> Json:
        """`hidden` leaves out what only the message-content intent shows."""
        data: Json = {
            "id": self.id,
            "channel_id": self.channel.id,
            "author": self.author,
            "content": "" if hidden else self.content,
            "timestamp": now(),
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "mentions": [user(APPLICATION, bot=True)] if self.mentions(APPLICATION) else [],
            "mention_roles": [],
            "attachments": [] if hidden else self.attachments,
            "embeds": [] if hidden else self.embeds,
            "components": [] if hidden else self.components,
            "pinned": False,
            "type": 19 if self.reference and self.reference.get("type", 0) == 0 else 0,
            "flags": self.flags,
            "reactions": [reaction_json(emoji, users) for emoji, users in self.reactions.items()],
        }
        if self.webhook:
            data["webhook_id"] = self.webhook
        if self.snapshots and not hidden:
            data["message_snapshots"] = self.snapshots
        if self.reference:
            data["message_reference"] = self.reference
            original = self.channel.messages.get(self.reference["message_id"])
            data["referenced_message"] = original.to_json(hidden=hidden) if original else None
        return data


def emoji_json(emoji: str) -> Json:
    name, _, number = emoji.partition(":")
    return {"id": number or None, "name": name}


def reaction_json(emoji: str, users: dict[str, bool]) -> Json:
    return {
        "emoji": emoji_json(emoji),
        "count": len(users),
        "count_details": {"burst": 0, "normal": len(users)},
        "me": APPLICATION in users,
        "me_burst": False,
        "burst_colors": [],
    }


@dataclass
class Guild:
    id: str
    channels: dict[str, Channel] = field(default_factory=dict)
    premium_tier: int = 0

    def to_json(self) -> Json:
        return {
            "id": self.id,
            "name": f"server{self.id}",
            "icon": None,
            "splash": None,
            "discovery_splash": None,
            "owner_id": "1",
            "afk_channel_id": None,
            "afk_timeout": 60,
            "verification_level": 0,
            "default_message_notifications": 0,
            "explicit_content_filter": 0,
            "roles": [
                {
                    "id": self.id,
                    "name": "@everyone",
                    "color": 0,
                    "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
                    "hoist": False,
                    "position": 0,
                    "permissions": EVERYBODY,
                    "managed": False,
                    "mentionable": False,
                    "flags": 0,
                }
            ],
            "emojis": [],
            "stickers": [],
            "features": [],
            "mfa_level": 0,
            "system_channel_id": None,
            "system_channel_flags": 0,
            "rules_channel_id": None,
            "public_updates_channel_id": None,
            "premium_tier": self.premium_tier,
            "preferred_locale": "en-US",
            "nsfw_level": 0,
            "premium_progress_bar_enabled": False,
            "large": False,
            "member_count": 3,
            "members": [member(APPLICATION, ALL_PERMISSIONS, bot=True)],
            "channels": [c.to_json() for c in self.channels.values() if c.type == 0],
            "threads": [c.to_json() for c in self.channels.values() if c.type == 11],
            "presences": [],
            "voice_states": [],
            "stage_instances": [],
            "guild_scheduled_events": [],
            "soundboard_sounds": [],
        }
