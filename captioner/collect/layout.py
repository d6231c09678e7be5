"""What stands on the pages: templates in a list or in JSON, captions on the pages of each template.

The layout is ImgFlip's. Who wrote a caption stands there too, and is not read.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from bs4 import BeautifulSoup, Tag

from captioner.collect.visitor import Page, VisitError

_TAIL = re.compile(r"\s*\|\s*(?:image tagged in|made w/).*$", re.DOTALL | re.IGNORECASE)
_COUNT = re.compile(r"([\d,]+)\s+(view|upvote)s?\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Template:
    """A template: the name of its files, its title, its page of captions, its picture where it is known already."""

    slug: str
    title: str
    page: str
    picture: str = ""


def templates(page: Page, pattern: str) -> tuple[list[Template], str | None]:
    """The templates of a list, and the address of its next page.

    A list in JSON names no pages of captions: `pattern` is their address with {id} and {name}. Raises VisitError for
    anything else.
    """
    if page.content_type.endswith("json"):
        return _from_json(page, pattern), None
    soup = BeautifulSoup(page.body, "html.parser")
    links = [link for link in soup.select(".mt-title a[href]") if link.get_text(strip=True)]
    found = [_template(link.get_text(strip=True), urljoin(page.url, str(link["href"]))) for link in links]
    if not found:
        raise VisitError(f"{page.url} is no list of templates.")
    return found, _next(soup, page.url)


def captions(page: Page) -> tuple[list[dict[str, Any]], str | None]:
    """The captions on a template's page, as ImgFlip575K has them, and the address of the next page."""
    soup = BeautifulSoup(page.body, "html.parser")
    found = [_caption(unit) for unit in soup.select(".base-unit")]
    return [caption for caption in found if caption], _next(soup, page.url)


def picture(page: Page) -> str:
    """The address of the template's own picture on its page of captions, "" where there is none."""
    image = BeautifulSoup(page.body, "html.parser").select_one("a.meme-link img[src]")
    return urljoin(page.url, str(image["src"])) if image else ""


def _from_json(page: Page, pattern: str) -> list[Template]:
    try:
        memes = json.loads(page.body)["data"]["memes"]
        rows = [(str(meme["id"]), str(meme["name"]), str(meme["url"])) for meme in memes]
    except (ValueError, KeyError, TypeError) as error:
        raise VisitError(f"{page.url} is no list of templates.") from error
    if "{" not in pattern:
        raise VisitError("A list in JSON names no pages of captions: say where they are, with {id} and {name}.")
    found = []
    for number, name, url in rows:
        address = pattern.replace("{id}", slug(number)).replace("{name}", slug(name))
        found.append(Template(slug(name), name, address, urljoin(page.url, url)))
    return found


def _template(title: str, address: str) -> Template:
    return Template(slug(urlsplit(address).path.rpartition("/")[2] or title), title, address)


def slug(title: str) -> str:
    """A title as addresses and files have it: `Two-Buttons`."""
    return re.sub(r"[^\w]+", "-", re.sub(r"['’]", "", title), flags=re.ASCII).strip("-")[:80] or "untitled"


def _caption(unit: Tag) -> dict[str, Any] | None:
    """One caption with views and votes; None for what is no picture with words."""
    image, link = unit.select_one("img.base-img[alt]"), unit.select_one("h2 a[href], a.base-img-link[href]")
    if image is None or link is None:
        return None
    title = unit.select_one(".base-unit-title")
    boxes = _boxes(str(image["alt"]), title.get_text(strip=True) if title else "")
    if not boxes:
        return None
    seen = unit.select_one(".base-view-count")
    counts = {kind.lower(): count for count, kind in _COUNT.findall(seen.get_text() if seen else "")}
    votes = counts.get("upvote", "0") if "view" in counts else None
    # The post's address would lead to its author; a digest of it tells apart as well.
    key = hashlib.blake2b(urlsplit(str(link["href"])).path.encode(), digest_size=8).hexdigest()
    return {"id": key, "metadata": {"views": counts.get("view"), "img-votes": votes}, "boxes": boxes}


def _boxes(alt: str, title: str) -> list[str]:
    """The texts of an `alt`: `title | first; second | image tagged in … | made w/ …`."""
    told = _TAIL.sub("", alt)
    words = told[len(title) :] if title and told.startswith(title) else told.partition("|")[2]
    return [box.strip() for box in words.strip().removeprefix("|").split(";") if box.strip()]


def _next(soup: BeautifulSoup, url: str) -> str | None:
    """The next page, where it is of the same site."""
    link = soup.select_one("a.pager-next[href]")
    address = urljoin(url, str(link["href"])) if link else None
    return address if address and urlsplit(address).netloc == urlsplit(url).netloc else None
