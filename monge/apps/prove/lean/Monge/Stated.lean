module
public meta import Lean.Elab.Frontend
public import Lean.Elab.Frontend
public meta import Monge.Elab
public meta import Monge.Export

/-!
Elaborates headers and statements, prints statements unambiguously, and reports whatever in a header changes the meaning of the
library's names, notations or instances.
-/

open Lean Meta Elab
set_option compiler.extract_closed false
set_option linter.unusedVariables false

public meta section
namespace Monge

/-! ## Declarations of a header -/

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

/-- All constants declared since the imports. -/
def declared (env : Environment) : List ConstantInfo := declaredIn env.constants.map₂.root []

partial def typesOfAll (l : List ConstantInfo) : List Name := match l with
  | [] => []
  | .inductInfo v :: l => v.name :: typesOfAll l
  | _ :: l => typesOfAll l

/-- The inductive types that a header declares. -/
def types (env : Environment) : List Name := typesOfAll (declared env)

/-! ## Redefinitions in a header -/

/-- Commands that only declare something or affect name lookup; all other commands are reported. -/
def plain : List Name := [
  ``Parser.Command.declaration, ``Parser.Command.mutual, ``Parser.Command.namespace, ``Parser.Command.section,
  ``Parser.Command.end, ``Parser.Command.universe, ``Parser.Command.open, ``Parser.Command.moduleDoc]

/-- Attributes that affect tactics or the compiler, and not the meaning of a statement. -/
def mild : List String := ["@[simp]", "@[ext]", "@[grind]", "@[grind =]", "@[reducible]", "@[inline]", "@[refl]", "@[symm]"]

def written (text : String) (stx : Syntax) : String :=
  match stx.getPos?, stx.getTailPos? with
  | some a, some b => String.Pos.Raw.extract text a b
  | _, _ => ""

/-- The text of a command if it must be reported: it is not plain, or has attributes that are not mild. -/
partial def noteOn (text : String) (stx : Syntax) : Option String :=
  if stx.getKind == ``Parser.Command.in then
    match noteOn text stx[0], noteOn text stx[2] with
    | none, none => none
    | _, _ => some (written text stx)
  else
  if !plain.contains stx.getKind then some (written text stx) else
  if stx.getKind != ``Parser.Command.declaration then none else
  let attributes := written text stx[0][1]
  if attributes == "" || mild.contains attributes then none else some (written text stx)

partial def notesOn (text : String) (l : List Syntax) (rest : List Json) : List Json := match l with
  | [] => rest
  | stx :: l => match noteOn text stx with
    | some s => .str s :: notesOn text l rest
    | none => notesOn text l rest

/-- The imported name that `n` shadows inside the namespace `scope`. -/
partial def shadows (env : Environment) (n scope : Name) : Option Name :=
  match scope with
  | .anonymous => none
  | .str p _ | .num p _ =>
    let short := n.replacePrefix scope .anonymous
    if short != n && (env.getModuleIdxFor? short).isSome then some short else shadows env n p

/-- The imported name that `n` shadows because of one of these `open` declarations. -/
partial def shadowsOpen (env : Environment) (n : Name) (l : List OpenDecl) : Option Name := match l with
  | .simple scope _ :: l => match shadows env n scope with | some short => some short | none => shadowsOpen env n l
  | .explicit short full :: l =>
    if full == n && (env.getModuleIdxFor? short).isSome then some short else shadowsOpen env n l
  | [] => none

partial def hasNat (l : Array Nat) (k : Nat) (i : Nat := 0) : Bool :=
  match l[i]? with | none => false | some n => n == k || hasNat l k (i + 1)

def arity : DiscrTree.Key → Nat
  | .const _ n | .fvar _ n => n
  | .proj _ _ n => n + 1
  | .arrow => 0
  | _ => 0

