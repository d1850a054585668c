"""Ways to be taken for a proof without being one.

`False` stands for anything that is not true. An attack is what a policy might say, and where it matters a signature, a
header, and what is excluded.
"""

from dataclasses import dataclass

from monge.apps.prove.state import Theorem


@dataclass(frozen=True)
class Attack:
    name: str
    tactics: tuple[str, ...]
    signature: str = ": False"
    header: str = ""
    exclude: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    imports: tuple[str, ...] = ("Init",)
    deadly: bool = False
    """Whether the server may die of it."""
    kind: str = ""
    """What refuses it, where that is the point."""
    said: str = ""
    """A pattern of what it says."""

    @property
    def theorem(self) -> Theorem:
        return Theorem("target", self.signature, self.header, self.imports, self.exclude, self.beyond)


def of(group: str, *tactics: str | tuple[str, ...], **fields) -> list[Attack]:
    """An attack for each text, or tuple of texts, alike but for what is said."""
    return [
        Attack(f"{group} {k + 1}", (said,) if isinstance(said, str) else said, **fields)
        for k, said in enumerate(tactics)
    ]


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


def adding(kind: str, name: str, fields: str, *, checked: bool = True) -> str:
    """A tactic that declares something of type False; unchecked, it does not ask the kernel."""
    declaration = f"(.{kind} {{ name := {name}, levelParams := [], type := Lean.mkConst ``False, {fields} }})"
    if checked:
        return f"run_tac (do Lean.addDecl {declaration} : Lean.CoreM Unit)"
    return (
        "run_tac fun _ _ _ _ _ _ _ cell => do\n"
        "  let state ← cell.get\n"
        f"  match state.env.addDeclCore 0 {declaration} none (doCheck := false) with\n"
        "  | .ok env => cell.set { state with env }\n"
        "  | .error _ => pure ()"
    )


AXIOM, TRUE = "isUnsafe := false", "value := Lean.mkConst ``True.intro"
DECLARING = of(
    "code's axiom",
    (adding("axiomDecl", "`bad", AXIOM), "exact bad"),
    (adding("axiomDecl", "`propext'", AXIOM), "exact propext'"),
    (adding("axiomDecl", "`X.propext", AXIOM), "exact X.propext"),
    (adding("axiomDecl", '.str .anonymous "Classical.choice"', AXIOM), "exact «Classical.choice»"),
    (adding("axiomDecl", '.str .anonymous "Quot.sound"', AXIOM), "exact «Quot.sound»"),
    (adding("axiomDecl", "`a", AXIOM, checked=False), "exact a"),
    (adding("axiomDecl", "`a", AXIOM, checked=False), "have h : False := a\nexact h"),
    imports=("Lean",),
    kind="axiom",
)
UNCHECKED = of(
    "code's theorem",
    (adding("thmDecl", "`w", TRUE, checked=False), "exact w"),
    (adding("defnDecl", "`d", TRUE + ", hints := .opaque, safety := .safe", checked=False), "exact d"),
    (adding("opaqueDecl", "`o", TRUE + ", isUnsafe := false", checked=False), "exact o"),
    (adding("thmDecl", "`w", "value := Lean.mkConst `w", checked=False), "exact w"),
    (adding("thmDecl", "`w", "value := Lean.mkConst `nothing", checked=False), "exact w"),
    imports=("Lean",),
    kind="kernel",
)
ENVIRONMENT = (
    of(
        "code's environment",
        (adding("axiomDecl", "`target", AXIOM), "exact target"),
        (adding("thmDecl", "`target", TRUE, checked=False), "exact target"),
        imports=("Lean",),
        kind="compile",
        said="already been declared 'target'",
    )
    + of(
        "code's unsafe constant",
        (adding("axiomDecl", "`late", "isUnsafe := true"), "exact late"),
        (adding("defnDecl", "`u", TRUE + ", hints := .opaque, safety := .unsafe", checked=False), "exact u"),
        imports=("Lean",),
        kind="compile",
        said="it uses unsafe declaration",
    )
    + of(
        "code's state",
        "run_tac fun _ r => r.set { goals := [] }",
        "run_tac fun _ _ _ _ _ cell _ _ => do\n  let s ← cell.get\n  cell.set { s with mctx := {} }",
        "run_tac fun _ _ _ _ _ _ _ cell => do\n  let s ← cell.get\n  cell.set { s with messages := {} }",
        "run_tac (throw (.internal ⟨0⟩ {}) : Lean.CoreM Unit)",
        imports=("Lean",),
        kind="compile",
        said="metavariable|unsolved goals|internal exception",
    )
)
FILES = of(
    "code's file",
    'run_tac (IO.FS.writeFile "/lib/Init.olean" "" : IO Unit)',
    'run_tac (IO.FS.writeFile "/server/Main.lean" "" : IO Unit)',
    'run_tac (IO.FS.removeFile "/lib/Init.olean" : IO Unit)',
    'run_tac (IO.FS.createDirAll "/tmp/here" : IO Unit)',
    'run_tac (do let s ← IO.FS.readFile "/etc/hostname"; throw (IO.userError s) : IO Unit)',
    'run_tac (do let o ← IO.Process.output { cmd := "id" }; throw (IO.userError o.stdout) : IO Unit)',
    imports=("Lean",),
    kind="compile",
    said="read-only file system|no such file|function not implemented",
)

DEADLY = of(
    "deadly code",
    'run_tac (IO.println "{\\"state\\": 1, \\"goals\\": []}" : IO Unit)',
    'run_tac (IO.println "{\\"proved\\": \\"target\\", \\"axioms\\": [], \\"secret\\": \\"\\"}" : IO Unit)',
    'run_tac (IO.print "noise" : IO Unit)',
    "run_tac (IO.Process.exit 0 : IO Unit)",
    "run_tac (IO.sleep 600000 : IO Unit)",
    "run_tac (do let i ← IO.getStdin; let _ ← i.getLine : IO Unit)",
    imports=("Lean",),
    deadly=True,
)


