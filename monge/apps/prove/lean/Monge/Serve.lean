module
public meta import Lean.Elab.Frontend
public import Lean.Elab.Frontend
public meta import Monge.Elab
public meta import Monge.Export
public meta import Monge.Replay
public meta import Monge.Stated
public meta import Monge.Split
public meta import Monge.Written
public meta import Monge.Tree

/-!
Lean as a server: it reads one JSON request per line on stdin and writes one JSON answer per line on stdout.

The first line on stdin is a list of secrets, one for each answer that this process may give; every answer starts with the next
secret. Tactics run in this process and can print, but they do not know the next secret; the client kills a process that prints
anything without it.
-/

open Lean Meta Elab
set_option compiler.extract_closed false
set_option linter.unusedVariables false

public meta section
namespace Monge

/-! ## Searching -/

/-- Remove a name from a set of lemmas if the set contains it. -/
def erase (r : Cells) (set n : Name) : BaseIO Unit := do
  let _ ← caught (r.run (do Attribute.erase n set; return ()))

/-- Remove names from the simp, grind and ext sets. -/
partial def eraseAll (r : Cells) (l : List Name) : BaseIO Unit := do
  match l with
  | [] => return ()
  | n :: l =>
    erase r `simp n
    erase r `ext n
    erase r `grind n
    eraseAll r l

/-- Remove names from one set of lemmas. -/
partial def eraseFrom (r : Cells) (set : Name) (l : List Name) : BaseIO Unit := do
  match l with
  | [] => return ()
  | n :: l =>
    erase r set n
    eraseFrom r set l

/-- Remove all theorems of excluded modules from the simp set. -/
partial def eraseBeyond (r : Cells) (env : Environment) (marked : Array Bool) (m : Nat := 0) : BaseIO Unit := do
  match marked[m]? with
  | none => return ()
  | some beyond =>
    if beyond then eraseFrom r `simp (theoremsOf env m)
    eraseBeyond r env marked (m + 1)

/-- An error if the request excludes or restates a name that does not exist. A misspelt name would otherwise exclude nothing. -/
partial def absent (env : Environment) (j : Json) : Option Json :=
  let missing := first (names (arr j "exclude")) (fun n => !env.contains n)
  match missing, first (names (arr j "exclude_importers")) (fun n => (env.getModuleIdx? n).isNone) with
  | some n, _ => some (failure "statement" ("exclude: there is no " ++ shown n))
  | none, some n => some (failure "statement" ("exclude_importers: there is no module " ++ shown n))
  | none, none => match str j "restates", restated env j with
    | "", _ | _, some _ => none
    | s, none => some (failure "statement" ("restates: there is no " ++ s ++ " in the library"))

/-- The header's state, with excluded constants removed from the simp, ext and grind sets, and theorems of excluded modules
from the simp set. -/
def without (header : Command.State) (j : Json) : BaseIO Command.State := do
  let env := header.env
  let r ← Cells.of (scopeOf header) 0 { env } {} {}
  eraseAll r (excludedNames env j)
  eraseBeyond r env (excluded env j).modules
  return { header with env := (← r.core.get).env }

def Repl.begin (s : Repl) (j : Json) : BaseIO (Repl × Json) := do
  match s.headers[nat j "header"]? with
  | none => return (s, failure "request" "no such header")
  | some header =>
    if let some e := absent header.env j then return (s, e)
    let header ← without header j
    match ← stated header (str j "name") (str j "signature") with
    | .error e => return (s, e)
    | .ok (c, n) =>
      let scope := scopeOf header
      let excluded := excluded header.env j
      let own := owned header.env c.type
      let r ← Cells.of scope (nat j "heartbeats") { env := header.env } {} { levelNames := c.levelParams }
      let asked : Asked := { name := c.name, levels := c.levelParams, type := c.type, scope, excluded, own }
      match ← caught (do
          let root ← r.run (do let m ← mkFreshExprMVar (some c.type) .syntheticOpaque; return m)
          let (_, g) ← r.run (root.mvarId!.introNP n)
          let js ← goals r [g]
          return (root.mvarId!, g, js)) with
      | .error e => return (s, failure "statement" e)
      | .ok (root, g, js) =>
        return s.push { asked, core := ← r.core.get, meta_ := ← r.meta_.get, term := ← r.term.get, goals := [g], root } js

