import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import font_roboto
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from captioner import fonts as fonts_module
from captioner.calm import busyness
from captioner.draw import arranged, draw, laid_out, letter
from captioner.fonts import FontError, Fonts
from captioner.images import Face
from captioner.layouts import Box, shipped
from captioner.script import paragraphs, runs

GREY = (90, 120, 60)
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
FLAG = "\U0001f1e9\U0001f1ea"
THUMB = "\U0001f44d\U0001f3fd"
KEYCAP = "3\ufe0f\u20e3"


@pytest.fixture(scope="module")
def fonts() -> Fonts:
    return Fonts.resolve()


def canvas(size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size, GREY)


def changed(size: tuple[int, int], boxes: list[str], fonts: Fonts) -> np.ndarray:
    """Which pixels drawing changes: (height, width) of bool."""
    return (np.asarray(draw(canvas(size), boxes, fonts)) != GREY).any(axis=-1)


def words(text: str, fonts: Fonts) -> list[str]:
    return ["".join(cluster.text for cluster in word.clusters) for line in paragraphs(text, fonts) for word in line]


texts = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="abcdefg hij", max_size=300),
    st.text(alphabet="x", min_size=100, max_size=400),
    st.text(alphabet="ابتث جح 12(", max_size=40),
    st.text(alphabet="漢字かなカナ、。「」한국", max_size=60),
    st.text(alphabet="e\u0301\u0300\u0323\u200b\u200d\u200c\ufe0f\u202e\u2066", max_size=40),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Mn"]), max_size=30),
    st.lists(st.sampled_from([FAMILY, FLAG, THUMB, KEYCAP, "\U0001f602", "a", " "]), max_size=30).map("".join),
)
sizes = st.one_of(
    st.tuples(st.integers(32, 700), st.integers(32, 700)),
    st.sampled_from([(32, 32), (8000, 400), (400, 8000), (32, 4000), (4000, 32), (1200, 900)]),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(size=sizes, boxes=st.lists(texts, max_size=5))
@example(size=(32, 32), boxes=["W" * 500, "g" * 500])
@example(size=(333, 32), boxes=["a"] * 40)
def test_no_ink_leaves_the_picture_and_no_boxes_overlap(size: tuple[int, int], boxes: list[str], fonts: Fonts) -> None:
    ink = changed(size, boxes, fonts)
    allowed = np.zeros_like(ink, dtype=int)
    for lettering in letter(size, boxes, fonts, busyness(canvas(size))):
        left, top, right, bottom = lettering.ink
        assert 1 <= left < right < size[0]
        assert 1 <= top < bottom < size[1]
        allowed[top:bottom, left:right] += 1
    assert allowed.max() <= 1
    assert not (ink & (allowed == 0)).any()


@settings(max_examples=40, deadline=None)
@given(size=st.tuples(st.integers(1, 31), st.integers(1, 31)), boxes=st.lists(texts, max_size=3))
def test_pictures_too_small_for_text_are_left_in_peace(size: tuple[int, int], boxes: list[str], fonts: Fonts) -> None:
    assert draw(canvas(size), boxes, fonts).size == size


@pytest.mark.parametrize("size", [(32, 32), (500, 375), (333, 500), (1200, 900), (8000, 400)])
def test_every_ordinary_caption_is_drawn(size: tuple[int, int], fonts: Fonts) -> None:
    top, bottom = letter(size, ["One does", "not simply"], fonts)
    assert top.ink[3] < size[1] / 2 < bottom.ink[1]
    assert changed(size, ["One does", "not simply"], fonts).any()


def test_the_picture_itself_is_not_touched(fonts: Fonts) -> None:
    picture = canvas((200, 100))
    draw(picture, ["text"], fonts)
    assert picture.getcolors() == [(20_000, GREY)]


def test_one_box_is_at_the_bottom_and_an_empty_one_keeps_its_place(fonts: Fonts) -> None:
    size = (400, 400)
    (only,) = letter(size, ["text"], fonts)
    (top,) = letter(size, ["text", ""], fonts)
    (bottom,) = letter(size, [" ", "text"], fonts)
    assert only.ink == bottom.ink
    assert only.ink[1] > 200 > top.ink[3]


@pytest.mark.parametrize("busy", ["top", "bottom"])
def test_one_box_keeps_off_the_busy_side(busy: str, fonts: Fonts) -> None:
    picture = canvas((400, 400))
    noise = Image.effect_noise((400, 200), 90).convert("RGB")
    picture.paste(noise, (0, 0 if busy == "top" else 200))
    (box,) = letter(picture.size, ["some text"], fonts, busyness(picture))
    assert (box.ink[1] > 200) == (busy == "top")


def test_text_shrinks_before_it_covers_the_subject_but_stays_readable(fonts: Fonts) -> None:
    words = "the dog has eaten all of the homework and is not even sorry"
    picture = canvas((600, 600))
    picture.paste(Image.effect_noise((600, 430), 90).convert("RGB"), (0, 85))
    (large,) = letter(picture.size, [words], fonts)
    (small,) = letter(picture.size, [words], fonts, busyness(picture))
    assert 600 / 22 - 1 <= small.size < large.size


@pytest.mark.parametrize(("face", "free"), [((0.3, 0.0, 0.7, 0.4), "bottom"), ((0.3, 0.6, 0.7, 1.0), "top")])
def test_no_text_hides_a_face_while_there_is_room_elsewhere(face: Face, free: str, fonts: Fonts) -> None:
    picture = canvas((400, 400))
    for boxes in (["some text"], ["some text", "and more of it"]):
        (placed,) = laid_out(picture, boxes, fonts, faces=lambda: [face])
        assert placed.ink[1] > 0.4 * 400 if free == "bottom" else placed.ink[3] < 0.6 * 400


def test_what_is_joined_keeps_its_order_and_a_gap(fonts: Fonts) -> None:
    (joined,) = laid_out(canvas((400, 400)), ["aaa", "bbb"], fonts, faces=lambda: [(0.3, 0.0, 0.7, 0.4)])
    (lines,) = letter((400, 400), ["aaa\nbbb"], fonts)
    (first, above), (second, below) = sorted((at[1], image.height) for image, at in joined.outlines)
    (tight, height), (next_, _) = sorted((at[1], image.height) for image, at in lines.outlines)
    assert (second - first - above) / joined.size > (next_ - tight - height) / lines.size + 0.2
    assert below == pytest.approx(above, abs=2)


def test_own_words_stay_at_top_and_bottom_and_far_faces_move_nothing(fonts: Fonts) -> None:
    picture, boxes = canvas((400, 400)), ["some text", "and more of it"]
    apart = [lettering.ink for lettering in laid_out(picture, boxes, fonts)]
    high, small = (0.3, 0.0, 0.7, 0.4), (0.45, 0.45, 0.55, 0.55)
    assert len(laid_out(picture, boxes, fonts, faces=lambda: [high], joining=False)) == 2
    assert [lettering.ink for lettering in laid_out(picture, boxes, fonts, faces=lambda: [small])] == apart


face_boxes = st.tuples(*[st.floats(0, 0.7)] * 2, *[st.floats(0.05, 0.3)] * 2).map(
    lambda at: (at[0], at[1], at[0] + at[2], at[1] + at[3])
)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(32, 700), st.integers(32, 700)),
    boxes=st.lists(texts.filter(str.strip), min_size=2, max_size=2),
    faces=st.lists(face_boxes, max_size=5),
)
def test_joining_hides_no_more_of_the_faces_and_no_ink_leaves_the_picture(
    size: tuple[int, int], boxes: list[str], faces: list[Face], fonts: Fonts
) -> None:
    picture = canvas(size)
    busy = busyness(picture, faces)

    def hidden(joining: bool) -> float:
        placed = laid_out(picture, boxes, fonts, faces=lambda: faces, joining=joining)
        inks = [lettering.ink for lettering in placed]
        assert all(1 <= x0 < x1 < size[0] and 1 <= y0 < y1 < size[1] for x0, y0, x1, y1 in inks)
        return sum(busy.faces_under(*(v / side for v, side in zip(ink, size * 2, strict=True))) for ink in inks)

    assert hidden(joining=True) <= hidden(joining=False)


