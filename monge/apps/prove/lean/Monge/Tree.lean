module
public meta import Lean.Elab.Frontend
public import Lean.Elab.Frontend
public meta import Monge.Elab
public meta import Monge.Stated

/-!
Statements as trees of explicit arguments, to be put into words, and the comparison of two statements.
-/

open Lean Meta Elab
set_option compiler.extract_closed false
set_option linter.unusedVariables false

public meta section
namespace Monge

/-- The explicit arguments of a function of this type. Arguments beyond the type's own arrows count as explicit. -/
partial def explicit (type : Expr) (args : List Expr) : List Expr := match args, type with
  | [], _ => []
  | args, .mdata _ t => explicit t args
  | a :: args, .forallE _ _ t i => if i.isExplicit then a :: explicit t args else explicit t args
  | args, _ => args

def sortName (l : Level) : String := match l with | .zero => "Prop" | _ => "Type"

def binderKind (i : BinderInfo) : String := if i.isInstImplicit then "instance" else if i.isExplicit then "explicit" else "implicit"

/-- A function and its arguments. -/
partial def spine (e : Expr) (args : List Expr := []) : Expr × List Expr := match e with
  | .app f a => spine f (a :: args)
  | .mdata _ e => spine e args
  | e => (e, args)

partial def applied (f : Expr) (args : List Expr) : Expr := match args with | [] => f | a :: args => applied (.app f a) args

mutual
/-- An expression as JSON: {var}, {number, of}, {string}, {const, args}, {apply, args}, or {bind, name, kind, type, prop, used,
body}, where `prop` is true for a hypothesis and `used` if the body depends on the variable. Proofs are no arguments. -/
partial def tree (r : Cells) (lctx : LocalContext) (e : Expr) : EIO Exception Json := do
  match e with
  | .mdata _ e => tree r lctx e
  | .fvar x => return .mkObj [("var", .str (match lctx.find? x with | some d => local_ d.userName | none => "_"))]
  | .const n _ => return .mkObj [("const", .str (shown n)), ("args", list [])]
  | .lit (.natVal n) => return .mkObj [("number", .str n.repr), ("of", .mkObj [("const", .str "Nat"), ("args", list [])])]
  | .lit (.strVal s) => return .mkObj [("string", .str s)]
  | .sort l => return .mkObj [("const", .str (sortName l)), ("args", list [])]
  | .forallE n t b i => underBinder r lctx "all" n t b i
  | .lam n t b i => underBinder r lctx "function" n t b i
  | .letE _ _ v b _ => tree r lctx (b.instantiate1 v)
  | .proj n i e => return .mkObj [("const", .str (shown n ++ "." ++ i.repr)), ("args", list [← tree r lctx e])]
  | .app .. =>
    match spine e with
    | (.const ``OfNat.ofNat _, [t, .lit (.natVal n), _]) =>
      return .mkObj [("number", .str n.repr), ("of", ← tree r lctx t)]
    | (.const n _, args) =>
      let c ← r.run (do let c ← getConstInfo n; return c)
      return .mkObj [("const", .str (shown n)), ("args", list (← trees r lctx (explicit c.type args)))]
    | (.lam _ _ b _, a :: args) => tree r lctx (applied (b.instantiate1 a) args)
    | (f, args) => return .mkObj [("apply", ← tree r lctx f), ("args", list (← trees r lctx args))]
  | _ => return .mkObj [("const", .str "_"), ("args", list [])]

partial def trees (r : Cells) (lctx : LocalContext) (es : List Expr) : EIO Exception (List Json) := do
  match es with
  | [] => return []
  | e :: es =>
    let proof ← r.run (do let proof ← isProof e; return proof) lctx
    if proof then trees r lctx es else return (← tree r lctx e) :: (← trees r lctx es)

partial def underBinder (r : Cells) (lctx : LocalContext) (kind : String) (n : Name) (t b : Expr) (i : BinderInfo) :
    EIO Exception Json := do
  let type ← tree r lctx t
  let prop ← r.run (do let prop ← isProp t; return prop) lctx
  let x : FVarId := ⟨.num `bound lctx.decls.size⟩
  let body ← tree r (lctx.mkLocalDecl x n t i) (b.instantiate1 (.fvar x))
  return .mkObj [("bind", .str kind), ("name", .str (local_ n)), ("kind", .str (binderKind i)), ("type", type),
    ("prop", .bool prop), ("used", .bool (b.hasLooseBVar 0)), ("body", body)]
end

/-- New universe parameters for a constant's type, so that those of two statements can be unified. -/
partial def fresh (l : List Name) : MetaM (List Level) := do
  match l with
  | [] => return []
  | _ :: l => return (← mkFreshLevelMVar) :: (← fresh l)

/-- True if these are distinct universe parameters. -/
partial def distinct (ls : List Level) (seen : NameSet := {}) : MetaM Bool := do
  match ls with
  | [] => return true
  | l :: ls => match ← instantiateLevelMVars l with
    | .param n => if seen.contains n then return false else distinct ls (seen.insert n)
    | _ => return false

partial def sameLength (a b : List Name) : Bool := match a, b with
  | [], [] => true
  | _ :: a, _ :: b => sameLength a b
  | _, _ => false

/-- True if two statements are the same term up to the names of universes and of bound variables. The unifier only finds the
universes: by itself, it would equate statements that hold by computation. -/
def same (a b : ConstantVal) : MetaM Bool := do
  let levels ← fresh b.levelParams
  let type := b.type.instantiateLevelParams b.levelParams levels
  let equal ← isDefEq a.type type
  let type ← instantiateMVars type
  let renamed ← distinct levels
  return equal && renamed && type == a.type && sameLength a.levelParams b.levelParams

/-- The tree of a signature after a header. -/
def Repl.tree (s : Repl) (j : Json) : BaseIO Json := do
  match s.headers[nat j "header"]? with
  | none => return failure "request" "no such header"
  | some header => match ← stated header "statement" (str j "signature") with
    | .error e => return e
    | .ok (c, _) =>
      let r ← Cells.of (scopeOf header) 0 { env := header.env } {} {}
      match ← caught (Monge.tree r {} c.type) with
      | .ok tree => return .mkObj [("tree", tree)]
      | .error e => return failure "tree" e

/-- Compare two signatures after a header, the second of which is the true one. Fails with `statement` if the first does not
elaborate, with `truth` if the second does not. -/
def Repl.equal (s : Repl) (j : Json) : BaseIO Json := do
  match s.headers[nat j "header"]? with
  | none => return failure "request" "no such header"
  | some header => match ← stated header "statement" (str j "second"), ← stated header "statement" (str j "first") with
    | .error e, _ => return failure "truth" e.compress
    | _, .error e => return e
    | .ok (b, _), .ok (a, _) =>
      let r ← Cells.of (scopeOf header) 200000 { env := header.env } {} {}
      match ← caught (r.run (do let equal ← same a b; return equal)) with
      | .ok equal => return .mkObj [("equal", .bool equal)]
      | .error e => return failure "undecided" e

end Monge

run_cmd Monge.expose
