module
public meta import Lean
public import Lean
public meta import Monge.Elab
public meta import Monge.Export

/-!
Headers and statements: what they declare, what they say, and what of Lean's own words they give another meaning.
-/

open Lean Meta Elab
set_option compiler.extract_closed false
set_option linter.unusedVariables false

public meta section
namespace Monge

/-! ## What a header declares -/

mutual
partial def declaredIn (node : PersistentHashMap.Node Name ConstantInfo) (rest : List ConstantInfo) : List ConstantInfo :=
  match node with
  | .entries es => declaredOf es 0 rest
  | .collision _ cs _ => declaredAmong cs 0 rest

partial def declaredOf (es : Array (PersistentHashMap.Entry Name ConstantInfo (PersistentHashMap.Node Name ConstantInfo)))
    (i : Nat) (rest : List ConstantInfo) : List ConstantInfo :=
  match es[i]? with
  | none => rest
  | some (.entry _ c) => c :: declaredOf es (i + 1) rest
  | some (.ref node) => declaredIn node (declaredOf es (i + 1) rest)
  | some .null => declaredOf es (i + 1) rest

partial def declaredAmong (cs : Array ConstantInfo) (i : Nat) (rest : List ConstantInfo) : List ConstantInfo :=
  match cs[i]? with
  | none => rest
  | some c => c :: declaredAmong cs (i + 1) rest
end

/-- All that was declared since the imports. -/
def declared (env : Environment) : List ConstantInfo := declaredIn env.constants.map₂.root []

partial def typesOfAll (l : List ConstantInfo) : List Name := match l with
  | [] => []
  | .inductInfo v :: l => v.name :: typesOfAll l
  | _ :: l => typesOfAll l

/-- The inductive types that a header declares. -/
def types (env : Environment) : List Name := typesOfAll (declared env)

/-! ## What a header redefines -/

/-- Commands that declare what they say, or only say where names are looked up; all others are told of. -/
def plain : List Name := [
  ``Parser.Command.declaration, ``Parser.Command.mutual, ``Parser.Command.namespace, ``Parser.Command.section,
  ``Parser.Command.end, ``Parser.Command.variable, ``Parser.Command.universe, ``Parser.Command.open,
  ``Parser.Command.moduleDoc]

/-- Attributes that change what tactics do, not what a statement says. -/
def mild : List String := ["@[simp]", "@[ext]", "@[grind]", "@[grind =]", "@[reducible]", "@[inline]", "@[refl]", "@[symm]"]

def written (text : String) (stx : Syntax) : String :=
  match stx.getPos?, stx.getTailPos? with
  | some a, some b => String.Pos.Raw.extract text a b
  | _, _ => ""

/-- Why a command is told of: its text, or that of its attributes. -/
partial def telling (text : String) (stx : Syntax) : Option String :=
  if stx.getKind == ``Parser.Command.in then
    match telling text stx[0], telling text stx[2] with
    | none, none => none
    | _, _ => some (written text stx)
  else
  if !plain.contains stx.getKind then some (written text stx) else
  if stx.getKind != ``Parser.Command.declaration then none else
  let attributes := written text stx[0][1]
  if attributes == "" || mild.contains attributes then none else some (written text stx)

partial def told (text : String) (l : List Syntax) (rest : List Json) : List Json := match l with
  | [] => rest
  | stx :: l => match telling text stx with
    | some s => .str s :: told text l rest
    | none => told text l rest

/-- The imported name that `n` stands before where names are looked up in `scope`. -/
partial def shadows (env : Environment) (n scope : Name) : Option Name :=
  match scope with
  | .anonymous => none
  | .str p _ | .num p _ =>
    let short := n.replacePrefix scope .anonymous
    if short != n && (env.getModuleIdxFor? short).isSome then some short else shadows env n p

/-- Does a type speak of imported constants alone? -/
partial def foreign (env : Environment) (cs : List Name) : Bool := match cs with
  | [] => true
  | c :: cs => (env.getModuleIdxFor? c).isSome && foreign env cs

partial def redefined (env : Environment) (scope : Name) (l : List ConstantInfo) : List Json := match l with
  | [] => []
  | c :: l =>
    let rest := redefined env scope l
    if Meta.isInstanceCore env c.name && foreign env (mentioned c.type.getUsedConstants []) then
      .str ("an instance for Lean's own types: " ++ shown c.name) :: rest
    else match shadows env c.name scope with
      | some n => .str (shown c.name ++ " stands before Lean's own " ++ shown n) :: rest
      | none => rest