@pytest.mark.parametrize(("name", "boxes"), [("drake-hotline-bling", 2), ("two-buttons", 3), ("expanding-brain", 4)])
def test_text_stays_in_the_boxes_of_a_layout(name: str, boxes: int, fonts: Fonts) -> None:
    layout, size = shipped()[name][boxes], (600, 700)
    placed = arranged(size, ["some words"] * boxes, fonts, layout)
    assert placed is not None
    for lettering, box in zip(placed, layout, strict=True):
        left, top, right, bottom = lettering.ink
        assert box.at[0] * 600 <= left < right <= box.at[2] * 600 + 1
        assert box.at[1] * 700 <= top < bottom <= box.at[3] * 700 + 1
        assert lettering.colour == box.ink
    changes = np.asarray(draw(canvas(size), ["some words"] * boxes, fonts, layout)) != GREY
    assert changes.any()


@settings(max_examples=40, deadline=None)
@given(size=sizes, boxes=st.lists(texts, min_size=2, max_size=2))
def test_no_ink_leaves_the_boxes_of_a_layout(size: tuple[int, int], boxes: list[str], fonts: Fonts) -> None:
    layout = (Box((0.5, 0, 1, 0.5), "dark"), Box((0, 0.5, 0.5, 1)))
    for lettering in arranged(size, boxes, fonts, layout) or []:
        left, top, right, bottom = lettering.ink
        assert 1 <= left < right <= size[0] - 1
        assert 1 <= top < bottom <= size[1] - 1
        assert (left >= size[0] // 2) == (lettering.colour == "dark")


def test_where_a_layout_does_not_fit_the_text_goes_to_top_and_bottom(fonts: Fonts) -> None:
    layout = (Box((0.5, 0, 1, 0.1)), Box((0.5, 0.5, 1, 0.6)))
    size = (300, 300)
    usual = draw(canvas(size), ["one", "two", "three"], fonts).tobytes()
    assert draw(canvas(size), ["one", "two", "three"], fonts, layout).tobytes() == usual
    long = ["word " * 30, "two"]
    assert arranged(size, long, fonts, layout) is None
    assert draw(canvas(size), long, fonts, layout).tobytes() == draw(canvas(size), long, fonts).tobytes()


def test_dark_ink_is_black_with_a_white_outline(fonts: Fonts) -> None:
    layout = (Box((0, 0, 1, 1), "dark"),)
    dark = np.asarray(draw(canvas((300, 300)), ["HI"], fonts, layout)).reshape(-1, 3)
    light = np.asarray(draw(canvas((300, 300)), ["HI"], fonts, (Box((0, 0, 1, 1)),))).reshape(-1, 3)
    assert (255 - dark[(dark != GREY).any(1)]).tolist() != light.tolist()
    assert (dark == 0).all(1).sum() == (light == 255).all(1).sum()


def test_many_boxes_run_from_top_to_bottom(fonts: Fonts) -> None:
    placed = letter((600, 600), ["one", "two", "three", "four"], fonts)
    centres = [(lettering.ink[1] + lettering.ink[3]) / 2 for lettering in placed]
    assert len(placed) == 4
    assert centres == sorted(centres)
    assert centres[0] < 100
    assert centres[-1] > 500


def test_short_text_leaves_the_centre_free(fonts: Fonts) -> None:
    assert not changed((600, 600), ["when you finally", "fix the bug at work"], fonts)[200:400].any()


def test_text_is_readable_on_a_phone(fonts: Fonts) -> None:
    caption = "this is a caption of a rather ordinary length, as the model writes them"
    assert all(lettering.size >= 900 / 22 for lettering in letter((1200, 900), [caption, caption], fonts))


def test_letters_are_white_with_a_black_outline_that_grows_with_the_picture(fonts: Fonts) -> None:
    small, large = letter((300, 300), ["HI"], fonts), letter((1500, 1500), ["HI"], fonts)
    pixels = np.asarray(draw(canvas((300, 300)), ["HI"], fonts)).reshape(-1, 3)
    assert {(0, 0, 0), (255, 255, 255)} <= set(map(tuple, pixels.tolist()))
    assert large[0].size == pytest.approx(5 * small[0].size, rel=0.05)


def test_what_does_not_fit_ends_in_an_ellipsis(fonts: Fonts) -> None:
    (lettering,) = letter((200, 40), ["word " * 200], fonts)
    (shorter,) = letter((200, 40), ["word " * 300], fonts)
    assert lettering.size == shorter.size == 6
    assert lettering.ink == shorter.ink
    (enough,) = letter((2000, 1500), ["word " * 200], fonts)
    (too_much,) = letter((2000, 1500), ["word " * 300], fonts)
    assert enough.ink == too_much.ink


def test_lines_are_balanced(fonts: Fonts) -> None:
    (lettering,) = letter((500, 500), ["when you finally understand what the error message says"], fonts)
    widths = [mask.width for mask, _ in lettering.outlines]
    assert len(widths) > 1
    assert min(widths) > 0.6 * max(widths)


def test_newlines_force_lines(fonts: Fonts) -> None:
    (lettering,) = letter((800, 800), ["one\ntwo\r\n\n three"], fonts)
    assert len(lettering.outlines) == 3


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("Straße", ["STRASSE"]),
        ("é e\u0301", ["É", "É"]),
        ("a\x00b\x1b c\u200bd\u202e", ["AB", "CD"]),
        ("a\tb\u00a0c", ["A", "B", "C"]),
        ("x\ud800y", ["XY"]),
        ("well-known", ["WELL-", "KNOWN"]),
        ("", []),
        ("\u0301\u200d\ufe0f", []),
        ("όταν", ["ΟΤΑΝ"]),
        ("ошибка", ["ОШИБКА"]),
    ],
)
def test_text_is_cleaned_and_upper_cased(written: str, seen: list[str], fonts: Fonts) -> None:
    assert words(written, fonts) == seen