/-- The text, which may contain several tactics, parsed as one tactic. -/
def parsed (env : Environment) (text : String) : Except String Syntax :=
  Parser.runParserCategory env `tactic ("(\n" ++ text ++ "\n)") "<tactic>"

/-- Metavariables that delayed assignments wait for, prepended to `rest`: their values are not yet part of the proof term. -/
partial def pending (m : MetavarContext) (ids : List MVarId) (rest : List MVarId) : List MVarId := match ids with
  | [] => rest
  | id :: ids => match m.getDelayedMVarAssignmentCore? id with
    | some d => d.mvarIdPending :: pending m ids rest
    | none => pending m ids rest

/-- The constants in the terms assigned to these goals. -/
partial def filled (r : Cells) (gs : List MVarId) : EIO Exception (List Name) := do
  match gs with
  | [] => return []
  | g :: gs =>
    let e ← r.run (do let e ← instantiateMVars (mkMVar g); return e)
    let gs := pending (← r.meta_.get).mctx (e.collectMVars {}).result.toList gs
    return mentioned e.getUsedConstants (← filled r gs)

/-- The state after a tactic, or the kind of its failure and a message. A tactic that uses a forbidden constant fails here
already: otherwise the search would drop the same state as a duplicate when a permitted tactic reaches it. -/
def stepped (n : Node) (stx : Syntax) (heartbeats most : Nat) : BaseIO (Except (String × String) (Node × List Json)) := do
  let r ← Cells.of n.asked.scope heartbeats { n.core with messages := {} } n.meta_ n.term
  let tactic ← IO.mkRef ({ goals := n.goals } : Tactic.State)
  let context : Tactic.Context := { elaborator := .anonymous, recover := false }
  let within := strict n.asked.name
  let unifier : Meta.Context := { keyedConfig := guessing.toConfigWithKey }
  match ← caught (do
      Tactic.evalTactic stx context tactic within r.term unifier r.meta_ r.context r.core
      r.elab n.asked.name (do Term.synthesizeSyntheticMVarsNoPostponing; return ())
      Tactic.pruneSolvedGoals context tactic within r.term unifier r.meta_ r.context r.core) with
  | .error e => return .error ("tactic", e)
  | .ok _ =>
    let core ← r.core.get
    match (← errors core.messages.toList).toList with
    | .str e :: _ => return .error ("tactic", e)
    | _ =>
      let gs := (← tactic.get).goals
      let left := gs.toArray.size
      if left > most then return .error ("tactic", "it leaves " ++ left.repr ++ " goals, more than " ++ most.repr) else
      match ← caught (do
          let used ← filled r n.goals
          let js ← goals r gs
          return (used, js)) with
      | .error e => return .error ("tactic", e)
      | .ok (used, js) =>
        let core ← r.core.get
        let g := ground core.env used false { seen := n.asked.own }
        match objection core.env n.asked.excluded n.asked.own g g with
        | some e => return .error e
        | none => return .ok ({ n with core, meta_ := ← r.meta_.get, term := ← r.term.get, goals := gs }, js)

def Repl.step (s : Repl) (j : Json) : BaseIO (Repl × Json) := do
  match s.node j with
  | none => return (s, failure "request" "no such state")
  | some n =>
    let spent ← IO.getNumHeartbeats
    let began ← IO.monoMsNow
    let found : Except (String × String) (Node × List Json) ← match parsed n.core.env (str j "tactic") with
      | .error e => pure (Except.error ("parse", e))
      | .ok stx => stepped n stx (nat j "heartbeats") (nat j "goals")
    let cost := [("heartbeats", int (((← IO.getNumHeartbeats) - spent) / 1000)), ("ms", int ((← IO.monoMsNow) - began))]
    match found with
    | .error (kind, e) => return (s, .mkObj (("failed", .str kind) :: ("message", .str e) :: cost))
    | .ok (n, js) => return s.push n js cost

/-- Check the proof of a state without goals with this process's kernel. Another process makes the final decision. -/
def finished (n : Node) (heartbeats : Nat) : BaseIO (Except Json Unit) := do
  let r ← Cells.of n.asked.scope heartbeats n.core n.meta_ n.term
  match ← caught (r.run (do
      let v ← instantiateMVars (mkMVar n.root)
      if !v.hasLevelMVar then return v
      let abstracted ← abstractMVars v
      instantiateMVars abstracted.expr)) with
  | .error e => return .error (failure "proof" e)
  | .ok v =>
    if v.hasExprMVar then return .error (failure "proof" "the proof has metavariables")
    if v.hasFVar then return .error (failure "proof" "the proof has free variables")
    if v.hasSorry then return .error (failure "proof" "the proof uses sorry")
    let env := (← r.core.get).env
    let d : Declaration := .thmDecl { name := n.asked.name, levelParams := n.asked.levels, type := n.asked.type, value := v }
    match env.addDeclCore 0 d none with
    | .error e => return .error (failure "kernel" (← (e.toMessageData {}).toString))
    | .ok env =>
      let g := ground env [n.asked.name]
      match objection env n.asked.excluded n.asked.own g g with
      | some (kind, e) => return .error (failure kind e)
      | none => return .ok ()

def Repl.finish (s : Repl) (j : Json) : BaseIO Json := do
  match s.node j with
  | none => return failure "request" "no such state"
  | some n => match n.goals with
    | _ :: _ => return failure "proof" "goals are left"
    | [] => match ← finished n (nat j "heartbeats") with
      | .error e => return e
      | .ok _ => return .mkObj [("ok", .bool true)]

/-- Delete states; states derived from them stay. -/
partial def Repl.drop (s : Repl) (states : Array Json) (i : Nat := 0) : Repl :=
  match states[i]? with
  | none => s
  | some j => match j.getNat? with
    | .ok n => ({ s with nodes := s.nodes.setIfInBounds n none } : Repl).drop states (i + 1)
    | .error _ => s.drop states (i + 1)

/-! ## Proofs as text -/

/-- Elaborate a statement. The answer has its printed forms and an export of its dependencies, of all inductive types that the
header declares, and finally of the statement itself, as an axiom. -/
def Repl.state (s : Repl) (j : Json) : BaseIO Json := do
  match s.headers[nat j "header"]? with
  | none => return failure "request" "no such header"
  | some header =>
    if let some e := absent header.env j then return e
    match ← stated header (str j "name") (str j "signature") with
    | .error e => return e
    | .ok (c, _) =>
      let x := ({} : Export).constants header.env (mentioned c.type.getUsedConstants (types header.env))
      let x := x.declaration "axiom" c.name c.levelParams [c.type]
      match ← spelt header c, ← resolutionsOf header c with
      | .ok (text, explicit), .ok resolved => return .mkObj [("name", .str (shown c.name)), ("spelt", .str text),
          ("explicit", .str explicit), ("resolved", list resolved), ("export", x.json)]
      | .error e, _ | _, .error e => return failure "statement" e

/-- The state without a heartbeat limit: a complete proof may need the budgets of all its tactics together. -/
def untimed (s : Command.State) : Command.State := match s.scopes with
  | scope :: rest => { s with scopes := { scope with opts := scope.opts.setNat `maxHeartbeats 0 } :: rest }
  | [] => s