def Repl.header (s : Repl) (text : String) : BaseIO (Repl × Json) := do
  let start ← s.start
  let (stxs, failed, state) ← (Source.of "<header>" text start).all
  if failed.size == 0 then
    let tells := told text stxs.toList (redefined state.env (scopeOf state).currNamespace (declared state.env))
    return ({ s with headers := s.headers.push state }, .mkObj [("header", int s.headers.size), ("tells", list tells)])
  return (s, .mkObj [("failed", .str "header"), ("errors", .arr failed)])

/-! ## Statements -/

partial def count (lctx : LocalContext) (i : Nat := 0) : Nat :=
  if i ≥ lctx.decls.size then 0 else
  match lctx.getAt? i with
  | some d => (if d.isImplementationDetail then 0 else 1) + count lctx (i + 1)
  | none => count lctx (i + 1)

/-- How many hypotheses the goal knows that a tactic at `start` or after it met, if it is one. -/
def met (start : String.Pos.Raw) : Info → Option Nat
  | .ofTacticInfo i => match i.stx.getPos?, i.goalsBefore with
    | some p, g :: _ => if p.byteIdx < start.byteIdx then none else
      match i.mctxBefore.findDecl? g with
      | some d => some (count d.lctx)
      | none => none
    | _, _ => none
  | _ => none

mutual
/-- How many hypotheses a statement has before its colon: what the goal of a proof that begins at `start` knows. -/
partial def before (start : String.Pos.Raw) : InfoTree → Option Nat
  | .context _ t => before start t
  | .hole _ => none
  | .node info children => match met start info with | some n => some n | none => beforeAny start children

partial def beforeAny (start : String.Pos.Raw) (ts : PersistentArray InfoTree) : Option Nat :=
  match beforeIn start ts.root with | some n => some n | none => beforeOf start ts.tail 0

partial def beforeIn (start : String.Pos.Raw) : PersistentArrayNode InfoTree → Option Nat
  | .leaf ts => beforeOf start ts 0
  | .node parts => beforeAmong start parts 0

partial def beforeAmong (start : String.Pos.Raw) (parts : Array (PersistentArrayNode InfoTree)) (i : Nat) : Option Nat :=
  match parts[i]? with
  | none => none
  | some part => match beforeIn start part with | some n => some n | none => beforeAmong start parts (i + 1)

partial def beforeOf (start : String.Pos.Raw) (ts : Array InfoTree) (i : Nat) : Option Nat :=
  match ts[i]? with
  | none => none
  | some t => match before start t with | some n => some n | none => beforeOf start ts (i + 1)
end

/-- A theorem without proof, elaborated as a command: its constant and how many hypotheses stand before its colon. -/
def stated (header : Command.State) (name signature : String) : BaseIO (Except Json (ConstantVal × Nat)) := do
  let text := "theorem " ++ name ++ " " ++ signature ++ "\n"
  let proof := text.rawEndPos
  let (stxs, failed, state) ← (Source.of "<statement>" (text ++ ":= by sorry") header).all
  if failed.size > 0 then return .error (.mkObj [("failed", .str "statement"), ("errors", .arr failed)]) else
    let scope := scopeOf header
    match stxs.toList with
    | [stx] =>
      let value := stx[1][3]
      if stx[1].getKind != ``Parser.Command.theorem || value.getPos? != some proof || stx[1][1][0].getId != name.toName then
        return .error (failure "statement" "the text is not the signature of one theorem")
      match state.env.find? (scope.currNamespace ++ name.toName) with
      | some c =>
        if c.type.hasSorry then return .error (failure "statement" "the statement contains sorry")
        return .ok (c.toConstantVal, (beforeAny proof state.infoState.trees).getD 0)
      | none => return .error (failure "statement" "the statement declares nothing")
    | _ => return .error (failure "statement" "the text is not the signature of one theorem")

/-- A statement as elaborated: without notations, with all namespaces. -/
def spelt (header : Command.State) (c : ConstantVal) : BaseIO (Except String String) := do
  let scope := scopeOf header
  let options := (scope.opts.setBool `pp.notation false).setBool `pp.fullNames true
  let r ← Cells.of { scope with opts := options } 0 { env := header.env } {} {}
  caught (do
    let text ← r.run (do let text ← ppExpr c.type; return text)
    return text.pretty 100)

end Monge

run_cmd Monge.expose
