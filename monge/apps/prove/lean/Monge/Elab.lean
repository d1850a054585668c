module
public meta import Lean.Elab.Frontend
public meta import Lean.Compiler.LCNF.PhaseExt
public meta import Lean.Compiler.IR.CompilerM
public import Lean.Elab.Frontend
public import Lean.Compiler.IR.CompilerM

/-!
Elaborates commands and prints goals. States are values: a function returns the next state and leaves its argument unchanged.

Some of Lean's builds fail to compile the library's private helpers, among them those behind loops. The code therefore uses
plain recursion where a loop would read better.
-/

open Lean Meta Elab
set_option compiler.extract_closed false
set_option linter.unusedVariables false

public meta section
namespace Monge

/-! ## Fields of requests, names and errors -/

/-- `Name.toString` without escapes. -/
partial def shown : Name → String
  | .anonymous => ""
  | .str .anonymous s => s
  | .num .anonymous i => i.repr
  | .str p s => shown p ++ "." ++ s
  | .num p i => shown p ++ "." ++ i.repr

/-- A name as printed in a goal; a dagger marks names that tactics cannot refer to. -/
def local_ (n : Name) : String := if n.hasMacroScopes then shown n.eraseMacroScopes ++ "✝" else shown n

def str (j : Json) (key : String) : String := match j.getObjVal? key with | .ok (.str s) => s | _ => ""
def arr (j : Json) (key : String) : Array Json := match j.getObjVal? key with | .ok (.arr a) => a | _ => #[]
def nat (j : Json) (key : String) : Nat :=
  match j.getObjVal? key with | .ok v => (match v.getNat? with | .ok n => n | _ => 0) | _ => 0
def int (n : Nat) : Json := .num (.fromNat n)
partial def names (a : Array Json) (i : Nat := 0) : List Name :=
  match a[i]? with
  | some (.str s) => s.toName :: names a (i + 1)
  | _ => []
partial def strings (l : List Name) : List Json := match l with | [] => [] | n :: l => .str (shown n) :: strings l
def list (l : List Json) : Json := .arr l.toArray
def failure (kind message : String) : Json := .mkObj [("failed", .str kind), ("message", .str message)]

def message (e : Exception) : BaseIO String := match e with
  | .error _ m => m.toString
  | .internal id _ => pure ("internal exception " ++ id.idx.repr)

def caught {α : Type} (x : EIO Exception α) : BaseIO (Except String α) := do
  match ← x.toBaseIO with
  | .ok a => return .ok a
  | .error e => return .error (← message e)

/-! ## Running Lean's monads on stored states -/

/-- Mutable state of an elaborator, from which elaboration of a stored state can continue. -/
structure Cells where
  context : Core.Context
  core : IO.Ref Core.State
  meta_ : IO.Ref Meta.State
  term : IO.Ref Term.State

def Cells.of (scope : Command.Scope) (heartbeats : Nat) (core : Core.State) (m : Meta.State) (t : Term.State) :
    BaseIO Cells := do
  let now ← IO.getNumHeartbeats
  let context : Core.Context := {
    fileName := "<tactic>", fileMap := FileMap.ofString "", options := scope.opts,
    maxHeartbeats := heartbeats * 1000, initHeartbeats := now, maxRecDepth := maxRecDepth.get scope.opts,
    currNamespace := scope.currNamespace, openDecls := scope.openDecls }
  return { context, core := ← IO.mkRef core, meta_ := ← IO.mkRef m, term := ← IO.mkRef t }

/-- Unifier settings that Lean uses when it elaborates a file. -/
def guessing : Meta.Config := { foApprox := true, ctxApprox := true }

