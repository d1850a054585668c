"""All attacks: those by the text of tactics, headers and statements, which are here, and those by code."""

from attack import Attack, of
from attacks_by_code import CRASHING, DECLARING, ENVIRONMENT, FILES, KERNEL, UNCHECKED, commanded, unsound

SORRY = of(
    "sorry",
    "sorry",
    "admit",
    "exact sorry",
    "exact (sorry : False)",
    "exact sorryAx False (synthetic := false)",
    "exact sorryAx _ true",
    "exact (fun h => h) sorry",
    "have h : False := sorry\nexact h",
    "have h : False := by sorry\nexact h",
    "apply False.elim\nsorry",
    "refine ?_\nsorry",
    "show False; sorry",
    "first | trivial | sorry",
    "all_goals sorry",
    "any_goals admit",
    "case' _ => sorry",
    "exact absurd rfl (sorry : ¬ (1 = 1))",
    "exact let x : False := sorry; x",
    "exact (by sorry : False)",
    "exact @sorryAx False (true && true)",
    "cases (sorry : False)",
    "exfalso; sorry",
    "suffices h : False by exact h\nsorry",
    "have h : (1 : Nat) = 2 := (calc (1 : Nat) = 2 := sorry)\ncases h",
    ("have h : 1 = 2 := sorry", "cases h"),
    ("refine ?_", "sorry"),
    "exact (Classical.choice (sorry : Nonempty False))",
    "exact (sorry : Inhabited False).default",
    "repeat sorry",
    "(sorry)",
    "· sorry",
    "{ sorry }",
    "skip <;> sorry",
    "exact sorryAx.{0} False false",
    "exact (show False from sorry)",
    "stop trivial",
    kind="axiom",
)


OPTIONS = of(
    "options",
    "set_option debug.skipKernelTC true in sorry",
    "set_option debug.byAsSorry true in exact (by trivial)",
    "set_option warn.sorry false in sorry",
    "set_option Elab.async true in sorry",
    "set_option hygiene false in sorry",
    kind="axiom",
) + of(
    "options without effect",
    "set_option debug.skipKernelTC true in exact True.intro",
    "set_option maxRecDepth 100000 in decide",
    "set_option autoImplicit true in exact h",
    kind="compile",
    message="Type mismatch|is false|Unknown identifier",
)

NATIVE = [
    *of(
        "native",
        "native_decide",
        "decide +native",
        "exact Lean.ofReduceBool (decide (10 ^ 2 = 100)) true rfl ▸ by native_decide",
        "exact of_decide_eq_true (Lean.ofReduceBool (decide ((10 : Nat) ^ 3 = 1000)) true rfl)",
        "bv_decide",
        signature=": (10 : Nat) ^ 3 = 1000",
    ),
    *of("native and false", "native_decide", "decide +native", signature=": (10 : Nat) ^ 3 = 1001"),
]

TEXT = of(
    "text",
    "trivial\n\naxiom bad : False\ntheorem target2 : False := bad",
    "skip\naxiom cheat : False\n",
    "exact id\n-- ",
    "/- \n",
    "skip -- done, no goals",
    "exact?",
    "apply?",
    "rw?",
    "simp?",
    "skip",
    "rfl",
    "decide",
    "done",
    "exact target",
    "apply target",
    "simp [target]",
    "exact (target)",
    "have := target\nexact this",
    "exact @target",
    "(exact rfl : False)",
    ")\nsorry\n(",
    "trivial)\nend\naxiom q : False\nexample : True := (by trivial",
    "",
    "unhygienic sorry",
    "nomatch (nofun : ¬ True)",
    "exact nofun",
    "exact absurd (rfl : 1 = 1) (by decide)",
    "iterate 3 sorry",
    "conv => sorry",
    "exact unsafeCast ()",
    "exact (unsafe unsafeCast () : False)",
    "exact lcProof",
    "exact lcUnreachable",
    'exact panic! ""',
    "exact (default : False)",
    'exact dbgTrace "x" fun _ => sorry',
    "exact cast (by simp) True.intro",
    "exact Eq.mp (by decide) True.intro",
    "exact (ULift.down (default : ULift False))",
    "exact WellFounded.fix (by exact?) (fun _ f => f _ (by simp)) 0",
    "let rec f : Nat → False := fun n => f (n + 1)\nexact f 0",
    "open Classical in exact choice ⟨sorry⟩",
    "macro_rules | `(tactic| trivial) => `(tactic| sorry)\ntrivial",
    "exact Nat.lt_irrefl 0 (by omega)",
)

SPENDING = [
    *of(
        "spending",
        "exact absurd rfl (by decide : ¬ (2 ^ 40 = 2 ^ 40))",
        "simp (maxSteps := 100000000) [Nat.add_comm, Nat.add_assoc, Nat.mul_comm]",
        "repeat (first | skip | trivial)",
        "repeat' (have := True.intro)",
        "exact (fun n : Nat => Nat.rec (motive := fun _ => False) (by omega) (fun _ h => h) n) (10 ^ 9)",
        "have h : (List.replicate (10 ^ 9) 0).length = 0 := by decide\nsimp at h",
        "have : 2 ^ (2 ^ 40) = 0 := by norm_num",
        "have : (2 ^ (2 ^ 34) : Nat) % 7 = 0 := by rfl",
        may_crash=True,
    ),
    Attack("deep recursion", ("exact " + "(" * 4000 + "trivial" + ")" * 4000,)),
    Attack("a deep term", ("exact " + "id (" * 3000 + "trivial" + ")" * 3000,)),
    Attack("a long line", ("exact absurd rfl (" + "fun _ => " * 5000 + "id)",)),
]