def test_text_without_ink_draws_nothing(fonts: Fonts) -> None:
    for text in ("", "  \n ", "\u200b", "\u3164", "\u2800 \u2800", "\U0010fffd"):
        assert not letter((200, 200), [text, text], fonts)


def test_marks_do_not_pile_up(fonts: Fonts) -> None:
    assert len(words("e" + "\u0301\u0316" * 50, fonts)[0]) <= 5


def test_characters_without_a_font_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts_module, "_installed", dict)
    assert words("ab\U00013000 \U00012000 cd", Fonts.resolve()) == ["AB", "CD"]


@pytest.mark.parametrize("emoji", [FAMILY, FLAG, THUMB, KEYCAP, "\u2764\ufe0f", "\U0001f602"])
def test_emoji_stay_whole_and_keep_their_colours(emoji: str, fonts: Fonts) -> None:
    if fonts.emoji is None:
        pytest.skip("no colour emoji font is installed")
    ((cluster,),) = [word.clusters for line in paragraphs(emoji, fonts) for word in line]
    assert cluster.text == emoji
    assert cluster.face is fonts.emoji
    (lettering,) = letter((300, 300), [emoji], fonts)
    assert len(lettering.emoji) == 1
    assert not lettering.letters


def test_right_to_left_text_runs_from_the_right(fonts: Fonts) -> None:
    def order(text: str) -> list[tuple[str, bool]]:
        clusters = [cluster for line in paragraphs(text, fonts) for word in line for cluster in word.clusters]
        return [(run.text, run.rtl) for run in runs(clusters)]

    assert order("אבג") == [("אבג", True)]
    assert [text for text, _ in order("אב12")] == ["12", "אב"]
    assert [text for text, _ in order("abאב")] == ["AB", "אב"]


