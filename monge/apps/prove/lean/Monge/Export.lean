module
public meta import Lean.Elab.Frontend
public import Lean.Elab.Frontend
public meta import Monge.Elab

/-!
The constants that a proof depends on, and the export of declarations as plain data for another process.
-/

open Lean Meta Elab
set_option compiler.extract_closed false
set_option linter.unusedVariables false

public meta section
namespace Monge

/-! ## Dependencies and exclusions -/

/-- True if one of the imports is an excluded or a marked module. -/
partial def reaches (env : Environment) (excluded : NameSet) (marked : Array Bool) (imports : Array Lean.Import) (i : Nat := 0) :
    Bool :=
  match imports[i]? with
  | none => false
  | some m =>
    if excluded.contains m.module then true else
    match env.getModuleIdx? m.module with
    | some j => match marked[j.toNat]? with
      | some true => true
      | _ => reaches env excluded marked imports (i + 1)
    | none => reaches env excluded marked imports (i + 1)

/-- For each module, whether it imports an excluded one, directly or indirectly. One pass suffices, since an environment lists a
module after all modules that it imports. -/
partial def importers (env : Environment) (excluded : NameSet) (marked : Array Bool := #[]) : Array Bool :=
  match env.header.moduleData[marked.size]? with
  | none => marked
  | some data => importers env excluded (marked.push (reaches env excluded marked data.imports))

partial def nameSet (l : List Name) (s : NameSet := {}) : NameSet := match l with | [] => s | n :: l => nameSet l (s.insert n)

def followed (l rest : List Name) : List Name := match l with | [] => rest | n :: l => n :: followed l rest

/-- True if a library constant is a theorem, even if the build stores it as an axiom because it omits proofs. -/
def isTheorem (env : Environment) (n : Name) : Bool :=
  match env.find? n with
  | some (.thmInfo _) => true
  | some (.axiomInfo _) => wasOriginallyTheorem env n
  | _ => false

partial def theoremsIn (env : Environment) (cs : Array Name) (i : Nat) (rest : List Name) : List Name :=
  match cs[i]? with
  | none => rest
  | some c => if isTheorem env c then c :: theoremsIn env cs (i + 1) rest else theoremsIn env cs (i + 1) rest

/-- The theorems of a module. -/
def theoremsOf (env : Environment) (m : Nat) : List Name :=
  match env.header.moduleData[m]? with | some data => theoremsIn env data.constNames 0 [] | none => []

partial def mentionsOne (s : NameSet) (cs : Array Name) (i : Nat := 0) : Bool :=
  match cs[i]? with
  | none => false
  | some c => s.contains c || mentionsOne s cs (i + 1)

partial def carriersIn (env : Environment) (theorems : NameSet) (cs : Array Name) (i : Nat) (rest : List Name) : List Name :=
  match cs[i]? with
  | none => rest
  | some c => match Meta.isInstanceCore env c, env.find? c with
    | true, some (.defnInfo v) =>
      if mentionsOne theorems v.value.getUsedConstants then c :: carriersIn env theorems cs (i + 1) rest
      else carriersIn env theorems cs (i + 1) rest
    | _, _ => carriersIn env theorems cs (i + 1) rest

/-- The theorems of a module, and its instances whose values mention one of them. -/
def carriersOf (env : Environment) (m : Nat) : List Name :=
  match env.header.moduleData[m]? with
  | some data =>
    let theorems := theoremsOf env m
    carriersIn env (nameSet theorems) data.constNames 0 theorems
  | none => []

/-- The module of the library theorem that the request restates; none if it restates none, or an unknown one. -/
def restated (env : Environment) (j : Json) : Option Nat :=
  match str j "restates" with
  | "" => none
  | s => match env.getModuleIdxFor? s.toName with | some i => some i.toNat | none => none

/-- Constants that the request excludes: those that it names and, if it restates a theorem, all theorems of that theorem's
module and the instances that mention them. Excluding only later theorems is impossible, since public files do not record their
order. -/
def excludedNames (env : Environment) (j : Json) : List Name :=
  followed (names (arr j "exclude")) (match restated env j with | some m => carriersOf env m | none => [])

/-- All that the request excludes: the constants in `exclude`, every module that imports one in `exclude_importers`, and for the
theorem in `restates` its module's theorems and the importers of that module. -/
def excluded (env : Environment) (j : Json) : Excluded :=
  let excluded := names (arr j "exclude_importers")
  let excluded := match restated env j with
    | some m => match env.header.moduleNames[m]? with | some n => n :: excluded | none => excluded
    | none => excluded
  { names := nameSet (excludedNames env j),
    modules := match excluded with | [] => #[] | _ => importers env (nameSet excluded) }

def Excluded.has (e : Excluded) (env : Environment) (c : Name) : Bool :=
  if e.names.contains c then true else
  match env.getModuleIdxFor? c with
  | some i => e.modules[i.toNat]?.getD false
  | none => false

/-- The constants from index `i` on, prepended to `rest`. -/
partial def mentioned (cs : Array Name) (rest : List Name) (i : Nat := 0) : List Name :=
  match cs[i]? with | some c => c :: mentioned cs rest (i + 1) | none => rest

def dependencies (c : ConstantInfo) (rest : List Name) : List Name :=
  let rest := mentioned c.type.getUsedConstants rest
  match c with
  | .thmInfo v => mentioned v.value.getUsedConstants rest
  | .defnInfo v => mentioned v.value.getUsedConstants rest
  | .opaqueInfo v => mentioned v.value.getUsedConstants rest
  | .inductInfo v => followed v.ctors rest
  | .ctorInfo v => v.induct :: rest
  | .recInfo v => followed v.all rest
  | _ => rest

/-- The constants that a proof depends on. -/
structure Ground where
  seen : NameSet := {}
  /-- Axioms, constants that run code in the kernel, and unknown constants. -/
  axioms : List Name := []
  all : List Name := []

/-- True if the module comes with Lean. -/
def leans (env : Environment) (m : ModuleIdx) : Bool :=
  match env.header.moduleNames[m.toNat]? with
  | some n => [`Init, `Std, `Lean].contains n.getRoot
  | none => false

/-- All constants that `todo` depends on. Imported constants are listed, but their own dependencies are not followed. With
`deep`, dependencies are also followed through libraries other than Lean's, which may depend on a sorry. The libraries that
come with Lean are trusted, except for their axioms and for constants that run code in the kernel. Their theorems whose proofs
the build omits are stored as axioms and do not count as axioms here. -/
partial def ground (env : Environment) (todo : List Name) (deep : Bool := false) (g : Ground := {}) : Ground :=
  match todo with
  | [] => g
  | c :: rest =>
    if g.seen.contains c then ground env rest deep g else
    let g := { g with seen := g.seen.insert c, all := c :: g.all }
    let bad := { g with axioms := c :: g.axioms }
    if c == ``Lean.reduceBool || c == ``Lean.reduceNat then ground env rest deep bad else
    match env.find? c, env.getModuleIdxFor? c with
    | none, _ => ground env rest deep bad
    | some info, some m =>
      if deep && !leans env m then
        ground env (dependencies info rest) deep (match info with | .axiomInfo _ => bad | _ => g) else
      match info with
      | .axiomInfo _ =>
        if wasOriginallyTheorem env c then ground env rest deep g else
        match getOriginalConstKind? env c with
        | some .axiom | none => ground env rest deep bad
        | _ => ground env rest deep g
      | _ => ground env rest deep g
    | some info, none => ground env (dependencies info rest) deep (match info with | .axiomInfo _ => bad | _ => g)

def moduleOf (env : Environment) (c : Name) : Name :=
  match env.getModuleIdxFor? c with
  | some i => env.header.moduleNames[i.toNat]!
  | none => .anonymous

/-- True for Lean's three axioms, each only from the module that declares it: one of the same name from elsewhere is another
axiom. -/
def lawful (env : Environment) (c : Name) : Bool :=
  match env.getModuleIdxFor? c with
  | none => false
  | some _ => match c with
    | ``propext => moduleOf env c == `Init.Core
    | ``Classical.choice => moduleOf env c == `Init.Prelude
    | ``Quot.sound => moduleOf env c == `Init.Core
    | _ => false

partial def first (l : List Name) (p : Name → Bool) : Option Name :=
  match l with | [] => none | n :: l => if p n then some n else first l p

/-- The constants that a statement depends on. -/
def owned (env : Environment) (type : Expr) : NameSet := (ground env (mentioned type.getUsedConstants [])).seen

/-- The reason to reject a theorem because of its dependencies, as a kind and a message; none if there is none. `own` holds the
dependencies of its statement, which a proof may always use. Excluded constants are looked up in `g`, axioms in `below`. -/
def objection (env : Environment) (e : Excluded) (own : NameSet) (g below : Ground) : Option (String × String) :=
  match first below.axioms (fun c => !lawful env c) with
  | some c =>
    let what := if wasOriginallyTheorem env c then "a theorem whose proof is missing, " else "the axiom "
    some ("axiom", "the proof depends on " ++ what ++ shown c)
  | none => match first g.all (fun c => !own.contains c && e.has env c) with
    | some c => some ("excluded", "the proof uses " ++ shown c ++ ", which is excluded")
    | none => none

/-! ## Export of declarations, for another process to replay -/

/-- Hash table from keys to numbers. -/
structure Table (α : Type) where
  buckets : Array (List (α × Nat)) := Array.replicate 4096 []

partial def found {α : Type} (same : α → Bool) : List (α × Nat) → Option Nat
  | [] => none
  | (b, i) :: l => if same b then some i else found same l

def slot (hash : UInt64) : Nat := (hash % 4096).toNat
def Table.get {α : Type} (t : Table α) (hash : UInt64) (same : α → Bool) : Option Nat :=
  match t.buckets[slot hash]? with | some l => found same l | none => none
def Table.put {α : Type} (t : Table α) (hash : UInt64) (a : α) (i : Nat) : Table α :=
  { buckets := t.buckets.modify (slot hash) (fun l => (a, i) :: l) }

/-- Tables of names, levels and expressions. A row refers to earlier rows by number; row 0 of the names is the anonymous name,
and row 0 of the levels is level zero. -/
structure Export where
  names : Array Json := #[.null]
  nameAt : Table Name := {}
  levels : Array Json := #[.null]
  levelAt : Table Level := {}
  exprs : Array Json := #[]
  exprAt : Table Expr := {}
  declarations : Array Json := #[]
  done : NameSet := {}

def nums (l : List Nat) : List Json := match l with | [] => [] | n :: l => int n :: nums l

partial def Export.name (x : Export) (n : Name) : Export × Nat :=
  match n with
  | .anonymous => (x, 0)
  | _ => match x.nameAt.get n.hash (· == n) with
    | some i => (x, i)
    | none =>
      let (x, j) := match n with
        | .str p s => let (x, i) := x.name p; (x, list [int i, .str s])
        | .num p k => let (x, i) := x.name p; (x, list [int i, int k])
        | .anonymous => (x, .null)
      ({ x with names := x.names.push j, nameAt := x.nameAt.put n.hash n x.names.size }, x.names.size)

partial def Export.each {α : Type} (x : Export) (f : Export → α → Export × Nat) (l : List α) : Export × List Nat :=
  match l with
  | [] => (x, [])
  | a :: l =>
    let (x, i) := f x a
    let (x, is) := x.each f l
    (x, i :: is)

partial def Export.level (x : Export) (l : Level) : Export × Nat :=
  match l with
  | .zero => (x, 0)
  | _ => match x.levelAt.get l.hash (· == l) with
    | some i => (x, i)
    | none =>
      let (x, j) := match l with
        | .succ a => let (x, i) := x.level a; (x, list [.str "succ", int i])
        | .max a b => let (x, i) := x.level a; let (x, k) := x.level b; (x, list [.str "max", int i, int k])
        | .imax a b => let (x, i) := x.level a; let (x, k) := x.level b; (x, list [.str "imax", int i, int k])
        | .param n => let (x, i) := x.name n; (x, list [.str "param", int i])
        | _ => (x, .null)
      ({ x with levels := x.levels.push j, levelAt := x.levelAt.put l.hash l x.levels.size }, x.levels.size)

def binder : BinderInfo → Nat | .default => 0 | .implicit => 1 | .strictImplicit => 2 | .instImplicit => 3

partial def Export.expr (x : Export) (e : Expr) : Export × Nat :=
  match e with
  | .mdata _ e => x.expr e
  | _ => match x.exprAt.get e.hash (· == e) with
    | some i => (x, i)
    | none =>
      let (x, j) := match e with
        | .bvar i => (x, list [.str "bvar", int i])
        | .sort l => let (x, l) := x.level l; (x, list [.str "sort", int l])
        | .const n ls =>
          let (x, n) := x.name n
          let (x, ls) := x.each Export.level ls
          (x, list (.str "const" :: int n :: nums ls))
        | .app f a => let (x, f) := x.expr f; let (x, a) := x.expr a; (x, list [.str "app", int f, int a])
        | .lam n t b i =>
          let (x, n) := x.name n; let (x, t) := x.expr t; let (x, b) := x.expr b
          (x, list [.str "lam", int n, int t, int b, int (binder i)])
        | .forallE n t b i =>
          let (x, n) := x.name n; let (x, t) := x.expr t; let (x, b) := x.expr b
          (x, list [.str "pi", int n, int t, int b, int (binder i)])
        | .letE n t v b d =>
          let (x, n) := x.name n; let (x, t) := x.expr t; let (x, v) := x.expr v; let (x, b) := x.expr b
          (x, list [.str "let", int n, int t, int v, int b, .bool d])
        | .lit (.natVal k) => (x, list [.str "nat", .str k.repr])
        | .lit (.strVal s) => (x, list [.str "str", .str s])
        | .proj n i e => let (x, n) := x.name n; let (x, e) := x.expr e; (x, list [.str "proj", int n, int i, int e])
        | _ => (x, .null)
      ({ x with exprs := x.exprs.push j, exprAt := x.exprAt.put e.hash e x.exprs.size }, x.exprs.size)

/-- Add a declaration: a list of its kind, name, level parameters, expressions and further parts, by number. -/
def Export.declaration (x : Export) (kind : String) (n : Name) (levels : List Name) (es : List Expr)
    (more : List Json := []) : Export :=
  let (x, n) := x.name n
  let (x, levels) := x.each Export.name levels
  let (x, es) := x.each Export.expr es
  let parts := .str kind :: int n :: list (nums levels) :: list (nums es) :: more
  { x with declarations := x.declarations.push (list parts) }

partial def typesOf (env : Environment) (l : List Name) : List Expr := match l with
  | [] => []
  | n :: l => match env.find? n with | some c => c.type :: typesOf env l | none => typesOf env l

/-- The inductive types of a mutual block, each with its name, type and constructors. -/
def Export.inductives (x : Export) (env : Environment) (l : List Name) : Export × List Json := match l with
  | [] => (x, [])
  | n :: l =>
    match env.find? n with
    | some (.inductInfo v) =>
      let (x, name) := x.name n
      let (x, type) := x.expr v.type
      let (x, ctors) := x.each Export.name v.ctors
      let (x, types) := x.each Export.expr (typesOf env v.ctors)
      let (x, rest) := x.inductives env l
      (x, list [int name, int type, list (nums ctors), list (nums types)] :: rest)
    | _ => x.inductives env l

def hints : ReducibilityHints → Json | .opaque => .str "opaque" | .abbrev => .str "abbrev" | .regular h => int h.toNat

def constructorsRest (env : Environment) (l rest : List Name) : List Name := match l with
  | [] => rest
  | n :: l => match env.find? n with
    | some c => mentioned c.type.getUsedConstants (constructorsRest env l rest)
    | none => constructorsRest env l rest

/-- Constants that the types and constructors of a mutual block mention. -/
def inside (env : Environment) (all : List Name) : List Name := match all with
  | [] => []
  | n :: all => match env.find? n with
    | some (.inductInfo v) => mentioned v.type.getUsedConstants (constructorsRest env v.ctors (inside env all))
    | _ => inside env all

/-- Export constants and all their dependencies that are not imported, dependencies first. Unsafe and partial declarations are
skipped, since no safe declaration can depend on them. -/
partial def Export.constants (x : Export) (env : Environment) (l : List Name) : Export := match l with
  | [] => x
  | n :: l =>
    let x := if x.done.contains n then x else match env.getModuleIdxFor? n, env.find? n with
      | some _, _ => { x with done := x.done.insert n }
      | _, none => { x with done := x.done.insert n }
      | none, some c => match c with
        | .ctorInfo v => x.constants env [v.induct]
        | .recInfo v => x.constants env v.all
        | .inductInfo v =>
          let x := { x with done := nameSet v.all x.done }
          let x := x.constants env (inside env v.all)
          let (x, types) := x.inductives env v.all
          x.declaration "inductive" n v.levelParams [] [int v.numParams, list types]
        | _ =>
          let x := { x with done := x.done.insert n }
          if c.isUnsafe || c.isPartial then x else
          let x := x.constants env (dependencies c [])
          match c with
          | .axiomInfo v => x.declaration "axiom" n v.levelParams [v.type]
          | .thmInfo v => x.declaration "theorem" n v.levelParams [v.type, v.value]
          | .opaqueInfo v => x.declaration "opaque" n v.levelParams [v.type, v.value]
          | .defnInfo v => x.declaration "definition" n v.levelParams [v.type, v.value] [hints v.hints]
          | _ => x
    x.constants env l

def Export.json (x : Export) : Json :=
  .mkObj [("names", .arr x.names), ("levels", .arr x.levels), ("exprs", .arr x.exprs), ("declarations", .arr x.declarations)]

end Monge

run_cmd Monge.expose
