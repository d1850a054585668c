"""Escaping of untrusted text (from user files, models or Lean) for terminals and file names."""

import hashlib
import unicodedata

UNPRINTABLE = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}
"""Unicode categories of control, format, unassigned and private-use characters, surrogates, and line separators."""


def printable(text: str) -> str:
    """The text with characters of the UNPRINTABLE categories escaped; newlines are preserved."""
    return "".join(
        c if c == "\n" or unicodedata.category(c) not in UNPRINTABLE else c.encode("unicode_escape").decode()
        for c in text
    )


def one_line(text: str) -> str:
    """`printable` text on one line: each run of spaces and newlines becomes a single space."""
    return " ".join(printable(text).split())


def file_name(text: str, *, max_bytes: int = 120) -> str:
    """A safe file name of letters, digits, `.` and `_`. Names that are empty, only dots or too long end in `-` and a hash."""
    safe = "".join(c if c.isalnum() or c in "._" else "_" for c in text)
    if safe.strip(".") and len(safe.encode()) <= max_bytes:
        return safe
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6).hexdigest()
    return safe.encode()[: max_bytes - len(digest) - 1].decode(errors="ignore") + "-" + digest
