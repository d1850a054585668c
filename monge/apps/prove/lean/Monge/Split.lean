module
public meta import Lean.Elab.Frontend
public import Lean.Elab.Frontend
public meta import Monge.Elab

/-!
Splits a user's text with Lean's parser: finds its theorems, and the positions of each theorem's name, signature and proof.
Positions are byte offsets in the UTF-8 text.
-/

open Lean Meta Elab
set_option compiler.extract_closed false
set_option linter.unusedVariables false

public meta section
namespace Monge

mutual
/-- The first node of one of these kinds, in pre-order. -/
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

/-- The declaration, without its modifiers, if the command is a theorem, a lemma or an example. -/
def theoremOf (stx : Syntax) : Option Syntax :=
  if stx.getKind == `lemma then some stx
  else if stx.getKind == ``Parser.Command.declaration && theorems.contains stx[1].getKind then some stx[1]
  else none

/-- The command after all prefixes `... in`, and the positions of these `in` keywords. -/
partial def bare (stx : Syntax) (ins : List Json := []) : Syntax × List Json :=
  if stx.getKind == ``Parser.Command.in then bare stx[2] (range stx[1] :: ins) else (stx, ins)

/-- Position of a proof's tactics after `by`, or of its term, prepended to `rest`; no position for a proof with equations,
`where` or `termination_by`. -/
def tacticOf (value : Syntax) (rest : List (String × Json)) : List (String × Json) :=
  let body := value[1]
  if value.getKind != ``Parser.Command.declValSimple || body.getTailPos? != value.getTailPos? then rest else
  match within blocks body with
  | some block =>
    if block.getPos? != body.getPos? || block.getTailPos? != body.getTailPos? then ("term", range body) :: rest else
    match within sequences block with | some tactics => ("tactics", range tactics) :: rest | none => rest
  | none => ("term", range body) :: rest

/-- Positions of the parts of a theorem; none if the command is not one. -/
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

/-- The reason why a command that contains a theorem is skipped; none if it contains none. -/
def passedOver (stx : Syntax) : Option String :=
  if (within theorems stx).isSome then some "theorems inside another command are not read" else none

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
  /-- Start and errors of the last command if it does not parse. It ends where the next command begins. -/
  broken : Option (Nat × Array Json) := none

def Splitting.flaw (x : Splitting) (kind : String) (a b : Nat) (messages : Array Json) : Splitting :=
  { x with wrong := x.wrong.push (.mkObj [("kind", .str kind), ("range", list [int a, int b]), ("messages", .arr messages)]) }

/-- Called at the start of each command. If the previous command did not parse, it is recorded as ending here. -/
def Splitting.at_ (x : Splitting) (start : Nat) : Splitting := match x.broken with
  | some (a, messages) => { x.flaw "syntax" a start messages with broken := none }
  | none => x

def Splitting.add (x : Splitting) (stx : Syntax) (start stop : Nat) : Splitting := match partsOf stx with
  | some parts => { x with theorems := x.theorems.push (.mkObj parts) }
  | none => match passedOver stx with
    | some why => x.flaw "passed over" start stop #[list [int 0, int 0, .str why]]
    | none => x

/-- Parse commands to the end of the text. Each command is elaborated before the next is parsed, since it may change the syntax.
Theorems do not change the syntax and are elaborated only for a complete file, to report their errors. -/
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

/-- The theorems of a text, with the positions of their parts, and the errors in the text. -/
def Repl.split (s : Repl) (j : Json) : BaseIO Json := do
  let start ← s.start
  let complete := match j.getObjVal? "complete" with | .ok (.bool b) => b | _ => false
  let x ← (Source.of "<text>" (str j "text") start).split complete
  return .mkObj [("theorems", .arr x.theorems), ("wrong", .arr x.wrong)]

end Monge

run_cmd Monge.expose