/-- True if the next `left` subterms, read from index `i` of the keys, mention a constant declared since the imports; also the
index after them. In keys, reducible definitions are already unfolded. -/
partial def ownKeys (env : Environment) (keys : Array DiscrTree.Key) (i left : Nat) : Bool × Nat :=
  if left == 0 then (false, i) else
  match keys[i]? with
  | none => (false, i)
  | some key =>
    let own := match key with | .const n _ => (env.getModuleIdxFor? n).isNone | _ => false
    let (more, j) := ownKeys env keys (i + 1) (left - 1 + arity key)
    (own || more, j)

/-- True if an argument of a class, from the `k`-th on and except output parameters, mentions a constant declared since the
imports. -/
partial def ownArguments (env : Environment) (outputs : Array Nat) (keys : Array DiscrTree.Key) (i k : Nat) : Bool :=
  if i ≥ keys.size then false else
  let (own, j) := ownKeys env keys i 1
  (own && !hasNat outputs k) || ownArguments env outputs keys j (k + 1)

/-- True if a constant is an instance of a library class that applies to library types or to any type. Its discrimination tree
keys determine the types that it applies to. -/
def foreign (env : Environment) (c : ConstantInfo) : BaseIO Bool := do
  if !Meta.isInstanceCore env c.name then return false
  let r ← Cells.of { header := "" } 0 { env } {} {}
  match ← caught (r.run (do
      let (_, _, type) ← forallMetaTelescopeReducing c.type
      let keys ← DiscrTree.mkPath type
      return keys)) with
  | .error _ => return true
  | .ok keys => match keys[0]? with
    | some (DiscrTree.Key.const n _) =>
      let outputs := match getOutParamPositions? env n with | some l => l | none => #[]
      return (env.getModuleIdxFor? n).isSome && !ownArguments env outputs keys 1 0
    | _ => return true

partial def redefined (env : Environment) (scope : Command.Scope) (l : List ConstantInfo) : BaseIO (List Json) := do
  match l with
  | [] => return []
  | c :: l =>
    let rest ← redefined env scope l
    let n := match privateToUserName? c.name with | some n => n | none => c.name
    if ← foreign env c then return .str ("an instance for types of the library: " ++ shown n) :: rest
    match shadows env n scope.currNamespace, shadowsOpen env n scope.openDecls with
    | some short, _ | none, some short => return .str (shown n ++ " shadows the library's own " ++ shown short) :: rest
    | none, none => return rest

def Repl.header (s : Repl) (text : String) : BaseIO (Repl × Json) := do
  let start ← s.start
  let (stxs, failed, state) ← (Source.of "<header>" text start).all
  if failed.size == 0 then
    let notes := notesOn text stxs.toList (← redefined state.env (scopeOf state) (declared state.env))
    return ({ s with headers := s.headers.push state }, .mkObj [("header", int s.headers.size), ("notes", list notes)])
  return (s, .mkObj [("failed", .str "header"), ("errors", .arr failed)])

/-! ## Statements -/

partial def count (lctx : LocalContext) (i : Nat := 0) : Nat :=
  if i ≥ lctx.decls.size then 0 else
  match lctx.getAt? i with
  | some d => (if d.isImplementationDetail then 0 else 1) + count lctx (i + 1)
  | none => count lctx (i + 1)

/-- The number of hypotheses of the first goal before a tactic, if the node is a tactic at or after `start`. -/
def met (start : String.Pos.Raw) : Info → Option Nat
  | .ofTacticInfo i => match i.stx.getPos?, i.goalsBefore with
    | some p, g :: _ => if p.byteIdx < start.byteIdx then none else
      match i.mctxBefore.findDecl? g with
      | some d => some (count d.lctx)
      | none => none
    | _, _ => none
  | _ => none

mutual
/-- The first result of a function on the nodes of info trees, in pre-order. -/
partial def firstIn {α : Type} (f : Info → Option α) : InfoTree → Option α
  | .context _ t => firstIn f t
  | .hole _ => none
  | .node info children => match f info with | some x => some x | none => firstInfo f children

