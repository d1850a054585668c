"""Letters of a statement that look like Latin ones and are not."""

import re
import unicodedata

ALWAYS = dict(
    zip(
        "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧοϲϳϹͿıɑɡаеорсухіјѕԁһԛԝАВЕКМНОРСТХЅІЈԌԚԜ",
        "ABEZHIKMNOPTYXocjCJiagaeopcyxijsdhqwABEKMHOPCTXSIJGQW",
        strict=True,
    )
)
"""Letters that few fonts tell from the Latin one."""
MIXED = dict(zip("ινκρυχ", "ivkpux", strict=True))
"""Greek letters that stand alone in many statements and mislead only next to Latin ones."""
WORD = re.compile(r"[^\W\d][\w'!?]*")
PLAIN = "ℂℕℙℚℝℤ"
"""Letters for sets of numbers, which are names of their own."""


def look_alikes(text: str) -> tuple[str, ...]:
    """A line for each identifier with such a letter: the letter, its code point and name, and the Latin letter."""
    found: dict[str, None] = {}
    for word in WORD.findall(text):
        latin = any(c.isascii() and c.isalpha() for c in word)
        for c in word:
            if like := _like(c, latin and len(word) > 1):
                found[f"{word}: {c} is U+{ord(c):04X} {unicodedata.name(c, '')}, not {like}"] = None
    return tuple(found)


def _like(c: str, mixed: bool) -> str:
    """The Latin letter that a letter looks like; empty if it looks like none."""
    if c.isascii() or unicodedata.category(c) not in ("Lu", "Ll", "Lo"):
        return ""
    if c in ALWAYS:
        return ALWAYS[c]
    if mixed and c in MIXED:
        return MIXED[c]
    folded = unicodedata.normalize("NFKC", c)  # full-width and mathematical letters
    return folded if folded.isascii() and folded.isalpha() and len(folded) == 1 and (mixed or c not in PLAIN) else ""
