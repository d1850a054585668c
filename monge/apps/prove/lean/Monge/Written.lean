module
public meta import Lean.Elab.Frontend
public import Lean.Elab.Frontend
public meta import Monge.Elab
public meta import Monge.Stated
public meta import Monge.Split

/-!
Flattens a written proof into steps. Where possible, the branches of `induction`, `cases`, `match` and `if`, and the proof of a
`have` with several tactics, become holes `?_`, and their tactics become steps of their own.
-/

open Lean Meta Elab
set_option compiler.extract_closed false
set_option linter.unusedVariables false

public meta section
namespace Monge

/-- A step: a tactic's syntax in the written proof, and replacements (start, end, new text) in its text. -/
structure Written where
  syntax_ : Syntax
  edits : List Json := []

/-- The replacement of a part of the text, prepended to `rest`. -/
def edit (stx : Syntax) (text : String) (rest : List Json := []) : List Json := match stx.getPos?, stx.getTailPos? with
  | some a, some b => list [int a.byteIdx, int b.byteIdx, .str text] :: rest
  | _, _ => rest

partial def evens (l : List Syntax) : List Syntax := match l with
  | x :: _ :: rest => x :: evens rest
  | l => l

/-- The tactics of a sequence. -/
def tacticsOf (stx : Syntax) : List Syntax :=
  let inner := if stx.getKind == ``Parser.Tactic.tacticSeq then stx[0] else stx
  if inner.getKind == ``Parser.Tactic.tacticSeqBracketed then evens inner[1].getArgs.toList
  else if inner.getKind == ``Parser.Tactic.tacticSeq1Indented then evens inner[0].getArgs.toList
  else [inner]

def branching : List Name := [``Parser.Tactic.induction, ``Parser.Tactic.cases, `Lean.Parser.Tactic.funInduction,
  `Lean.Parser.Tactic.funCases]
def conditionals : List Name := [`Lean.Parser.Tactic.tacIfThenElse, `Lean.Parser.Tactic.tacDepIfThenElse, `tacIfThenElse,
  `tacDepIfThenElse]

/-- All nodes of one of these kinds that are not inside another one. -/
partial def outermost (kinds : List Name) (parts : List Syntax) (rest : List Syntax := []) : List Syntax := match parts with
  | [] => rest
  | stx :: parts =>
    if kinds.contains stx.getKind then stx :: outermost kinds parts rest
    else outermost kinds stx.getArgs.toList (outermost kinds parts rest)

/-- The tactics of each branch; none if a branch has no tactics or stands for several goals. -/
partial def branches (alternatives : List Syntax) : Option (List Syntax) := match alternatives with
  | [] => some []
  | alternative :: rest =>
    let several := match outermost [``Parser.Tactic.inductionAltLHS] [alternative[0]] with
      | [] => false
      | [left] => left[1].getKind == ``Parser.Term.hole
      | _ => true
    let several := several || match alternative[1].getArgs.toList with | _ :: _ :: _ => alternative.getKind == ``Parser.Term.matchAlt | _ => false
    match several, within sequences alternative, branches rest with
    | false, some tactics, some others => some (tactics :: others)
    | _, _, _ => none

/-- The sequences of tactics inside a tactic that can become steps of their own, in the order of their goals. -/
def branchesOf (stx : Syntax) : Option (List Syntax) :=
  if branching.contains stx.getKind then
    match within [``Parser.Tactic.inductionAlts] stx with
    | some alts => match alts[1].getArgs.toList with
      | [] => branches alts[2].getArgs.toList
      | _ => none
    | none => none
  else if stx.getKind == ``Parser.Tactic.match then branches (outermost [``Parser.Term.matchAlt] [stx])
  else if conditionals.contains stx.getKind then some (outermost sequences stx.getArgs.toList)
  else none

/-- The block `by TACTICS` of `have NAME : TYPE := by TACTICS`, and its tactics; none if there is only one. -/
def proofOfHave (stx : Syntax) : Option (Syntax × Syntax) :=
  if stx.getKind != ``Parser.Tactic.tacticHave__ then none else
  match outermost blocks [stx] with
  | [block] =>
    if block.getTailPos? != stx.getTailPos? then none else
    match within sequences block with
    | some tactics => match tacticsOf tactics with
      | _ :: _ :: _ => some (block, tactics)
      | _ => none
    | none => none
  | _ => none