partial def firstInfo {α : Type} (f : Info → Option α) (ts : PersistentArray InfoTree) : Option α :=
  match firstBelow f ts.root with | some x => some x | none => firstOf f ts.tail 0

partial def firstBelow {α : Type} (f : Info → Option α) : PersistentArrayNode InfoTree → Option α
  | .leaf ts => firstOf f ts 0
  | .node parts => firstAmong f parts 0

partial def firstAmong {α : Type} (f : Info → Option α) (parts : Array (PersistentArrayNode InfoTree)) (i : Nat) : Option α :=
  match parts[i]? with
  | none => none
  | some part => match firstBelow f part with | some x => some x | none => firstAmong f parts (i + 1)

partial def firstOf {α : Type} (f : Info → Option α) (ts : Array InfoTree) (i : Nat) : Option α :=
  match ts[i]? with
  | none => none
  | some t => match firstIn f t with | some x => some x | none => firstOf f ts (i + 1)
end

/-- The full name of a theorem declared as `name` in a scope. -/
def fullName (scope : Command.Scope) (name : String) : Name :=
  let n := name.toName
  if n.getRoot == `_root_ then n.replacePrefix `_root_ .anonymous else scope.currNamespace ++ n

/-- Elaborate a theorem without its proof, as a command. Returns its constant and the number of hypotheses before its colon. -/
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
      match state.env.find? (fullName scope name) with
      | some c =>
        if c.type.hasSorry then return .error (failure "statement" "the statement contains sorry")
        return .ok (c.toConstantVal, (firstInfo (met proof) state.infoState.trees).getD 0)
      | none => return .error (failure "statement" "the statement declares nothing")
    | _ => return .error (failure "statement" "the text is not the signature of one theorem")

partial def hasName (l : Array Name) (n : Name) (i : Nat := 0) : Bool :=
  match l[i]? with | none => false | some m => m == n || hasName l n (i + 1)

partial def excluding (known : Array Name) (l : List Name) : List Name := match l with
  | [] => []
  | n :: l => if hasName known n then excluding known l else n :: excluding known l

/-- True if the types of a constant's arguments do not determine all its universe levels. -/
partial def openLevel (params : List Name) (type : Expr) : Bool := match type with
  | .forallE _ d b _ => openLevel (excluding (collectLevelParams {} d).params params) b
  | _ => match params with | [] => false | _ => true

/-- True if a statement depends on universe levels that its printed form does not determine without them. -/
def levelsMatter (env : Environment) (e : Expr) : Bool := (e.find? fun
  | .const n (_ :: _) => match env.find? n with | some c => openLevel c.levelParams c.type | none => false
  | _ => false).isSome

/-- Printing options that hide nothing essential, independent of the header's options. -/
def open_ (universes : Bool) : Options :=
  let o : Options := ({} : Options).setBool `pp.notation false
  let o := ((o.setBool `pp.fullNames true).setBool `pp.privateNames true).setBool `pp.fieldNotation false
  let o := ((o.setBool `pp.numericTypes true).setBool `pp.natLit true).setBool `pp.coercions.types true
  let o := ((o.setBool `pp.structureInstances false).setBool `pp.deepTerms true).setNat `pp.maxSteps 200000
  o.setBool `pp.universes universes

def pretty (env : Environment) (o : Options) (e : Expr) : BaseIO (Except String String) := do
  let r ← Cells.of { header := "", opts := o } 0 { env } {} {}
  caught (do
    let text ← r.run (do let text ← ppExpr e; return text)
    return text.pretty 100)

/-- Two printed forms of an elaborated statement: one without notations, with full names, types of numerals, and universe levels
where they matter; and one with every argument and universe level. -/
def spelt (header : Command.State) (c : ConstantVal) : BaseIO (Except String (String × String)) := do
  let env := header.env
  match ← pretty env (open_ (levelsMatter env c.type)) c.type with
  | .error e => return .error e
  | .ok text => match ← pretty env ((open_ true).setBool `pp.explicit true) c.type with
    | .error e => return .error e
    | .ok explicit => return .ok (text, explicit)

