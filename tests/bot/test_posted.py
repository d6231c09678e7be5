from bot.events import MemeRecord
from bot.posted import PostedWords


def meme(name: str, created: float) -> MemeRecord:
    return MemeRecord(name, "p", "c", "u", created, "", (), "", "meme", 0, "m", (), None, False, "image/jpeg", {})


def test_of_words_the_last_ones_are_known_for_a_day() -> None:
    words = PostedWords(most=3)
    records = [meme(f"m{i}", created=float(i)) for i in range(5)]
    for record in records:
        words.keep(record, f"words of {record.id}")
    assert [words.of(record.id, 10.0) for record in records] == ["", "", *(f"words of m{i}" for i in (2, 3, 4))]
    words.hand_on("m4", meme("late", created=86_403.0))
    assert words.of("late", 86_403.0) == "words of m4"
    assert words.of("late", 86_405.0) == words.of("m4", 86_405.0) == ""
    words.hand_on("m4", meme("later", created=86_500.0))
    assert words.of("later", 86_500.0) == ""