partial def holes (l : List Syntax) : List Json := match l with | [] => [] | stx :: l => edit stx "?_" (holes l)

/-- The node of a tactic: that of the same syntax at the same position. -/
def isAt (stx : Syntax) : Info → Option TacticInfo
  | .ofTacticInfo i =>
    if i.stx.getKind == stx.getKind && i.stx.getPos? == stx.getPos? && i.stx.getTailPos? == stx.getTailPos? then some i else none
  | _ => none

/-- True if Lean recorded a single goal before a tactic. -/
def alone (trees : PersistentArray InfoTree) (stx : Syntax) : Bool := match firstInfo (isAt stx) trees with
  | some i => match i.goalsBefore with
    | [_] => true
    | _ => false
  | none => false

mutual
/-- The steps of a sequence of tactics, prepended to `rest`. -/
partial def steps (trees : PersistentArray InfoTree) (tactics : List Syntax) (rest : List Written) : List Written := match tactics with
  | [] => rest
  | stx :: tactics =>
    if stx.getKind == ``cdot then steps trees (tacticsOf stx[1]) (steps trees tactics rest)
    else if stx.getKind == ``Parser.Tactic.paren then steps trees (tacticsOf stx[1]) (steps trees tactics rest)
    else if stx.getKind == ``Parser.Tactic.case then match stx[1].getArgs.toList with
      | [_] => selected trees stx "case'" (steps trees tactics rest)
      | _ => { syntax_ := stx } :: steps trees tactics rest
    else if stx.getKind == ``Parser.Tactic.«tacticNext_=>_» then selected trees stx "case' _" (steps trees tactics rest)
    else match branchesOf stx, proofOfHave stx, alone trees stx with
    | some parts, _, _ => { syntax_ := stx, edits := holes parts } :: stepsOfAll trees parts (steps trees tactics rest)
    | _, some (block, proof), true =>
      -- the goal of `have` comes after the main one
      { syntax_ := stx, edits := edit block "?_" } :: steps trees tactics (steps trees (tacticsOf proof) rest)
    | _, _, _ => { syntax_ := stx } :: steps trees tactics rest

/-- A step that selects a goal and names its variables, and the steps that prove it. -/
partial def selected (trees : PersistentArray InfoTree) (stx : Syntax) (keyword : String) (rest : List Written) : List Written :=
  { syntax_ := stx, edits := edit stx[0] keyword (edit stx[3] "skip") } :: steps trees (tacticsOf stx[3]) rest

partial def stepsOfAll (trees : PersistentArray InfoTree) (parts : List Syntax) (rest : List Written) : List Written := match parts with
  | [] => rest
  | part :: parts => steps trees (tacticsOf part) (stepsOfAll trees parts rest)
end

/-- The steps as JSON, each with the goals before it that Lean recorded; no goals where it recorded none. -/
partial def described (state : Command.State) (l : List Written) : BaseIO (List Json) := do
  match l with
  | [] => return []
  | w :: l =>
    let fields := [("range", range w.syntax_), ("edits", list w.edits)]
    let fields ← match firstInfo (isAt w.syntax_) state.infoState.trees with
      | none => pure fields
      | some i =>
        let r ← Cells.of (scopeOf state) 0 { env := state.env } { mctx := i.mctxBefore } {}
        match ← caught (goals r i.goalsBefore) with
        | .ok js => pure (("before", list js) :: fields)
        | .error _ => pure fields
    let rest ← described state l
    return .mkObj fields :: rest

/-- Elaborate a theorem with its written proof, after a header, and flatten the proof into steps. -/
def Repl.written (s : Repl) (j : Json) : BaseIO Json := do
  match s.headers[nat j "header"]? with
  | none => return failure "request" "no such header"
  | some header =>
    let (stxs, failed, state) ← (Source.of "<proof>" (str j "text") header).all
    if failed.size > 0 then return .mkObj [("failed", .str "compile"), ("errors", .arr failed)] else
    match stxs.toList with
    | [stx] =>
      match (match withinAny proofs stx.getArgs with | some value => within blocks value | none => none) with
      | some block => match within sequences block with
        | some tactics =>
          let found ← described state (steps state.infoState.trees (tacticsOf tactics) [])
          return .mkObj [("steps", list found)]
        | none => return failure "compile" "the proof has no tactics"
      | none => return failure "compile" "the proof has no tactics"
    | _ => return failure "compile" "the text is more than one command"

end Monge

run_cmd Monge.expose