def declared(*declarations: str) -> tuple[str, ...]:
    """A tactic for each that puts it through the kernel of the process it runs in."""
    return tuple(f"run_tac (Lean.addDecl ({text}) : Lean.CoreM Unit)" for text in declarations)


def commanded(tactics: tuple[str, ...]) -> str:
    """The same as commands of a header."""
    texts = [tactic.removeprefix("run_tac (Lean.addDecl ").removesuffix(" : Lean.CoreM Unit)") for tactic in tactics]
    return "open Lean\n" + "\n".join(
        f"run_cmd Lean.modifyEnv fun env => match env.addDeclCore 0 {text} none with | .ok e => e | .error _ => env"
        for text in texts
    )


def definition(name: str, type: str, value: str) -> str:
    said = f"name := `{name}, levelParams := [], type := {type}, value := {value}, hints := .abbrev, safety := .safe"
    return f".defnDecl {{ {said} }}"


def unsound(sort: str) -> tuple[str, ...]:
    """In a sort that is 0 by another name, the kernel of Lean 4.28 gives a type projections: two terms are equal and not."""
    types = (
        "{ name := `D, type := .sort .zero, ctors := [{ name := `D.intro, type := .const `D [] }] }, "
        f"{{ name := `I, type := .sort ({sort}), ctors := "
        "[{ name := `I.mk, type := .forallE `v (.const ``Bool []) (.const `I []) .default }] }"
    )
    same = "Lean.mkApp3 (.const ``Eq [.zero]) (.const `asP []) (.const `lft []) (.const `rgt [])"
    observed = ".lam `p (.const `I []) (.proj `I 0 (.bvar 0)) .default"
    return (
        *declared(
            f".inductDecl [] 0 [{types}] false",
            definition("asP", ".sort .zero", ".const `I []"),
            definition("obs", ".forallE `p (.const `I []) (.const ``Bool []) .default", observed),
            definition("lft", ".const `asP []", ".app (.const `I.mk []) (.const ``Bool.false [])"),
            definition("rgt", ".const `asP []", ".app (.const `I.mk []) (.const ``Bool.true [])"),
            f".thmDecl {{ name := `irr, levelParams := [], type := {same}, "
            "value := Lean.mkApp2 (.const ``Eq.refl [.zero]) (.const `asP []) (.const `lft []) }",
        ),
        "exact @Eq.rec asP lft (fun b _ => @Bool.rec (fun _ => Prop) True False (obs b)) True.intro rgt irr",
    )


CONSTRUCTOR = "ctors := [{ name := `E.mk, type := .const `E [] }]"
KERNEL = [
    *of(
        "kernel",
        unsound(".imax (.succ .zero) .zero"),
        unsound(".imax (.succ .zero) (.imax .zero .zero)"),
        unsound(".max .zero .zero"),
        imports=("Lean",),
        kind="axiom",
    ),
    Attack(
        "a type that does no harm",
        (
            *declared(f".inductDecl [] 0 [{{ name := `E, type := .sort .zero, {CONSTRUCTOR} }}] false"),
            "exact (fun _ : E => True.intro) E.mk",
        ),
        ": True",
        imports=("Lean",),
        kind="axiom",
    ),
    Attack("the kernel off", ("set_option debug.skipKernelTC true in decide +kernel",), ": 1 = 2", kind="kernel"),
    Attack(
        "the kernel off in the header",
        ("exact bad",),
        ": 1 = 2",
        header="set_option debug.skipKernelTC true\ntheorem bad : 1 = 2 := by decide +kernel",
        kind="kernel",
    ),
]

OPTIONS = of(
    "options",
    "set_option debug.skipKernelTC true in sorry",
    "set_option debug.byAsSorry true in exact (by trivial)",
    "set_option warn.sorry false in sorry",
    "set_option Elab.async true in sorry",
    "set_option hygiene false in sorry",
    kind="axiom",
) + of(
    "options that help nothing",
    "set_option debug.skipKernelTC true in exact True.intro",
    "set_option maxRecDepth 100000 in decide",
    "set_option autoImplicit true in exact h",
    kind="compile",
    said="Type mismatch|is false|Unknown identifier",
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
        deadly=True,
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
    Attack("simp taught an axiom", ("simp",), header="@[simp] axiom bad : False ↔ True"),
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
    Attack("its import", ("exact bad",), header="import Init\naxiom bad : False", kind="no statement"),
    Attack("its end", ("exact bad",), ": P", header="def P : Prop := True\n#exit\naxiom bad : P", kind="no statement"),
    Attack("the kernel runs code", ("rfl",), ": Lean.reduceBool (1 == 1) = true"),
]


def citing(name: str, tactics: tuple[str, ...], signature: str, **fields) -> Attack:
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
        "by a lemma of its own",
        ("have h := Nat.add_comm a b", "exact h"),
        "(a b : Nat) : a + b = b + a",
        exclude=("Nat.add_comm",),
    ),
    citing(
        "a module after it",
        ("exact List.reverse_reverse l",),
        "(l : List Nat) : l.reverse.reverse = l",
        beyond=("Init.Prelude",),
    ),
    citing(
        "a lemma of the header",
        ("exact late a",),
        "(a : Nat) : a + 0 = a",
        header="theorem late (a : Nat) : a + 0 = a := rfl",
        exclude=("late",),
    ),
    citing(
        "through another",
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
    + DEADLY
)