/-- Compile a theorem with its proof, given as text, after a header; export it with all that it depends on outside the imports. -/
def Repl.compile (s : Repl) (j : Json) : BaseIO Json := do
  match s.headers[nat j "header"]? with
  | none => return failure "request" "no such header"
  | some header =>
    let header ← without header j
    let (stxs, failed, state) ← (Source.of "<proof>" (str j "text") (untimed header)).all
    if failed.size > 0 then return .mkObj [("failed", .str "compile"), ("errors", .arr failed)] else
    match stxs.toList with
    | [stx] =>
      if stx[1].getKind != ``Parser.Command.theorem then return failure "compile" "the text is not one theorem" else
      let n := fullName (scopeOf header) (str j "name")
      match state.env.find? n with
      | none => return failure "compile" "the text declares no such theorem"
      | some _ => return .mkObj [("export", (({} : Export).constants state.env [n]).json)]
    | _ => return failure "compile" "the text is more than one command"

/-! ## The library -/

/-- True if a theorem of this name is generated by Lean, is private, or cannot be referred to by its printed name. -/
def automatic (n : Name) : Bool :=
  let short := match n with | .str _ s => s | _ => "_"
  n.isInternal || isPrivateName n || n.hasMacroScopes || (shown n).toName != n ||
    ["injEq", "inj", "sizeOf_spec", "noConfusion", "congr_simp", "hcongr", "eq_def"].contains short ||
    "eq_".isPrefixOf short || "match_".isPrefixOf short || "proof_".isPrefixOf short