def Cells.run {α : Type} (r : Cells) (x : MetaM α) (lctx : LocalContext := {}) (li : LocalInstances := #[]) :
    EIO Exception α :=
  x { lctx := lctx, localInstances := li } r.meta_ r.context r.core

def strict (name : Name) : Term.Context := { declName? := some name, errToSorry := false, autoBoundImplicitContext := none }

def Cells.elab {α : Type} (r : Cells) (name : Name) (x : TermElabM α) : EIO Exception α :=
  x (strict name) r.term { keyedConfig := guessing.toConfigWithKey } r.meta_ r.context r.core

/-! ## State of the server -/

/-- Constants that a proof may not use. -/
structure Excluded where
  /-- Constants excluded by name. -/
  names : NameSet := {}
  /-- True for each module, by index, whose constants are all excluded; empty if no module is. -/
  modules : Array Bool := #[]

/-- An elaborated statement, with the scope and the exclusions under which it is proved. -/
structure Asked where
  name : Name
  levels : List Name
  type : Expr
  scope : Command.Scope
  excluded : Excluded
  /-- Constants that the statement depends on; a proof may always use them. -/
  own : NameSet

/-- A proof state. It holds values only, so it can be stepped any number of times. -/
structure Node where
  asked : Asked
  core : Core.State
  meta_ : Meta.State
  term : Term.State
  goals : List MVarId
  root : MVarId

structure Repl where
  env : Environment
  options : Options
  headers : Array Command.State := #[]
  nodes : Array (Option Node) := #[]

/-! ## Goals -/

/-- The level, or one fixed placeholder if it contains metavariables. -/
def settled (l : Level) : Level := if l.hasMVar then .param `x else l

def allSettled (ls : List Level) : List Level := match ls with | [] => [] | l :: ls => settled l :: allSettled ls

/-- The expression without annotations, with the same placeholder for all metavariables. -/
partial def unadorned (e : Expr) : Expr := e.replace fun
  | .mvar _ => some (.const `x [])
  | .const n ls => some (.const n (allSettled ls))
  | .sort l => some (.sort (settled l))
  | .mdata _ e => some (unadorned e)
  | _ => none

partial def variables (ids : List FVarId) : List Expr := match ids with | [] => [] | x :: xs => .fvar x :: variables xs

/-- Printed names of variables, each preceded by a space. -/
partial def called (shown : LocalContext) (ids : List FVarId) : String := match ids with
  | [] => ""
  | x :: xs => " " ++ (match shown.find? x with | some d => Monge.shown d.userName | none => "_") ++ called shown xs

/-- Distinguishes expressions that print identically: a hash of the expression with its variables numbered, then their names. -/
def markOf (e : Expr) (shown : LocalContext) : String :=
  let e := unadorned e
  let ids := (collectFVars {} e).fvarIds
  (e.abstract (variables ids.toList).toArray).hash.toNat.repr ++ called shown ids.toList

/-- An expression as printed, without a depth limit, and its mark. -/
def printed (r : Cells) (e : Expr) (lctx shown : LocalContext) (li : LocalInstances) : EIO Exception (String × String) := do
  let deep := { r.context with options := pp.deepTerms.set r.context.options true }
  let (text, mark) ← Cells.run { r with context := deep } (do
    let e ← instantiateMVars e
    let text ← ppExpr e
    return (text, markOf e shown)) lctx li
  return (text.pretty 100, mark)

/-- Printed name of the hypothesis with this index. -/
def nameAt (shown : LocalContext) (i : Nat) : String := match shown.getAt? i with
  | some d => Monge.shown d.userName
  | none => ""

partial def hypotheses (r : Cells) (lctx shown : LocalContext) (li : LocalInstances) (i : Nat) (found : Array Json) :
    EIO Exception (Array Json) := do
  if i ≥ lctx.decls.size then return found
  match lctx.getAt? i with
  | none => hypotheses r lctx shown li (i + 1) found
  | some d =>
    if d.isImplementationDetail then hypotheses r lctx shown li (i + 1) found else
    let (text, mark) ← printed r d.type lctx shown li
    let prop ← r.run (do isProp (← instantiateMVars d.type)) lctx li
    let fields := [("name", Json.str (nameAt shown i)), ("type", .str text), ("prop", .bool prop)]
    match d.value? with
    | none => hypotheses r lctx shown li (i + 1) (found.push (.mkObj (("mark", .str mark) :: fields)))
    | some value =>
      let (text, more) ← printed r value lctx shown li
      let fields := ("value", .str text) :: ("mark", .str (mark ++ " " ++ more)) :: fields
      hypotheses r lctx shown li (i + 1) (found.push (.mkObj fields))

def goal (r : Cells) (g : MVarId) : EIO Exception Json := do
  let d ← r.run (do let d ← g.getDecl; return d)
  let clean := d.lctx.sanitizeNames.run' { options := {} }
  let hyps ← hypotheses r d.lctx clean d.localInstances 0 #[]
  let (text, mark) ← printed r d.type d.lctx clean d.localInstances
  return .mkObj [("case", .str (local_ d.userName)), ("hypotheses", .arr hyps), ("target", .str text), ("mark", .str mark)]

partial def goals (r : Cells) (gs : List MVarId) : EIO Exception (List Json) := do
  match gs with
  | [] => return []
  | g :: gs => return (← goal r g) :: (← goals r gs)

def Repl.push (s : Repl) (n : Node) (js : List Json) (more : List (String × Json) := []) : Repl × Json :=
  ({ s with nodes := s.nodes.push (some n) }, .mkObj (("state", int s.nodes.size) :: ("goals", list js) :: more))

