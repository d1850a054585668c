module
public meta import Lean.Elab.Frontend
public import Lean.Elab.Frontend
public meta import Monge.Export

/-!
Replay of exported declarations through the kernel. Nothing here is parsed as Lean, and no tactic runs.
-/

open Lean Meta Elab
set_option compiler.extract_closed false
set_option linter.unusedVariables false

public meta section
namespace Monge

/-! ## Reading an export -/

/-- Names, levels and expressions of an export, by number. -/
structure Import where
  names : Array Name := #[.anonymous]
  levels : Array Level := #[.zero]
  exprs : Array Expr := #[]

def jnat (j : Json) : Except String Nat := match j.getNat? with | .ok n => .ok n | .error _ => .error "a number was expected"
def jarr (j : Json) : Except String (Array Json) :=
  match j with | .arr a => .ok a | _ => .error "a list was expected"

def part (a : Array Json) (i : Nat) : Except String Json :=
  match a[i]? with | some j => .ok j | none => .error "a list is too short"
def num (a : Array Json) (i : Nat) : Except String Nat := do jnat (← part a i)
def Import.name (m : Import) (a : Array Json) (i : Nat) : Except String Name := do
  match m.names[← num a i]? with | some n => return n | none => .error "a name is missing"
def Import.level (m : Import) (a : Array Json) (i : Nat) : Except String Level := do
  match m.levels[← num a i]? with | some l => return l | none => .error "a level is missing"
def Import.expr (m : Import) (a : Array Json) (i : Nat) : Except String Expr := do
  match m.exprs[← num a i]? with | some e => return e | none => .error "an expression is missing"

partial def listed {α : Type} (f : Array Json → Nat → Except String α) (a : Array Json) (i : Nat := 0) :
    Except String (List α) := do
  if i ≥ a.size then return [] else
  let x ← f a i
  let rest ← listed f a (i + 1)
  return x :: rest

def Import.readName (m : Import) (j : Json) : Except String Import := do
  let a ← jarr j
  let p ← m.name a 0
  match ← part a 1 with
  | .str s => return { m with names := m.names.push (.str p s) }
  | k => let k ← jnat k; return { m with names := m.names.push (.num p k) }

/-- True if a level is syntactically 0 for all values of its parameters. -/
partial def vanishes : Level → Bool
  | .zero => true
  | .max l k => vanishes l && vanishes k
  | .imax _ k => vanishes k
  | _ => false

/-- True if a level is syntactically above 0 for all values of its parameters. -/
partial def positive : Level → Bool
  | .succ _ => true
  | .max l k => positive l || positive k
  | .imax _ k => positive k
  | _ => false

/-- `max` and `imax`, simplified. The kernel of Lean 4.28 does not recognise `Sort (imax 1 0)` as Prop, and an inductive type
in it proves False (lean4 14613), so no such level may reach the kernel. -/
def plainMax (l k : Level) : Level := if vanishes l then k else if vanishes k then l else .max l k
def plainImax (l k : Level) : Level :=
  if vanishes k then .zero else if positive k then plainMax l k else .imax l k

/-- Limit of indices and depths, above which the kernel's fixed-size integers might overflow. -/
def most : Nat := 65536

def Import.readLevel (m : Import) (j : Json) : Except String Import := do
  let a ← jarr j
  let l ← match ← part a 0 with
    | .str "succ" => do let l ← m.level a 1; pure (Level.succ l)
    | .str "max" => do let l ← m.level a 1; let k ← m.level a 2; pure (plainMax l k)
    | .str "imax" => do let l ← m.level a 1; let k ← m.level a 2; pure (plainImax l k)
    | .str "param" => do let n ← m.name a 1; pure (Level.param n)
    | _ => .error "unknown kind of level"
  if l.depth ≥ most then .error "a level is too deep"
  return { m with levels := m.levels.push l }

def bound : Nat → BinderInfo | 1 => .implicit | 2 => .strictImplicit | 3 => .instImplicit | _ => .default

