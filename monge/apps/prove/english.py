"""Statements in controlled English: a tree of a Lean statement becomes sentences, with several wordings for each construct."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from monge.apps.prove.wordings import (
    CLASSES,
    CONTAINERS,
    INFIX,
    NOUNS,
    PROPOSITIONS,
    RELATIONS,
    TERMS,
    called,
    listed,
    named,
    plural,
    slots_of,
    with_article,
    words_of,
)

CONNECTIVES = ("And", "Or", "Not", "Iff", "Exists")
Tree = dict[str, Any]
"""An expression as Lean's server writes it (`lean/Monge/Tree.lean`)."""


def statement(tree: Tree, *, seed: str) -> str:
    """A statement as one or more sentences. The seed decides between wordings.

    >>> n = {"const": "Nat", "args": []}
    >>> equal = {"const": "Eq", "args": [{"var": "n"}, {"var": "n"}]}
    >>> tree = {"bind": "all", "name": "n", "kind": "explicit", "type": n, "prop": False, "used": True, "body": equal}
    >>> statement(tree, seed="1")
    'For any natural number n, n equals n.'
    """
    return Speaker(Random(seed)).statement(tree)


@dataclass
class Binders:
    """The quantifiers in front of a conclusion."""

    groups: list[tuple[Tree, list[str]]]
    """A type and the variables of this type, in order."""
    classes: list[Tree]
    hypotheses: list[Tree]
    conclusion: Tree

    @staticmethod
    def of(tree: Tree) -> "Binders":
        """The leading quantifiers and hypotheses of a statement."""
        result = Binders([], [], [], tree)
        while tree.get("bind") == "all":
            if tree["kind"] == "instance":
                result.classes.append(tree["type"])
            elif tree["prop"]:
                result.hypotheses.append(tree["type"])
            elif result.hypotheses:
                break
            elif result.groups and result.groups[-1][0] == tree["type"]:
                result.groups[-1][1].append(called(tree["name"]))
            else:
                result.groups.append((tree["type"], [called(tree["name"])]))
            tree = tree["body"]
        result.conclusion = tree
        return result