def Repl.node (s : Repl) (j : Json) : Option Node := match s.nodes[nat j "state"]? with | some n => n | none => none

/-! ## Commands: headers, statements and whole proofs -/

/-- A text, and the state in which its next command is elaborated. -/
structure Source where
  context : Parser.InputContext
  state : Command.State

def Source.of (name text : String) (state : Command.State) : Source :=
  { context := { inputString := text, fileName := name, fileMap := FileMap.ofString text, endPos := text.rawEndPos,
                 endPos_valid := by simp }, state }

partial def errors (ms : List Message) (found : Array Json := #[]) : BaseIO (Array Json) := do
  match ms with
  | [] => return found
  | m :: ms => match m.severity with
    | .error =>
      let text ← m.toString
      errors ms (found.push (.str text.trimAscii.toString))
    | _ => errors ms found

def scopeOf (s : Command.State) : Command.Scope := match s.scopes with | scope :: _ => scope | [] => { header := "" }

def Source.place (s : Source) : Parser.ParserModuleContext :=
  let scope := scopeOf s.state
  { env := s.state.env, options := scope.opts, currNamespace := scope.currNamespace, openDecls := scope.openDecls }

/-- Position of the first command, after white space and comments. A text may consist of these alone. -/
def Source.first (s : Source) : Parser.ModuleParserState :=
  let tokens := Parser.getTokenTable s.state.env
  { pos := (Parser.whitespace.run s.context s.place tokens (Parser.mkParserState s.context.inputString)).pos }

/-- Elaborate one command. Returns the state after it, its messages, and the exception that ended it, if any. -/
def Source.command (s : Source) (stx : Syntax) (pos : String.Pos.Raw) :
    BaseIO (Command.State × List Message × Option String) := do
  let cell ← IO.mkRef { s.state with messages := {} }
  let context : Command.Context := { fileName := s.context.fileName, fileMap := s.context.fileMap, snap? := none,
                                     cancelTk? := none, cmdPos := pos }
  let thrown ← match ← caught (do Command.elabCommandTopLevel stx context cell; return ()) with
    | .ok _ => pure none
    | .error e => pure (some e)
  let state ← cell.get
  return ({ state with messages := {} }, state.messages.toList, thrown)

/-- Elaborate all remaining commands. Returns their syntax, the errors, and the state after them. -/
partial def Source.all (s : Source) (parsed : Parser.ModuleParserState := s.first) (done : Array Syntax := #[])
    (failed : Array Json := #[]) : BaseIO (Array Syntax × Array Json × Command.State) := do
  let (stx, parsed, messages) := Parser.parseCommand s.context s.place parsed {}
  let failed ← errors messages.toList failed
  if Parser.isTerminalCommand stx then
    if stx.getKind == ``Parser.Command.eoi then return (done, failed, { s.state with messages := {} })
    return (done, failed.push (.str "import and #exit are not allowed here"), { s.state with messages := {} })
  let (state, messages, thrown) ← s.command stx parsed.pos
  let failed ← errors messages (match thrown with | some e => failed.push (.str e) | none => failed)
  Source.all { s with state } parsed (done.push stx) failed

/-- The state in which a header begins. A build that treats every file as a `module` hides definitions unless they are exposed,
so everything is declared in an exposed public section. -/
def Repl.start (s : Repl) : BaseIO Command.State := do
  let start := Command.mkState s.env {} s.options
  if !s.env.header.isModule then return start
  let (_, _, state) ← (Source.of "<start>" "@[expose] public section" start).all
  return state

/-! ## Under the interpreter -/

/--
Make all compiled declarations visible to the interpreter, which looks a declaration up by the module of its constant and sees
only public ones. The compiler's helpers (lifted lambdas, boxed versions) are not public and have no constant, so each is made
public and gets a dummy constant.
-/
partial def reachable (env : Environment) : List IR.Decl → Environment
  | [] => env
  | d :: ds =>
    let env := markMeta (Compiler.LCNF.setDeclPublic env d.name) d.name
    if env.contains d.name then reachable env ds else
    let dummy : Declaration := .axiomDecl { name := d.name, levelParams := [], type := mkConst ``True, isUnsafe := true }
    reachable (match env.addDeclCore 0 dummy none with | .ok env => env | .error _ => env) ds

/-- Run as the last command of each of the server's files. -/
def expose : Command.CommandElabM Unit := do
  let env ← getEnv
  setEnv (reachable env (IR.getDecls env))

end Monge

run_cmd Monge.expose