def Import.readExpr (m : Import) (j : Json) : Except String Import := do
  let a ← jarr j
  let e ← match ← part a 0 with
    | .str "bvar" => do let i ← num a 1; if i ≥ most then .error "too many binders" else pure (Expr.bvar i)
    | .str "sort" => do let l ← m.level a 1; pure (Expr.sort l)
    | .str "const" => do
      let n ← m.name a 1
      if n == ``Lean.reduceBool || n == ``Lean.reduceNat then .error (shown n ++ " runs code in the kernel")
      let ls ← listed m.level a 2
      pure (Expr.const n ls)
    | .str "app" => do let f ← m.expr a 1; let x ← m.expr a 2; pure (Expr.app f x)
    | .str "lam" => do
      let n ← m.name a 1; let t ← m.expr a 2; let b ← m.expr a 3; let i ← num a 4; pure (Expr.lam n t b (bound i))
    | .str "pi" => do
      let n ← m.name a 1; let t ← m.expr a 2; let b ← m.expr a 3; let i ← num a 4; pure (Expr.forallE n t b (bound i))
    | .str "let" => do
      let n ← m.name a 1; let t ← m.expr a 2; let v ← m.expr a 3; let b ← m.expr a 4
      let d ← part a 5
      pure (Expr.letE n t v b (match d with | .bool d => d | _ => false))
    | .str "nat" => match ← part a 1 with
      | .str s => match s.toNat? with | some k => pure (Expr.lit (.natVal k)) | none => .error "a natural number was expected"
      | _ => .error "a natural number was expected"
    | .str "str" => match ← part a 1 with | .str s => pure (Expr.lit (.strVal s)) | _ => .error "a string was expected"
    | .str "proj" => do let n ← m.name a 1; let i ← num a 2; let x ← m.expr a 3
                      if i ≥ most then .error "too many fields" else pure (Expr.proj n i x)
    | _ => .error "unknown kind of expression"
  return { m with exprs := m.exprs.push e }

partial def Import.over (f : Import → Json → Except String Import) (a : Array Json) (i : Nat) (m : Import) :
    Except String Import := do
  match a[i]? with
  | none => return m
  | some j => let m ← f m j; m.over f a (i + 1)

def Import.of (j : Json) : Except String Import := do
  let m ← ({} : Import).over Import.readName (arr j "names") 1
  let m ← m.over Import.readLevel (arr j "levels") 1
  m.over Import.readExpr (arr j "exprs") 0

/-- A declaration to be replayed: its name, levels and expressions, and for the kernel a `Declaration`, which an axiom lacks. -/
structure Declared where
  name : Name
  levels : List Name
  exprs : List Expr
  declaration : Option Declaration

def constructors : List Name → List Expr → List Constructor
  | n :: ns, t :: ts => { name := n, type := t } :: constructors ns ts
  | _, _ => []

def Import.inductive (m : Import) (a : Array Json) (i : Nat) : Except String InductiveType := do
  let a ← jarr (← part a i)
  let name ← m.name a 0
  let type ← m.expr a 1
  let names ← listed m.name (← jarr (← part a 2))
  let types ← listed m.expr (← jarr (← part a 3))
  return { name, type, ctors := constructors names types }

def Import.declaration (m : Import) (j : Json) : Except String Declared := do
  let a ← jarr j
  let name ← m.name a 1
  let levels ← listed m.name (← jarr (← part a 2))
  let exprs ← listed m.expr (← jarr (← part a 3))
  let d : Option Declaration ← match ← part a 0, exprs with
    | .str "axiom", [_] => pure none
    | .str "theorem", [type, value] => pure (some (.thmDecl { name, levelParams := levels, type, value }))
    | .str "opaque", [type, value] =>
      pure (some (.opaqueDecl { name, levelParams := levels, type, value, isUnsafe := false }))
    | .str "definition", [type, value] =>
      let hints := match a[4]? with
        | some (.str "abbrev") => ReducibilityHints.abbrev
        | some (.num n) => .regular n.mantissa.toNat.toUInt32
        | _ => .opaque
      pure (some (.defnDecl { name, levelParams := levels, type, value, hints, safety := .safe }))
    | .str "inductive", [] => do
      let types ← listed m.inductive (← jarr (← part a 5))
      pure (some (.inductDecl levels (← num a 4) types false))
    | _, _ => .error ("invalid declaration: " ++ shown name)
  return { name, levels, exprs, declaration := d }

