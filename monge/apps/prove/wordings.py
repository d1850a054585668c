"""English wordings of Lean's constants, and forms of words."""

import re
from collections.abc import Sequence

NOUNS = {
    "Nat": ("natural number", "natural numbers"),
    "Int": ("integer", "integers"),
    "Bool": ("Boolean", "Booleans"),
    "String": ("string", "strings"),
    "Char": ("character", "characters"),
    "Prop": ("proposition", "propositions"),
    "Type": ("type", "types"),
    "Rat": ("rational number", "rational numbers"),
}
NOUNS |= {
    f"{kind}{bits}": (f"{noun} of {bits} bits", f"{noun}s of {bits} bits")
    for kind, noun in (("UInt", "unsigned integer"), ("Int", "signed integer"))
    for bits in (8, 16, 32, 64)
}
"""Singular and plural of types without arguments."""
CONTAINERS = {
    "List": ("list of {0}", "lists of {0}"),
    "Array": ("array of {0}", "arrays of {0}"),
    "Option": ("optional value of type {1}", "optional values of type {1}"),
    "Vector": ("vector of {0}", "vectors of {0}"),
    "Set": ("set of {0}", "sets of {0}"),
}
"""Singular and plural of types with an argument: {0} is its plural, {1} the argument as a term."""
RELATIONS = {
    "Eq": ("{} equals {}", "{} is equal to {}", "{} is the same as {}"),
    "HEq": ("{} equals {} up to their types",),
    "Ne": ("{} differs from {}", "{} is not equal to {}"),
    "LE.le": ("{} is at most {}", "{} is less than or equal to {}"),
    "LT.lt": ("{} is less than {}", "{} is below {}"),
    "GE.ge": ("{} is at least {}", "{} is greater than or equal to {}"),
    "GT.gt": ("{} is greater than {}", "{} is above {}"),
    "Dvd.dvd": ("{} divides {}", "{1} is divisible by {0}"),
    "Membership.mem": ("{1} is in {0}", "{1} is a member of {0}", "{0} contains {1}"),
    "HasSubset.Subset": ("{} is a subset of {}", "{1} includes {0}"),
    "BEq.beq": ("{} equals {} as a Boolean",),
    "List.Sublist": ("{} is a sublist of {}",),
    "List.IsPrefix": ("{} is a prefix of {}", "{1} starts with {0}"),
    "List.IsSuffix": ("{} is a suffix of {}", "{1} ends with {0}"),
    "List.IsInfix": ("{} is an infix of {}",),
    "List.Perm": ("{} is a permutation of {}",),
    "Nonempty": ("{} is not empty",),
    "Function.Injective": ("{} is injective",),
    "Function.Surjective": ("{} is surjective",),
}
"""Wordings of predicates by constant, with their explicit arguments."""
TERMS = {
    "HAdd.hAdd": ("the sum of {} and {}",),
    "HSub.hSub": ("the difference of {} and {}",),
    "HMul.hMul": ("the product of {} and {}",),
    "HDiv.hDiv": ("the quotient of {} and {}",),
    "HMod.hMod": ("the remainder of {} by {}",),
    "HPow.hPow": ("the power of {} with exponent {}",),
    "HAppend.hAppend": ("the concatenation of {} and {}",),
    "HAnd.hAnd": ("the bitwise and of {} and {}",),
    "HOr.hOr": ("the bitwise or of {} and {}",),
    "HXor.hXor": ("the exclusive or of {} and {}",),
    "HShiftLeft.hShiftLeft": ("the left shift of {} by {}",),
    "HShiftRight.hShiftRight": ("the right shift of {} by {}",),
    "Neg.neg": ("the negative of {}", "the opposite of {}"),
    "Complement.complement": ("the complement of {}",),
    "Max.max": ("the maximum of {} and {}", "the larger of {} and {}"),
    "Min.min": ("the minimum of {} and {}", "the smaller of {} and {}"),
    "Nat.succ": ("the successor of {}",),
    "Nat.gcd": ("the greatest common divisor of {} and {}", "the gcd of {} and {}"),
    "Nat.lcm": ("the least common multiple of {} and {}", "the lcm of {} and {}"),
    "List.nil": ("the empty list",),
    "List.cons": ("{} prepended to {}", "the list that starts with {} and continues with {}"),
    "List.length": ("the length of {}", "the number of elements of {}"),
    "Array.size": ("the size of {}", "the number of elements of {}"),
    "List.reverse": ("the reverse of {}", "{} in reverse order"),
    "List.map": ("the list of the values of {} on {}", "{1} mapped by {0}"),
    "List.filter": ("the elements of {1} that satisfy {0}", "{1} filtered by {0}"),
    "List.take": ("the first {} elements of {}",),
    "List.drop": ("{1} without its first {0} elements",),
    "GetElem.getElem": ("the element of {} at index {}", "the entry of {} at {}"),
    "GetElem?.getElem?": ("the optional element of {} at index {}",),
    "Option.some": ("some {}",),
    "Option.none": ("none",),
    "Prod.mk": ("the pair of {} and {}",),
    "Prod.fst": ("the first component of {}",),
    "Prod.snd": ("the second component of {}",),
    "Bool.true": ("true",),
    "Bool.false": ("false",),
    "Bool.not": ("the negation of {}",),
    "Bool.and": ("the conjunction of {} and {}",),
    "Bool.or": ("the disjunction of {} and {}",),
    "Nat.cast": ("{} as a number",),
    "IntCast.intCast": ("{} as a number",),
    "NatCast.natCast": ("{} as a number",),
    "EmptyCollection.emptyCollection": ("the empty collection",),
    "Function.comp": ("the composition of {} and {}",),
    "Decidable.decide": ("the truth value of {}",),
    "BEq.beq": ("the truth value of the equality of {} and {}",),
    "True": ("a true statement",),
    "False": ("a false statement",),
}
"""Wordings of terms by constant, with their explicit arguments."""
INFIX = {"HAdd.hAdd": "plus", "HSub.hSub": "minus", "HMul.hMul": "times", "HMod.hMod": "modulo"}
INFIX |= {"HAppend.hAppend": "followed by"}
"""Further wordings of operators, between arguments that are single words."""
CLASSES = {"DecidableEq": "decidable equality", "BEq": "a Boolean equality", "LawfulBEq": "a lawful Boolean equality"}
"""Nouns of type classes; others are named by the words of their names."""
PROPOSITIONS = {"And", "Or", "Not", "Iff", "Exists", *RELATIONS} - {"BEq.beq"}
"""Constants whose terms are propositions."""