/-! ## Instances in a statement -/

partial def mentionsOwn (env : Environment) (cs : Array Name) (i : Nat := 0) : Bool := match cs[i]? with
  | none => false
  | some c => (env.getModuleIdxFor? c).isNone || mentionsOwn env cs (i + 1)

/-- The instances among the arguments of a library constant that apply to library types but do not come from the library:
declared by the header, or a hypothesis whose type contains no variables. -/
partial def ownInstances (env : Environment) (params : Array ParamInfo) (args : Array Expr) (i : Nat) (found : List Expr) :
    MetaM (List Expr) := do
  match params[i]?, args[i]? with
  | some p, some a =>
    if !p.isInstImplicit then ownInstances env params args (i + 1) found else
    let type ← instantiateMVars (← inferType a)
    let foreign := mentionsOwn env a.getUsedConstants || (a.hasFVar && !type.hasFVar)
    if foreign && !ownArguments env #[] (← DiscrTree.mkPath type) 1 0
      then ownInstances env params args (i + 1) (a :: found) else ownInstances env params args (i + 1) found
  | _, _ => return found

partial def resolved (l : List Expr) (rest : List String) : MetaM (List String) := do
  match l with
  | [] => return rest
  | a :: l =>
    let type ← ppExpr (← inferType a)
    let value ← ppExpr a
    let text := type.pretty 100 ++ " is " ++ value.pretty 100
    let rest ← resolved l rest
    return if rest.contains text then rest else text :: rest

/-- The arguments of an application in order, prepended to `rest`. -/
partial def argumentsOf (e : Expr) (rest : List Expr) : List Expr :=
  match e with | .app f a => argumentsOf f (a :: rest) | _ => rest

mutual
/-- A line `CLASS is INSTANCE` for each instance in a statement that does not come from the library. -/
partial def resolutions (env : Environment) (e : Expr) (found : List String) : MetaM (List String) := do
  match e with
  | .forallE n t b i => resolutionsUnder env n t b i (← resolutions env t found)
  | .lam n t b i => resolutionsUnder env n t b i (← resolutions env t found)
  | .letE n t v b _ =>
    let found ← resolutions env v (← resolutions env t found)
    resolutions env (b.instantiate1 v) found
  | .mdata _ e => resolutions env e found
  | .proj _ _ e => resolutions env e found
  | .app .. =>
    let args := argumentsOf e []
    let found ← match e.getAppFn with
      | .const n ls =>
        if (env.getModuleIdxFor? n).isNone then pure found else
        let info ← getFunInfoNArgs (.const n ls) args.toArray.size
        resolved (← ownInstances env info.paramInfo args.toArray 0 []) found
      | f => resolutions env f found
    resolutionsAmong env args found
  | _ => return found

partial def resolutionsUnder (env : Environment) (n : Name) (t b : Expr) (i : BinderInfo) (found : List String) :
    MetaM (List String) := do
  let id ← mkFreshFVarId
  let body := b.instantiate1 (.fvar id)
  fun context => resolutions env body found { context with lctx := context.lctx.mkLocalDecl id n t i }

partial def resolutionsAmong (env : Environment) (args : List Expr) (found : List String) : MetaM (List String) := do
  match args with
  | [] => return found
  | a :: args => resolutionsAmong env args (← resolutions env a found)
end

def texts (l : List String) : List Json := match l with | [] => [] | s :: l => .str s :: texts l

def resolutionsOf (header : Command.State) (c : ConstantVal) : BaseIO (Except String (List Json)) := do
  let env := header.env
  let r ← Cells.of { header := "", opts := open_ false } 0 { env } {} {}
  caught (do
    let found ← r.run (resolutions env c.type [])
    return texts found)

end Monge

run_cmd Monge.expose