partial def Import.declarations (m : Import) (a : Array Json) : Except String (List Declared) := listed (fun a i => do
  let j ← part a i
  m.declaration j) a

def checked (env : Environment) (d : Declaration) : BaseIO (Except Json Environment) := do
  match env.addDeclCore 0 d none with
  | .ok env => return .ok env
  | .error e => return .error (failure "kernel" (← (e.toMessageData {}).toString))

/-- Check all declarations with the kernel and add them. Constants that the environment already has are skipped. Only the
statement's export (`asked` is none) may declare axioms and inductive types: Lean's own tactics declare neither, and known bugs
of the kernel concern inductive types. Lean's table of imported names also lists names that belong to no constant, such as
those of the compiler's helpers. They are rejected, since a constant with such a name would count as imported. -/
partial def replayed (env : Environment) (asked : Option Declared) (l : List Declared) : BaseIO (Except Json Environment) := do
  match l with
  | [] => return .ok env
  | d :: l =>
    if env.contains d.name then replayed env asked l else
    if (env.getModuleIdxFor? d.name).isSome then
      return .error (failure "export" (shown d.name ++ " is a name that the library reserves"))
    let declaration ← match d.declaration, asked with
      | some (.inductDecl ..), some _ => pure none
      | some (.thmDecl v), some a =>
        pure (some (match d.name == a.name, a.exprs with
          | true, [type] => .thmDecl { v with levelParams := a.levels, type }
          | _, _ => .thmDecl v))
      | some v, _ => pure (some v)
      | none, none => match d.exprs with
        | [type] => pure (some (.axiomDecl { name := d.name, levelParams := d.levels, type, isUnsafe := false }))
        | _ => pure none
      | none, some _ => pure none
    match declaration with
    | none => return .error (failure "axiom" ("the proof declares an axiom or a type, " ++ shown d.name))
    | some v => match ← checked env v with
      | .error e => return .error e
      | .ok env => replayed env asked l

partial def split (l : List Declared) (before : Array Declared := #[]) : Option (List Declared × Declared) := match l with
  | [] => none
  | [d] => some (before.toList, d)
  | d :: l => split l (before.push d)

def read (j : Json) : Except String (List Declared) := do
  let m ← Import.of j
  m.declarations (arr j "declarations")

def object (j : Json) (key : String) : Json := match j.getObjVal? key with | .ok v => v | _ => .null

/-- Check a proof against a statement. Other processes exported both; this one passes them to the kernel. -/
def Repl.replay (s : Repl) (j : Json) : BaseIO Json := do
  match read (object j "statement"), read (object j "proof") with
  | .error e, _ => return failure "export" ("the statement: " ++ e)
  | _, .error e => return failure "export" ("the proof: " ++ e)
  | .ok statement, .ok proof => match split statement with
    | none => return failure "export" "the statement is empty"
    | some (ground_, asked) => match ← replayed s.env none ground_ with
      | .error e => return e
      | .ok env =>
        if env.contains asked.name then return failure "statement" (shown asked.name ++ " already exists") else
        match ← replayed env (some asked) proof with
        | .error e => return e
        | .ok env => match env.find? asked.name, asked.exprs with
          | some (.thmInfo v), [type] =>
            if v.type != type then return failure "statement" "the proof is of another statement" else
            let below := ground env [asked.name] (deep := true)
            match objection env (excluded env j) (owned env type) (ground env [asked.name]) below with
            | some (kind, e) => return failure kind e
            | none => return .mkObj [("proved", .str (shown asked.name)), ("axioms", list (strings below.axioms))]
          | _, _ => return failure "statement" "the export does not prove the statement"

end Monge

run_cmd Monge.expose
