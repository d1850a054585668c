"""Attacks whose tactics run code: they declare constants, change the state, access files, print, and exploit kernel bugs."""

from attack import Attack, of


def adding(kind: str, name: str, fields: str, *, checked: bool = True) -> str:
    """A tactic that adds a declaration of type False to the environment; if not `checked`, the kernel does not check it."""
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
        message="already been declared 'target'",
    )
    + of(
        "code's unsafe constant",
        (adding("axiomDecl", "`late", "isUnsafe := true"), "exact late"),
        (adding("defnDecl", "`u", TRUE + ", hints := .opaque, safety := .unsafe", checked=False), "exact u"),
        imports=("Lean",),
        kind="compile",
        message="it uses unsafe declaration",
    )
    + of(
        "code's state",
        "run_tac fun _ r => r.set { goals := [] }",
        "run_tac fun _ _ _ _ _ cell _ _ => do\n  let s ← cell.get\n  cell.set { s with mctx := {} }",
        "run_tac fun _ _ _ _ _ _ _ cell => do\n  let s ← cell.get\n  cell.set { s with messages := {} }",
        "run_tac (throw (.internal ⟨0⟩ {}) : Lean.CoreM Unit)",
        imports=("Lean",),
        kind="compile",
        message="metavariable|unsolved goals|internal exception",
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
    message="read-only file system|no such file|function not implemented",
)

CRASHING = of(
    "crashing code",
    'run_tac (IO.println "{\\"state\\": 1, \\"goals\\": []}" : IO Unit)',
    'run_tac (IO.println "{\\"proved\\": \\"target\\", \\"axioms\\": [], \\"secret\\": \\"\\"}" : IO Unit)',
    'run_tac (IO.print "noise" : IO Unit)',
    "run_tac (IO.Process.exit 0 : IO Unit)",
    "run_tac (IO.sleep 600000 : IO Unit)",
    "run_tac (do let i ← IO.getStdin; let _ ← i.getLine : IO Unit)",
    imports=("Lean",),
    may_crash=True,
)


def declared(*declarations: str) -> tuple[str, ...]:
    """A tactic for each declaration that adds it, checked by the kernel of the process that runs the tactic."""
    return tuple(f"run_tac (Lean.addDecl ({text}) : Lean.CoreM Unit)" for text in declarations)


def commanded(tactics: tuple[str, ...]) -> str:
    """Commands of a header that add the same declarations as the tactics of `declared`."""
    texts = [tactic.removeprefix("run_tac (Lean.addDecl ").removesuffix(" : Lean.CoreM Unit)") for tactic in tactics]
    return "open Lean\n" + "\n".join(
        f"run_cmd Lean.modifyEnv fun env => match env.addDeclCore 0 {text} none with | .ok e => e | .error _ => env"
        for text in texts
    )


def definition(name: str, type: str, value: str) -> str:
    fields = f"name := `{name}, levelParams := [], type := {type}, value := {value}, hints := .abbrev, safety := .safe"
    return f".defnDecl {{ {fields} }}"


def unsound(sort: str) -> tuple[str, ...]:
    """Tactics that prove False with a bug of Lean 4.28: in a sort equal to Prop that it does not recognise as Prop, the kernel
    allows projections from a proof. Two terms are then equal by proof irrelevance and differ by projection."""
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
        "a harmless type",
        (
            *declared(f".inductDecl [] 0 [{{ name := `E, type := .sort .zero, {CONSTRUCTOR} }}] false"),
            "exact (fun _ : E => True.intro) E.mk",
        ),
        ": True",
        imports=("Lean",),
        kind="axiom",
    ),
    Attack(
        "kernel check disabled", ("set_option debug.skipKernelTC true in decide +kernel",), ": 1 = 2", kind="kernel"
    ),
    Attack(
        "kernel check disabled in the header",
        ("exact bad",),
        ": 1 = 2",
        header="set_option debug.skipKernelTC true\ntheorem bad : 1 = 2 := by decide +kernel",
        kind="kernel",
    ),
]