def test_cjk_breaks_without_spaces_but_not_before_a_full_stop(fonts: Fonts) -> None:
    if fonts.face_for("漢") is None:
        pytest.skip("no CJK font is installed")
    assert words("漢字です。「はい」", fonts) == ["漢", "字", "で", "す。", "「は", "い」"]


def test_a_word_keeps_to_one_font(fonts: Fonts) -> None:
    for word in (word for line in paragraphs("Łódź naïve ệthan Привет", fonts) for word in line):
        assert len({id(cluster.face) for cluster in word.clusters}) == 1


def test_without_raqm_arabic_is_still_shaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts_module, "SHAPES", False)
    fonts = Fonts.resolve()
    assert changed((300, 200), ["عندما 12 abc", f"hello {FAMILY}"], fonts).any()
    assert fonts_module.Face._shaped("بب", True)[0] == "\ufe90\ufe91"


def test_a_configured_font_comes_first() -> None:
    assert Fonts.resolve(font_roboto.RobotoBlack).primary.covers("A")
    with pytest.raises(FontError, match="does not exist"):
        Fonts.resolve("/nowhere/impact.ttf")


def test_a_configured_file_that_is_no_font_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "font.ttf"
    path.write_text("no font")
    with pytest.raises(FontError, match="no font that can be read"):
        Fonts.resolve(str(path))


def test_without_system_fonts_the_packaged_one_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts_module, "_installed", dict)
    fonts = Fonts.resolve()
    assert "Roboto" in repr(fonts.primary)
    assert changed((300, 200), ["Hello", "漢 \U0001f602 ok"], fonts).any()


def test_threads_draw_what_one_thread_draws(fonts: Fonts) -> None:
    rng = random.Random(0)
    jobs = [
        ((rng.randint(100, 500), rng.randint(100, 500)), ["top " * rng.randint(1, 9), f"été 漢字 {number} \U0001f602"])
        for number in range(40)
    ]
    alone = [draw(canvas(size), boxes, fonts).tobytes() for size, boxes in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: draw(canvas(job[0]), job[1], fonts).tobytes(), jobs))
    assert together == alone