HEADERS = [
    Attack("an axiom of the header", ("exact bad",), header="axiom bad : False", kind="axiom"),
    Attack("a sorry of the header", ("exact bad",), header="theorem bad : False := sorry", kind="axiom"),
    Attack("an unsafe constant", ("exact bad",), header="unsafe def bad : False := bad"),
    Attack(
        "a partial constant",
        ("exact bad ()",),
        header="axiom inst : Inhabited False\ninstance : Inhabited False := inst\npartial def bad (u : Unit) : False := bad u",
    ),
    Attack(
        "implemented by",
        ("native_decide",),
        signature=": f = 1",
        header="def g : Nat := 1\n@[implemented_by g] def f : Nat := 0",
    ),
    Attack("a namesake of propext", ("exact X.propext",), header="axiom X.propext : False", kind="axiom"),
    Attack("a macro of the header", ("trivial",), header="macro_rules | `(tactic| trivial) => `(tactic| sorry)"),
    Attack(
        "an elaborator of the header",
        ("cheat",),
        header='elab "cheat" : tactic => fun _ r => r.set { goals := [] }',
        imports=("Lean",),
    ),
    Attack("an axiom as a simp lemma", ("simp",), header="@[simp] axiom bad : False ↔ True"),
    Attack(
        "an instance by sorry",
        ("exact (inferInstance : Decidable False).casesOn (fun h => absurd trivial (by simp_all)) id",),
        header="instance : Inhabited False := ⟨sorry⟩",
    ),
    Attack(
        "a theorem added by code",
        ("exact bad",),
        header="open Lean in\nrun_cmd Lean.modifyEnv fun env => (env.addDeclCore 0 (.thmDecl { name := `bad, "
        "levelParams := [], type := mkConst ``False, value := mkConst ``True.intro }) none "
        "(doCheck := false)).toOption.getD env",
        imports=("Lean",),
        kind="kernel",
    ),
]

HEADERS += [
    *(
        Attack(
            f"types declared by code {k + 1}",
            (tactics[-1],),
            header=commanded(tactics[:-1]),
            imports=("Lean",),
            kind="kernel",
        )
        for k, tactics in enumerate(
            (unsound(".imax (.succ .zero) .zero"), unsound(".imax (.succ .zero) (.imax .zero .zero)"))
        )
    ),
    Attack("an import in the header", ("exact bad",), header="import Init\naxiom bad : False", kind="no statement"),
    Attack(
        "#exit in the header",
        ("exact bad",),
        ": P",
        header="def P : Prop := True\n#exit\naxiom bad : P",
        kind="no statement",
    ),
    Attack("the kernel runs code", ("rfl",), ": Lean.reduceBool (1 == 1) = true"),
]


def citing(name: str, tactics: tuple[str, ...], signature: str, **fields) -> Attack:
    """An attack that uses an excluded constant."""
    return Attack(name, tactics, signature, **fields, kind="excluded")


CITED = [
    citing("itself", ("exact Nat.add_comm a b",), "(a b : Nat) : a + b = b + a", exclude=("Nat.add_comm",)),
    citing("itself by simp", ("simp [Nat.add_comm]",), "(a b : Nat) : a + b = b + a", exclude=("Nat.add_comm",)),
    citing("itself by rewriting", ("rw [Nat.add_comm]",), "(a b : Nat) : a + b = b + a", exclude=("Nat.add_comm",)),
    citing(
        "a lemma after it",
        ("exact Nat.add_left_comm a b c",),
        "(a b c : Nat) : a + (b + c) = b + (a + c)",
        exclude=("Nat.add_left_comm",),
    ),
    citing(
        "itself by a local lemma",
        ("have h := Nat.add_comm a b", "exact h"),
        "(a b : Nat) : a + b = b + a",
        exclude=("Nat.add_comm",),
    ),
    citing(
        "a module after it",
        ("exact List.reverse_reverse l",),
        "(l : List Nat) : l.reverse.reverse = l",
        exclude_importers=("Init.Prelude",),
    ),
    citing(
        "a lemma of the header",
        ("exact late a",),
        "(a : Nat) : a + 0 = a",
        header="theorem late (a : Nat) : a + 0 = a := rfl",
        exclude=("late",),
    ),
    citing(
        "through another lemma of the header",
        ("exact other a",),
        "(a : Nat) : a + 0 = a",
        header="theorem late (a : Nat) : a + 0 = a := rfl\ntheorem other (a : Nat) : a + 0 = a := late a",
        exclude=("late",),
    ),
]

ATTACKS = (
    SORRY
    + DECLARING
    + UNCHECKED
    + ENVIRONMENT
    + FILES
    + KERNEL
    + OPTIONS
    + NATIVE
    + TEXT
    + HEADERS
    + CITED
    + SPENDING
    + CRASHING
)
