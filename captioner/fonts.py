"""Which font draws what: the meme font, a font for every other script, and colour emoji."""

import os
import re
import sys
import threading
import unicodedata
from collections import OrderedDict
from functools import cache, cached_property, lru_cache
from itertools import chain
from pathlib import Path
from string import ascii_letters

import font_roboto
from fontTools.ttLib import TTFont, TTLibError
from PIL import Image, ImageDraw, ImageFont, features

SHAPES = bool(features.check("raqm"))
"""Pillow's wheels bring Raqm, but load FriBiDi from the system; without it text is laid out glyph by glyph."""

_SUFFIXES = frozenset({".ttf", ".otf", ".ttc", ".otc"})
_MEME_FONTS = (
    "impact",
    "antonregular",
    "anton",
    "oswaldbold",
    "oswaldwght",
    "oswaldvariablefontwght",
    "bebasneuebold",
    "bebasneueregular",
    "bebasneue",
)
_WEIGHTS = ("black", "heavy", "extrabold", "bold", "wght", "wdthwght", "variablefontwdthwght", "medium", "regular", "")
_FAMILIES = ("notosans", "notonaskh", "notoserif", "sourcehansans", "lohit", "tlwg")
_CJK = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH"})
_BROAD = (
    "dejavusansbold",
    "arialunicode",
    "arialbold",
    "arialbd",
    "tahomabold",
    "tahomabd",
    "segoeuib",
    "nirmalab",
    "leelauib",
    "malgunbd",
    "yugothb",
    "msyhbd",
    "geezapro",
    "thonburi",
    "hiraginosansgb",
    "pingfang",
    "applesdgothicneo",
    "wqyzenhei",
    "wqymicrohei",
    "droidsansfallbackfull",
    "freesansbold",
    "notosansbold",
    "notosanssymbolsbold",
    "notosanssymbols2regular",
    "notosansmathregular",
    "seguisym",
    "applesymbols",
    "dejavusans",
    "freeserifbold",
)
_EMOJI_FONTS = ("notocoloremoji", "applecoloremoji", "seguiemj", "twemojimozilla")
_EMOJI_SIZES = (109, 136, 160, 128, 96)
"""Pixel sizes of the bitmaps in colour fonts; a font that scales takes the first."""
_INVISIBLE = re.compile("[\u200c\u200d\ufe00-\ufe0f\U000e0000-\U000e01ef]")
_LETTERS = frozenset(ascii_letters)
_REFERENCE_SIZE = 100


class FontError(ValueError):
    """The configured font cannot be used; `str(error)` is a sentence that says why."""


