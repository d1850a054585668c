"""Text that a user's file, a model or Lean wrote, made safe to print on a terminal or to use as a file's name."""

import hashlib
import unicodedata

UNPRINTABLE = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
"""Unicode categories of control and format characters, lone surrogates, unassigned characters and line separators."""


def printable(text: str) -> str:
    """The text with control, format and direction characters and lone surrogates as escapes; newlines stay."""
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in UNPRINTABLE else c.encode("unicode_escape").decode()
        for c in text
    )


def one_line(text: str) -> str:
    """`printable` text with its lines joined by spaces."""
    return " ".join(printable(text).split())


def file_name(text: str, *, most: int = 120) -> str:
    """A name for a file: letters, digits, `.` and `_`, at most so many bytes; a longer one is cut and ends in a hash."""
    safe = "".join(c if c.isalnum() or c in "._" else "_" for c in text)
    if len(safe.encode()) <= most:
        return safe
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6).hexdigest()
    return safe.encode()[: most - len(digest) - 1].decode(errors="ignore") + "-" + digest
