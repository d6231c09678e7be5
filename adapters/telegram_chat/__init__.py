"""Telegram: private chats, groups and channels, by long poll or webhook."""

import os

os.environ.setdefault("PTB_TIMEDELTA", "1")  # the library's next way of telling durations; else each flood limit warns

from .chat import TelegramChat
from .intake import Webhook

__all__ = ["TelegramChat", "Webhook"]
