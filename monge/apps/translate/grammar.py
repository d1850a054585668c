"""The formulas that the syntax axioms of a Metamath database produce. Megill & Wheeler, Metamath, 2nd ed., sec. 4.2."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from monge.apps.translate.metamath import AND, IMPLIES, database

_STATEMENT = re.compile(r"\$([fa])\s([^$]*)\$\.")
_COMMENT = re.compile(r"\$\(.*?\$\)", re.DOTALL)
PROVABLE = "|-"


class Item(NamedTuple):
    """A partly recognised production (Earley 1970)."""

    kind: str
    """The type that the production has."""
    symbols: tuple[str, ...]
    dot: int
    """Number of symbols recognised so far."""
    start: int
    """Position of the first token."""


@dataclass
class Grammar:
    """Productions of each type, such as wff and class."""

    kinds: dict[str, str] = field(default_factory=dict)
    """Type of each variable."""
    productions: dict[str, dict[str, list[tuple[str, ...]]]] = field(default_factory=dict)
    """By type and first symbol; a variable stands for anything of its type, and is written as that type."""

    @staticmethod
    def of(path: Path) -> "Grammar":
        """The grammar of a database. ValueError if it cannot be read or has no syntax axioms."""
        grammar = Grammar()
        productions: dict[str, dict[str, list[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(list))
        for letter, body in _STATEMENT.findall(_COMMENT.sub(" ", database(path, option="--grammar"))):
            kind, *symbols = body.split() or [""]
            if letter == "f" and len(symbols) != 1:
                raise ValueError(f"{path}: the variable declaration {body.strip()!r} is not a type and a variable")
            if letter == "f":
                grammar.kinds[symbols[0]] = kind
            elif letter == "a" and kind != PROVABLE and symbols:
                production = tuple(
                    f"${grammar.kinds[symbol]}" if symbol in grammar.kinds else symbol for symbol in symbols
                )
                productions[kind][production[0]].append(production)
        grammar.productions = productions
        if "wff" not in productions:
            raise ValueError(f"{path}: no syntax axiom of type wff, as in set.mm; choose another database")
        return grammar

    def well_formed(self, statement: str) -> bool:
        """True if the statement, hypotheses joined by "&" and then "=>" and the assertion, consists of wffs."""
        *hypotheses, assertion = statement.split(f" {IMPLIES} ")
        if len(hypotheses) > 1:
            return False
        parts = [part for joined in hypotheses for part in joined.split(f" {AND} ")]
        return all(self.derives("wff", part.split()) for part in [*parts, assertion])

    def derives(self, kind: str, tokens: Sequence[str]) -> bool:
        """True if the tokens form an expression of this type. Earley 1970."""
        waiting: list[dict[str, list[Item]]] = [defaultdict(list) for _ in range(len(tokens) + 1)]
        """For each position, the items whose next symbol is a type."""
        items = list(self._predicted(kind, 0, tokens))
        for position in range(len(tokens) + 1):
            queue, seen, following = items, set(items), list[Item]()
            complete: set[str] = set()
            while queue:
                item = queue.pop()
                if item.dot == len(item.symbols):
                    if item.start == 0:
                        complete.add(item.kind)
                    new = [Item(*one[:2], one.dot + 1, one.start) for one in waiting[item.start][item.kind]]
                elif (symbol := item.symbols[item.dot]).startswith("$"):
                    first = symbol[1:] not in waiting[position]
                    waiting[position][symbol[1:]].append(item)
                    new = list(self._predicted(symbol[1:], position, tokens)) if first else []
                else:
                    if position < len(tokens) and symbol == tokens[position]:
                        following.append(Item(*item[:2], item.dot + 1, item.start))
                    new = []
                queue += [one for one in new if one not in seen]
                seen |= set(new)
            if position == len(tokens):
                return bool(tokens) and kind in complete
            items = following
        return False

    def _predicted(self, kind: str, position: int, tokens: Sequence[str]) -> Iterator[Item]:
        """Yields the items for expressions of this type that can start with the token at `position`."""
        if position < len(tokens):
            token = tokens[position]
            if self.kinds.get(token) == kind:
                yield Item(kind, (token,), 0, position)
            for first, productions in self.productions.get(kind, {}).items():
                if first == token or first.startswith("$"):
                    for production in productions:
                        yield Item(kind, production, 0, position)
