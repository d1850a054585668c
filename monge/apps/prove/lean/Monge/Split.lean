module
public meta import Lean.Elab.Frontend
public import Lean.Elab.Frontend
public meta import Monge.Elab

/-!
A user's text, split by Lean's parser: which of its commands are theorems, and where each theorem's name, signature and proof
stand. Positions are offsets in bytes of the text's UTF-8.
-/

open Lean Meta Elab
set_option compiler.extract_closed false
set_option linter.unusedVariables false

public meta section
namespace Monge

mutual
/-- The first part of these kinds, from the left, the outer before the inner. -/
partial def within (kinds : List Name) (stx : Syntax) : Option Syntax :=
  if kinds.contains stx.getKind then some stx else withinAny kinds stx.getArgs

partial def withinAny (kinds : List Name) (parts : Array Syntax) (i : Nat := 0) : Option Syntax :=
  match parts[i]? with
  | none => none
  | some part => match within kinds part with
    | some found => some found
    | none => withinAny kinds parts (i + 1)
end

def range (stx : Syntax) : Json := match stx.getPos?, stx.getTailPos? with
  | some a, some b => list [int a.byteIdx, int b.byteIdx]
  | _, _ => .null

def theorems : List Name := [``Parser.Command.theorem, ``Parser.Command.example, `lemma]
def proofs : List Name :=
  [``Parser.Command.declValSimple, ``Parser.Command.declValEqns, ``Parser.Command.whereStructInst]
def signatures : List Name := [``Parser.Command.declSig, ``Parser.Command.optDeclSig]
def gaps : List Name := [``Parser.Term.sorry, ``Parser.Tactic.tacticSorry, ``Parser.Tactic.tacticAdmit]
def blocks : List Name := [``Parser.Term.byTactic, ``Parser.Term.byTactic']
def sequences : List Name := [``Parser.Tactic.tacticSeq]

/-- A declaration without its modifiers, and with them, if it is a theorem, a lemma or an example. -/
def theoremOf (stx : Syntax) : Option Syntax :=
  if stx.getKind == `lemma then some stx
  else if stx.getKind == ``Parser.Command.declaration && theorems.contains stx[1].getKind then some stx[1]
  else none

/-- A command without the commands that stand before it with an `in`, and where these `in` stand. -/
partial def bare (stx : Syntax) (ins : List Json := []) : Syntax × List Json :=
  if stx.getKind == ``Parser.Command.in then bare stx[2] (range stx[1] :: ins) else (stx, ins)

/-- A proof as a tactic: the tactics after `by`, or a term; nothing of one that has equations, `where` or `termination_by`. -/
def tacticOf (value : Syntax) (rest : List (String × Json)) : List (String × Json) :=
  let body := value[1]
  if value.getKind != ``Parser.Command.declValSimple || body.getTailPos? != value.getTailPos? then rest else
  match within blocks body with
  | some block =>
    if block.getPos? != body.getPos? || block.getTailPos? != body.getTailPos? then ("term", range body) :: rest else
    match within sequences block with | some tactics => ("tactics", range tactics) :: rest | none => rest
  | none => ("term", range body) :: rest

/-- Where the parts of a theorem stand. -/
def partsOf (stx : Syntax) : Option (List (String × Json)) :=
  let (inner, ins) := bare stx
  match theoremOf inner with
  | none => none
  | some declared =>
    let sorry_ := ("sorry", Json.bool ((match withinAny proofs declared.getArgs with
      | some value => (within gaps value).isSome
      | none => true)))
    let parts := [("range", range stx), ("declaration", range inner), ("in", list ins), sorry_]
    let parts := match withinAny proofs declared.getArgs with
      | some value => ("proof", range value) :: tacticOf value parts
      | none => parts
    let parts := match withinAny signatures declared.getArgs with
      | some signature => ("signature", range signature) :: parts
      | none => parts
    let parts := match inner[0][0][0].getKind == ``Parser.Command.docComment with
      | true => ("doc", range inner[0][0][0]) :: parts
      | false => parts
    match declared.getKind == ``Parser.Command.example, within [``Parser.Command.declId] declared with
    | false, some id => some (("name", range id[0]) :: parts)
    | _, _ => some parts

/-- Why the text of a command is not searched although it seems to state a theorem. -/
def passedOver (stx : Syntax) : Option String :=
  if (within theorems stx).isSome then some "theorems inside of another command are not read" else none

partial def placed (ms : List Message) (found : Array Json := #[]) : BaseIO (Array Json) := do
  match ms with
  | [] => return found
  | m :: ms => match m.severity with
    | .error =>
      let text ← m.data.toString
      placed ms (found.push (list [int m.pos.line, int m.pos.column, .str text.trimAscii.toString]))
    | _ => placed ms found

structure Splitting where
  theorems : Array Json := #[]
  wrong : Array Json := #[]
  /-- Where a command began that does not parse, and why: it ends where the next begins. -/
  broken : Option (Nat × Array Json) := none

def Splitting.flaw (x : Splitting) (kind : String) (a b : Nat) (messages : Array Json) : Splitting :=
  { x with wrong := x.wrong.push (.mkObj [("kind", .str kind), ("range", list [int a, int b]), ("messages", .arr messages)]) }

/-- At the place of the next command: the one before ends here if it did not parse. -/
def Splitting.at_ (x : Splitting) (start : Nat) : Splitting := match x.broken with
  | some (a, messages) => { x.flaw "syntax" a start messages with broken := none }
  | none => x

def Splitting.add (x : Splitting) (stx : Syntax) (start stop : Nat) : Splitting := match partsOf stx with
  | some parts => { x with theorems := x.theorems.push (.mkObj parts) }
  | none => match passedOver stx with
    | some why => x.flaw "passed over" start stop #[list [int 0, int 0, .str why]]
    | none => x

/-- Parse commands to the end of the text. A command is elaborated before the next is parsed, for it may change the syntax; a
theorem only if the errors of a complete file are wanted, for it changes none. -/
partial def Source.split (s : Source) (complete : Bool) (parsed : Parser.ModuleParserState := s.first)
    (x : Splitting := {}) : BaseIO Splitting := do
  let start := parsed.pos.byteIdx
  let (stx, parsed, messages) := Parser.parseCommand s.context s.place parsed {}
  let failed ← placed messages.toList
  let start := match stx.getPos? with | some p => p.byteIdx | none => start
  let x := x.at_ start
  if Parser.isTerminalCommand stx then
    let last := s.context.inputString.utf8ByteSize
    let x := if failed.size > 0 then x.flaw "syntax" start last failed else x
    if stx.getKind == ``Parser.Command.eoi then return x
    return x.flaw "end" start last #[list [int 0, int 0, .str "what follows #exit or an import is not read"]]
  if failed.size > 0 then s.split complete parsed { x with broken := some (start, failed) } else
  let stop := parsed.pos.byteIdx
  let x := x.add stx start stop
  if !complete && (partsOf stx).isSome then s.split complete parsed x else
  let (state, messages, thrown) ← s.command stx parsed.pos
  let failed ← if !complete then pure #[] else placed messages (match thrown with
    | some e => #[list [int 0, int 0, .str e]]
    | none => #[])
  let x := if failed.size > 0 then x.flaw "elaboration" start stop failed else x
  Source.split { s with state } complete parsed x

/-- The theorems of a text, with the places of their parts, and what in it is wrong. -/
def Repl.split (s : Repl) (j : Json) : BaseIO Json := do
  let start ← s.start
  let complete := match j.getObjVal? "complete" with | .ok (.bool b) => b | _ => false
  let x ← (Source.of "<text>" (str j "text") start).split complete
  return .mkObj [("theorems", .arr x.theorems), ("wrong", .arr x.wrong)]

end Monge

run_cmd Monge.expose
