"""Whether to answer a picture, and how. Pure: the clock and the dice are the caller's."""

import hashlib


def answers(
    *,
    addressed: bool,
    from_bot: bool,
    chance: float,
    dice: float,
    quiet_for: float,
    cooldown: float,
) -> bool:
    """Whether a posted picture gets a meme.

    `dice` is uniform in [0, 1); `quiet_for` is how many seconds ago the bot last spoke up unasked in this chat
    (infinity: never).
    """
    if from_bot:
        return False
    if addressed:
        return True
    if quiet_for < cooldown:
        return False
    return dice < chance


def explores(seed: int, share: float) -> bool:
    """Whether the meme of this seed goes out unranked: always the same for a seed, true for `share` of all seeds."""
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8, person=b"explore").digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def tries(platform: str, chat: str, share: float) -> bool:
    """Whether a chat is among the `share` of all chats that a model on trial serves: always the same for a chat."""
    digest = hashlib.blake2b(f"{platform}:{chat}".encode(), digest_size=8, person=b"trial").digest()
    return int.from_bytes(digest, "big") < share * 2.0**64