class Face:
    """One font file at any size. Fonts are not safe to share between threads: hold `Fonts.lock` while using one."""

    colour = False
    _kept = 48

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sizes: OrderedDict[int, ImageFont.FreeTypeFont] = OrderedDict()
        self.measure = lru_cache(maxsize=4096)(self._measured)
        """Advance width, height above and depth below the baseline of (text, rtl), in em: all scale with the size."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path.name})"

    @cached_property
    def _characters(self) -> frozenset[int]:
        with TTFont(self._path, fontNumber=0, lazy=True) as font:
            font.setGlyphOrder([""] * font["maxp"].numGlyphs)  # names of glyphs are not needed, and slow to read
            return frozenset(font.getBestCmap() or ())

    def covers(self, text: str) -> bool:
        """Whether the font has a glyph for every visible character of `text`."""
        return all(ord(char) in self._characters for char in _INVISIBLE.sub("", text))

    def at(self, size: int) -> ImageFont.FreeTypeFont:
        """The font at `size` pixels an em; the sizes used last are kept."""
        if size in self._sizes:
            self._sizes.move_to_end(size)
        else:
            self._sizes[size] = self._load(size)
            if len(self._sizes) > self._kept:
                self._sizes.popitem(last=False)
        return self._sizes[size]

    def _load(self, size: int) -> ImageFont.FreeTypeFont:
        font = ImageFont.truetype(self._path, size)
        try:
            axes = font.get_variation_axes()
        except OSError:
            return font
        font.set_variation_by_axes(
            [(axis["maximum"] if axis["name"] == b"Weight" else axis["default"]) or 0 for axis in axes]
        )
        return font

    @cached_property
    def cap_height(self) -> float:
        """Height of a capital letter in em."""
        _, above, _ = self.measure("H", False)
        return above or 0.7

    @cached_property
    def space(self) -> float:
        """Width of a space in em; 0 if the font has none to use."""
        return self.measure(" ", False)[0] if self.covers(" ") and not self.colour else 0.0

    def _measured(self, text: str, rtl: bool) -> tuple[float, float, float]:
        font = self.at(_REFERENCE_SIZE)
        shaped, direction = self._shaped(text, rtl)
        _, top, _, bottom = font.getbbox(shaped, anchor="ls", direction=direction)
        return (
            font.getlength(shaped, direction=direction) / _REFERENCE_SIZE,
            -top / _REFERENCE_SIZE,
            bottom / _REFERENCE_SIZE,
        )

    def advance(self, text: str, rtl: bool, size: int) -> float:
        """Advance width in pixels at `size`."""
        shaped, direction = self._shaped(text, rtl)
        return self.at(size).getlength(shaped, direction=direction)

    def paint(
        self, pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, rtl: bool, size: int, stroke: float
    ) -> None:
        """Paint `text` in white with its left end and baseline at `at`, `stroke` pixels fatter on every side."""
        shaped, direction = self._shaped(text, rtl)
        pen.text(at, shaped, 255, self.at(size), anchor="ls", stroke_width=stroke, direction=direction)

    @staticmethod
    def _shaped(text: str, rtl: bool) -> tuple[str, str | None]:
        if SHAPES:
            return text, "rtl" if rtl else "ltr"
        if not rtl:
            return text, None
        from arabic_reshaper import reshape
        from bidi import get_display

        return str(get_display(reshape(text), base_dir="R")), None


class EmojiFace(Face):
    """A colour font; its glyphs are pictures of one size that are scaled."""

    colour = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._pictures: OrderedDict[str, Image.Image] = OrderedDict()

    @cached_property
    def _font(self) -> ImageFont.FreeTypeFont | None:
        for size in _EMOJI_SIZES:
            try:
                font = ImageFont.truetype(self._path, size)
            except OSError:
                continue
            if _emoji_picture("\N{GRINNING FACE}", font).getbbox():
                return font
        return None

    def covers(self, text: str) -> bool:
        return self._font is not None and super().covers(text)

    def picture(self, cluster: str) -> Image.Image:
        """The emoji as RGBA, cropped to its ink; 1×1 and transparent if the font draws nothing."""
        if cluster not in self._pictures:
            assert self._font is not None
            drawn = _emoji_picture(cluster if SHAPES else cluster[0], self._font)
            self._pictures[cluster] = drawn.crop(drawn.getbbox() or (0, 0, 1, 1))
            if len(self._pictures) > 256:
                self._pictures.popitem(last=False)
        return self._pictures[cluster]


class Fonts:
    """The meme font and everything that stands in for it where it has no glyph."""

    def __init__(self, faces: list[Face], emoji: EmojiFace | None) -> None:
        self.lock = threading.RLock()
        """Held while faces are used: neither FreeType's fonts nor these caches may be shared freely."""
        self.primary = faces[0]
        self.emoji = emoji
        self._preferred = faces
        self._others: dict[Path, Face] = {}
        self._by_character: dict[str, Face | None] = {}

    @classmethod
    def resolve(cls, configured: str | None = None) -> "Fonts":
        """The configured font file, else the first meme font installed, else Roboto Black, which comes through pip.

        Raises `FontError` if the configured file is missing or no font.
        """
        installed = _installed()
        primary = next((installed[name] for name in _MEME_FONTS if name in installed), None)
        if configured:
            primary = _configured(configured)
        faces = [Face(path) for path in (primary, Path(font_roboto.RobotoBlack)) if path]
        emoji = next((EmojiFace(installed[name]) for name in _EMOJI_FONTS if name in installed), None)
        return cls(faces, emoji)

    def is_emoji(self, cluster: str) -> bool:
        """Whether `cluster` is drawn in colour: it asks for it, or is a symbol that the meme font does not have."""
        if self.emoji is None or cluster in _LETTERS or "\ufe0e" in cluster or not self.emoji.covers(cluster):
            return False
        if "\ufe0f" in cluster:
            return True
        return unicodedata.category(cluster[0]) in ("So", "Sk") and not self.primary.covers(cluster[0])

    def face_for(self, text: str) -> Face | None:
        """The first font that has all of `text`; None if there is none."""
        faces = chain(self._preferred, map(self._face_of, _INVISIBLE.sub("", text)))
        return next((face for face in faces if face is not None and face.covers(text)), None)

    def _face_of(self, char: str) -> Face | None:
        if char not in self._by_character:
            self._by_character[char] = self._search(char)
        return self._by_character[char]

    def _search(self, char: str) -> Face | None:
        installed = _installed()
        for name in (*_script_fonts(char), *_BROAD):
            if name not in installed:
                continue
            face = self._others.setdefault(installed[name], Face(installed[name]))
            try:
                if face.covers(char):
                    return face
            except (TTLibError, OSError):  # a broken font on the system is as good as none
                continue
        return None


def _emoji_picture(cluster: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    left, top, right, bottom = (int(side) for side in font.getbbox(cluster))
    canvas = Image.new("RGBA", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(canvas).text((-left, -top), cluster, "white", font, embedded_color=True)
    return canvas


def _script_fonts(char: str) -> list[str]:
    """Names of Noto and its like for the script of `char`, heaviest first."""
    script = unicodedata.name(char, "").split(" ")[0].split("-")[0]
    wanted = "cjk" if script in _CJK else script.lower()
    return [family + wanted + weight for family in _FAMILIES for weight in _WEIGHTS] if wanted else []


def _configured(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise FontError(f"The configured font {name!r} does not exist.")
    try:
        ImageFont.truetype(path, _REFERENCE_SIZE)
        Face(path).covers("A")
    except (OSError, TTLibError) as error:
        raise FontError(f"The configured font {name!r} is no font that can be read.") from error
    return path


@cache
def _installed() -> dict[str, Path]:
    """Every font file of the system by its bare name (`BebasNeue-Bold.otf` is `bebasneuebold`)."""
    found: dict[str, Path] = {}
    for folder in _folders():
        for root, _, files in os.walk(folder):
            for file in files:
                path = Path(root, file)
                if path.suffix.lower() in _SUFFIXES:
                    found.setdefault(re.sub(r"[^a-z0-9]", "", path.stem.lower()), path)
    return found


def _folders() -> list[Path]:
    home = Path.home()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", home / "AppData/Local")
        return [Path(os.environ.get("WINDIR", "C:/Windows"), "Fonts"), Path(local, "Microsoft/Windows/Fonts")]
    if sys.platform == "darwin":
        return [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    data = os.environ.get("XDG_DATA_HOME", home / ".local/share")
    return [Path(data, "fonts"), home / ".fonts", Path("/usr/local/share/fonts"), Path("/usr/share/fonts")]