def words_of(name: str) -> str:
    """The words of a constant's last component.

    >>> words_of("List.findIdx?"), words_of("Std.HashMap.getKeyD"), words_of("Nat.le_of_lt"), words_of("UInt8.toUInt16")
    ('optional find idx', 'get key D', 'le of lt', 'to uint16')
    """
    last = name.rsplit(".", 1)[-1]
    kind = {"?": "optional ", "!": "panicking "}.get(last[-1:], "")
    last = re.sub(r"(UI|IS|US|BE)(?=[a-z])", lambda found: found[0].capitalize(), re.sub(r"[^\w]+", "", last)) or name
    parts = re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])|[^\W_a-zA-Z0-9]+", last.replace("_", " "))
    return kind + (" ".join(part if len(part) == 1 or part.isupper() else part.lower() for part in parts) or last)


def listed(parts: Sequence[str]) -> str:
    """The parts with commas, and "and" before the last one.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def with_article(noun: str) -> str:
    """The noun with the indefinite article.

    >>> with_article("integer"), with_article("list"), with_article("unsigned integer")
    ('an integer', 'a list', 'an unsigned integer')
    """
    vowel = (
        noun[0].lower() in "aeio" or noun.startswith("upp") or (noun.startswith("un") and not noun.startswith("uni"))
    )
    return f"an {noun}" if vowel else f"a {noun}"


def plural(noun: str) -> str:
    """The plural of a noun.

    >>> plural("entry"), plural("class"), plural("key"), plural("hash map")
    ('entries', 'classes', 'keys', 'hash maps')
    """
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search(r"(?:s|x|ch|sh)$", noun) else "s")


def named(noun: str, names: str) -> str:
    """The noun with names after its first word or words, before what it is made of.

    >>> named("list of natural numbers", "xs"), named("integers", "a and b")
    ('list xs of natural numbers', 'integers a and b')
    """
    return re.sub(r"(?= (?:of|from|below) )|$", lambda _: f" {names}", noun, count=1)


def slots_of(wording: str) -> int:
    """The number of arguments that a wording has places for.

    >>> slots_of("{} equals {}"), slots_of("{1} is in {0}")
    (2, 2)
    """
    return len(set(re.findall(r"\{\d\}", wording))) or wording.count("{}")


def called(name: str) -> str:
    """A variable's name without the mark of an inaccessible one."""
    return name.rstrip("✝¹²³⁴⁵⁶⁷⁸⁹⁰") or "x"
