"""Detection of letters in a statement that look Latin but are not."""

import re
import unicodedata

ALWAYS = dict(
    zip(
        "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧοϲϳϹͿıɑɡаеорсухіјѕԁһԛԝАВЕКМНОРСТХЅІЈԌԚԜ",
        "ABEZHIKMNOPTYXocjCJiagaeopcyxijsdhqwABEKMHOPCTXSIJGQW",
        strict=True,
    )
)
"""Letters that most fonts draw like a Latin one, with that letter."""
MIXED = dict(zip("ινκρυχ", "ivkpux", strict=True))
"""Greek letters that are common on their own and misleading only next to Latin ones, with the Latin letter."""
WORD = re.compile(r"[^\W\d][\w'!?]*")
PLAIN = "ℂℕℙℚℝℤ"
"""Letters for sets of numbers, which are ordinary names by themselves."""


def look_alikes(text: str) -> tuple[str, ...]:
    """A line for each letter that looks Latin but is not: identifier, letter, code point, name, and the Latin letter."""
    lines: dict[str, None] = {}
    for word in WORD.findall(text):
        has_latin = any(c.isascii() and c.isalpha() for c in word)
        for c in word:
            if latin := _latin(c, mixed=has_latin and len(word) > 1):
                lines[f"{word}: {c} is U+{ord(c):04X} {unicodedata.name(c, '')}, not {latin}"] = None
    return tuple(lines)


def _latin(c: str, *, mixed: bool) -> str:
    """The Latin letter that `c` looks like, or an empty string; `mixed` if its word has Latin letters too."""
    if c.isascii() or unicodedata.category(c) not in ("Lu", "Ll", "Lo"):
        return ""
    if c in ALWAYS:
        return ALWAYS[c]
    if mixed and c in MIXED:
        return MIXED[c]
    folded = unicodedata.normalize("NFKC", c)  # full-width and mathematical letters
    return folded if folded.isascii() and folded.isalpha() and len(folded) == 1 and (mixed or c not in PLAIN) else ""