/-- Rows of theorems with their statements, and with trees if `trees` is true. -/
partial def rows (r : Cells) (trees : Bool) (l : List Name) : BaseIO (List Json) := do
  match l with
  | [] => return []
  | n :: l =>
    let rest ← rows r trees l
    if automatic n then return rest else
    match ← caught (do
        let (type, text) ← r.run (do
          let c ← getConstInfo n
          let text ← ppExpr c.type
          return (c.type, text))
        let more ← match trees with
          | true => pure [("tree", ← tree r {} type)]
          | false => pure []
        return (text, more)) with
    | .ok (text, more) =>
      return .mkObj (("name", .str (shown n)) :: ("statement", .str (text.pretty 100)) :: more) :: rest
    | .error _ => return rest

/-- The public theorems of the library module with this index; with trees, if the request has `trees`. -/
def Repl.library (s : Repl) (j : Json) : BaseIO Json := do
  let m := nat j "module"
  match s.env.header.moduleNames[m]? with
  | none => return failure "request" "no such module"
  | some name =>
    let r ← Cells.of { header := "" } 0 { env := s.env } {} {}
    return .mkObj [("module", .str (shown name)), ("theorems", list (← rows r (nat j "trees" == 1) (theoremsOf s.env m)))]

/-! ## The loop -/

def modules (l : List String) (found : Array Lean.Import := #[]) : Array Lean.Import := match l with
  | [] => found
  | m :: l => modules l (found.push { module := m.toName })

def Repl.answer (s : Repl) (j : Json) : BaseIO (Repl × Json) := do
  match str j "do" with
  | "step" => s.step j
  | "finish" => return (s, ← s.finish j)
  | "start" => s.begin j
  | "drop" => return (s.drop (arr j "states"), .mkObj [("ok", .bool true)])
  | "header" => s.header (str j "text")
  | "state" => return (s, ← s.state j)
  | "compile" => return (s, ← s.compile j)
  | "replay" => return (s, ← s.replay j)
  | "library" => return (s, ← s.library j)
  | "split" => return (s, ← s.split j)
  | "written" => return (s, ← s.written j)
  | "tree" => return (s, ← s.tree j)
  | "equal" => return (s, ← s.equal j)
  | other => return (s, failure "request" ("no such request: " ++ other))

def stamped (secret j : Json) : String := match secret with | .str s => s ++ " " ++ j.compress ++ "\n" | _ => "\n"

partial def serving (input output : IO.FS.Stream) (secrets : List Json) (s : Repl) : IO Unit := do
  match secrets with
  | [] => return ()
  | secret :: secrets =>
    let line ← input.getLine
    if line.isEmpty then return ()
    let (s, j) ← match Json.parse line with
      | .error e => pure (s, failure "request" e)
      | .ok j => s.answer j
    output.putStr (stamped secret j)
    output.flush
    serving input output secrets s

/-- Import the modules, after Init as in every file, and answer requests. -/
def serve (mods : List String) : IO Unit := do
  let input ← IO.getStdin
  let output ← IO.getStdout
  -- otherwise a misspelt type would become a variable
  let options : Options := (({} : Options).setBool `Elab.async false).setBool `autoImplicit false
  let empty := Command.mkState (← mkEmptyEnvironment) {} options
  let (env, messages) ← processHeaderCore 0 (modules ("Init" :: mods)) false options {} (Source.of "<imports>" "" empty).context
    (leakEnv := true) (mainModule := `Proof)
  if messages.hasErrors then throw (IO.userError ("cannot import " ++ " ".intercalate mods))
  match Json.parse (← input.getLine) with
  | .ok (.arr secrets) => match secrets.toList with
    | first :: secrets =>
      let hello : Json := .mkObj [("version", .str Lean.versionString), ("modules", int env.header.moduleNames.size)]
      output.putStr (stamped first hello)
      output.flush
      serving input output secrets { env, options }
    | [] => return ()
  | _ => throw (IO.userError "the first line must be a list of secrets")

end Monge

run_cmd Monge.expose
