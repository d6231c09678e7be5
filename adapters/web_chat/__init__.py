"""The local chat: a page, its HTTP interface, health and metrics."""

from .server import WebChat

__all__ = ["WebChat"]
