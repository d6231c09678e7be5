"""Collecting captions from a public site: politely, resumably, and without the names of those who wrote them."""

from captioner.collect.collection import Collection
from captioner.collect.visitor import Visitor

__all__ = ["Collection", "Visitor"]
