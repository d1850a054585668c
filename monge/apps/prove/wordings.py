"""English wordings of Lean's constants."""

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