class Speaker:
    """Puts trees into words; each choice of a wording is a random draw."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def statement(self, tree: Tree) -> str:
        """One or more sentences."""
        parts = Binders.of(tree)
        if (parts.groups or parts.classes or parts.hypotheses) and self.random.random() < 0.4:
            sentences: list[str] = []
            if parts.groups:
                sentences.append("let " + self._listed(parts.groups, self._introduced))
            if parts.classes:
                sentences.append(f"assume {self._classes(parts)}")
            if parts.hypotheses:
                start = self.random.choice(["suppose that", "assume that"])
                sentences.append(f"{start} {self._clauses(parts.hypotheses)}")
            sentences.append(f"then {self.proposition(parts.conclusion)}")
            text = ". ".join(one[0].upper() + one[1:] for one in sentences)
        else:
            text = self.proposition(tree)
        return text[0].upper() + text[1:] + "."

    def proposition(self, tree: Tree) -> str:
        """A clause that states the proposition."""
        clause = self._clause(tree)
        return f"{self.term(tree)} holds" if clause is None else clause

    def _clause(self, tree: Tree) -> str | None:
        """The clause for a connective, a quantifier or a relation; None for other propositions."""
        if tree.get("bind") == "all":
            return self._quantified(Binders.of(tree))
        name, args = tree.get("const"), tree.get("args", [])
        if name == "Exists" and len(args) == 1 and args[0].get("bind") == "function":
            if args[0]["prop"]:
                return f"{self._scoped(args[0]['type'])} and {self._scoped(args[0]['body'])}"
            noun = named(self.noun(args[0]["type"])[0], called(args[0]["name"]))
            body = self._scoped(args[0]["body"])
            return self.random.choice([f"there is {with_article(noun)} such that {body}", f"for some {noun}, {body}"])
        if name in ("And", "Or", "Iff") and len(args) == 2:
            first, second = map(self._scoped, args)
            words = {"And": ["and"], "Or": ["or"], "Iff": ["if and only if", "exactly when"]}[name]
            return f"{first} {self.random.choice(words)} {second}"
        if name == "Not" and len(args) == 1:
            return f"it is not the case that {self._scoped(args[0])}"
        if name in ("True", "False"):
            return "a true statement holds" if name == "True" else "a false statement holds"
        if name == "Eq" and len(args) == 2 and args[1].get("const") == "Bool.true" and "const" in args[0]:
            return self._asserted(args[0])
        if name in RELATIONS and len(args) >= slots_of(RELATIONS[name][0]):
            return self._filled(RELATIONS[name], args)
        return None

    def _scoped(self, tree: Tree) -> str:
        """The clause of a part, in parentheses if it consists of clauses itself."""
        text, args = self.proposition(tree), tree.get("args", [])
        if (
            tree.get("const") == "Eq"
            and args[0].get("const") == "Decidable.decide"
            and args[1].get("const") == "Bool.true"
        ):
            tree = args[0]["args"][0]  # said as a proposition
        return f"({text})" if "bind" in tree or tree.get("const") in CONNECTIVES else text

    def term(self, tree: Tree) -> str:
        """A noun phrase for a term; a proposition becomes a clause."""
        name, args = tree.get("const"), tree.get("args", [])
        if "var" in tree:
            return called(tree["var"])
        if "number" in tree:
            return tree["number"]
        if "string" in tree:
            return f'"{tree["string"]}"'
        if tree.get("bind") == "function":
            return f"the function that maps {called(tree['name'])} to {self.term(tree['body'])}"
        if tree.get("bind") == "all":
            clause = tree["prop"] or tree["used"]
            return f"the claim that ({self.proposition(tree)})" if clause else self.noun(tree)[0]
        if "apply" in tree:
            return self._of(self.term(tree["apply"]), args)
        if name in PROPOSITIONS and (clause := self._clause(tree)) is not None:
            return f"the claim that ({clause})" if name in CONNECTIVES else f"the claim that {clause}"
        if name == "ite" and len(args) == 3:
            condition, first, second = self.proposition(args[0]), self.term(args[1]), self.term(args[2])
            return f"({first} if {condition}, and {second} otherwise)"
        if name in INFIX and len(args) == 2 and all(map(self._atomic, args)) and self.random.random() < 0.5:
            return f"{self.term(args[0])} {INFIX[name]} {self.term(args[1])}"
        if name in TERMS and len(args) >= slots_of(TERMS[name][0]):
            return self._filled(TERMS[name], args)
        if name in NOUNS or name in CONTAINERS:
            return self.noun(tree)[0]
        words = words_of(name or "it")
        return self._of(f"the {words}", args) if args else words

    def noun(self, tree: Tree) -> tuple[str, str]:
        """Singular and plural of a type."""
        name, args = tree.get("const"), tree.get("args", [])
        if name in NOUNS and not args:
            return NOUNS[name]
        if name in CONTAINERS and args:
            parts = self.noun(args[0])[1], self.term(args[0])
            more = f" of length {self.term(args[1])}" if len(args) > 1 else ""
            return CONTAINERS[name][0].format(*parts) + more, CONTAINERS[name][1].format(*parts) + more
        if tree.get("bind") == "all":
            source, target = self.noun(tree["type"])[1], self.noun(tree["body"])[1]
            if tree["body"].get("const") == "Prop":
                return f"property of {source}", f"properties of {source}"
            return f"function from {source} to {target}", f"functions from {source} to {target}"
        if name in ("Fin", "BitVec") and len(args) == 1:
            forms = {"Fin": "number{} below {}", "BitVec": "bit vector{} of width {}"}[name]
            return forms.format("", self.term(args[0])), forms.format("s", self.term(args[0]))
        if name == "Prod" and len(args) == 2:
            parts = " and ".join(with_article(self.noun(one)[0]) for one in args)
            return f"pair of {parts}", f"pairs of {parts}"
        if "var" in tree or "apply" in tree:
            return f"element of {self.term(tree)}", f"elements of {self.term(tree)}"
        words = words_of(name or "object")
        return self._of(words, args), self._of(plural(words), args)

    def _quantified(self, parts: Binders) -> str:
        text = self.proposition(parts.conclusion)
        if parts.hypotheses:
            text = f"if {self._clauses(parts.hypotheses)}, then {text}"
        if parts.groups or parts.classes:
            groups = f"for {self._listed(parts.groups, self._counted)}" if parts.groups else ""
            classes = f"{'with' if groups else 'given'} {self._classes(parts)}" if parts.classes else ""
            text = f"{' '.join(filter(None, (groups, classes)))}, {text}"
        return text

    def _classes(self, parts: Binders) -> str:
        phrases: list[str] = []
        for one in parts.classes:
            name, args = one.get("const", "it"), one.get("args", [])
            last = name.rsplit(".", 1)[-1]
            objects = [
                self.noun(arg)[1] if arg.get("const") in {*NOUNS, *CONTAINERS} else self.term(arg) for arg in args
            ]
            phrases.append(f"{CLASSES.get(name, f'an instance of {last}')} for {listed(objects or ['it'])}")
        return listed(phrases)

    def _clauses(self, trees: Sequence[Tree]) -> str:
        return self.proposition(trees[0]) if len(trees) == 1 else listed([self._scoped(one) for one in trees])

    @staticmethod
    def _listed(groups: Sequence[tuple[Tree, list[str]]], function: Callable[[Tree, list[str]], str]) -> str:
        return listed([function(*group) for group in groups])

    def _counted(self, kind: Tree, names: list[str]) -> str:
        singular, several = self.noun(kind)
        if len(names) == 1:
            return f"{self.random.choice(['every', 'each', 'any'])} {named(singular, names[0])}"
        return f"all {named(several, listed(names))}"

    def _introduced(self, kind: Tree, names: list[str]) -> str:
        singular, several = self.noun(kind)
        return f"{names[0]} be {with_article(singular)}" if len(names) == 1 else f"{listed(names)} be {several}"

    def _asserted(self, tree: Tree) -> str:
        """A Boolean term that is true."""
        if tree["const"] == "BEq.beq":
            return self._filled(RELATIONS["BEq.beq"], tree["args"])
        if tree["const"] == "Decidable.decide" and len(tree["args"]) == 1:
            return self.proposition(tree["args"][0])
        return f"{self.term(tree)} is true"

    def _filled(self, wordings: Sequence[str], args: Sequence[Tree]) -> str:
        """One of the wordings with the terms in its places. It is applied to the arguments that are left."""
        chosen = self.random.choice(wordings)
        slots, given = slots_of(chosen), [self.term(one) for one in args]
        text = chosen.format(*given[:slots])
        return f"{text} applied to {listed(given[slots:])}" if len(given) > slots else text

    def _of(self, head: str, args: Sequence[Tree]) -> str:
        return f"{head} of {listed([self.term(one) for one in args])}" if args else head

    @staticmethod
    def _atomic(tree: Tree) -> bool:
        return "var" in tree or "number" in tree
