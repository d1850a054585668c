inductive B | no | yes
inductive N | z | s (n : N)
inductive Row (A : Type) | nil | cons (x : A) (l : Row A)
/-- Boolean expressions in variables. -/
inductive Expr (V : Type) | lit (b : B) | var (x : V) | neg (a : Expr V) | conj (a b : Expr V) | disj (a b : Expr V)
/-- Instructions of a machine with a stack of truth values. -/
inductive Instr (V : Type) | push (b : B) | load (x : V) | negate | both | either
namespace Expr
open B N Row Instr

def not : B → B
  | no => yes
  | yes => no

def and : B → B → B
  | yes, b => b
  | no, _ => no

def or : B → B → B
  | yes, _ => yes
  | no, b => b

def xor : B → B → B
  | yes, b => not b
  | no, b => b

def plus : N → N → N
  | a, z => a
  | a, s b => s (plus a b)

def app {A : Type} : Row A → Row A → Row A
  | nil, m => m
  | cons x l, m => cons x (app l m)

instance : Add N := ⟨plus⟩
instance {A : Type} : Append (Row A) := ⟨app⟩

def len {A : Type} : Row A → N
  | nil => z
  | cons _ l => s (len l)

/-- The value of an expression when the variables have values. -/
def eval {V : Type} (v : V → B) : Expr V → B
  | lit b => b
  | var x => v x
  | neg a => not (eval v a)
  | conj a b => and (eval v a) (eval v b)
  | disj a b => or (eval v a) (eval v b)

def size {V : Type} : Expr V → N
  | lit _ => s z
  | var _ => s z
  | neg a => s (size a)
  | conj a b => s (size a + size b)
  | disj a b => s (size a + size b)

def subst {V W : Type} (f : V → Expr W) : Expr V → Expr W
  | lit b => lit b
  | var x => f x
  | neg a => neg (subst f a)
  | conj a b => conj (subst f a) (subst f b)
  | disj a b => disj (subst f a) (subst f b)

/-- Conjunctions and disjunctions exchanged, and the two truth values. -/
def dual {V : Type} : Expr V → Expr V
  | lit b => lit (not b)
  | var x => var x
  | neg a => neg (dual a)
  | conj a b => disj (dual a) (dual b)
  | disj a b => conj (dual a) (dual b)

def mkNeg {V : Type} : Expr V → Expr V
  | lit b => lit (not b)
  | neg a => a
  | a => neg a

def mkConj {V : Type} : Expr V → Expr V → Expr V
  | lit no, _ => lit no
  | lit yes, b => b
  | a, b => conj a b

def mkDisj {V : Type} : Expr V → Expr V → Expr V
  | lit no, b => b
  | lit yes, _ => lit yes
  | a, b => disj a b

/-- Computes what is constant, from the inside. -/
def fold {V : Type} : Expr V → Expr V
  | lit b => lit b
  | var x => var x
  | neg a => mkNeg (fold a)
  | conj a b => mkConj (fold a) (fold b)
  | disj a b => mkDisj (fold a) (fold b)

/-- The expression for yes, its negation for no, with negations at variables only. -/
def nnf {V : Type} : B → Expr V → Expr V
  | yes, lit b => lit b
  | no, lit b => lit (not b)
  | yes, var x => var x
  | no, var x => neg (var x)
  | b, neg a => nnf (not b) a
  | yes, conj a b => conj (nnf yes a) (nnf yes b)
  | no, conj a b => disj (nnf no a) (nnf no b)
  | yes, disj a b => disj (nnf yes a) (nnf yes b)
  | no, disj a b => conj (nnf no a) (nnf no b)

inductive Occurs {V : Type} (x : V) : Expr V → Prop
  | var : Occurs x (var x)
  | neg {a : Expr V} : Occurs x a → Occurs x (neg a)
  | conjLeft {a b : Expr V} : Occurs x a → Occurs x (conj a b)
  | conjRight {a b : Expr V} : Occurs x b → Occurs x (conj a b)
  | disjLeft {a b : Expr V} : Occurs x a → Occurs x (disj a b)
  | disjRight {a b : Expr V} : Occurs x b → Occurs x (disj a b)

/-- Without negation. -/
inductive Positive {V : Type} : Expr V → Prop
  | lit (b : B) : Positive (lit b)
  | var (x : V) : Positive (var x)
  | conj {a b : Expr V} : Positive a → Positive b → Positive (conj a b)
  | disj {a b : Expr V} : Positive a → Positive b → Positive (disj a b)

/-- With negation at variables only. -/
inductive Normal {V : Type} : Expr V → Prop
  | lit (b : B) : Normal (lit b)
  | var (x : V) : Normal (var x)
  | neg (x : V) : Normal (neg (var x))
  | conj {a b : Expr V} : Normal a → Normal b → Normal (conj a b)
  | disj {a b : Expr V} : Normal a → Normal b → Normal (disj a b)

/-- What an instruction makes of the stack; it does nothing where the stack is too short. -/
def step {V : Type} (v : V → B) : Instr V → Row B → Row B
  | push b, st => cons b st
  | load x, st => cons (v x) st
  | negate, nil => nil
  | negate, cons a st => cons (not a) st
  | both, cons b (cons a st) => cons (and a b) st
  | both, st => st
  | either, cons b (cons a st) => cons (or a b) st
  | either, st => st

def run {V : Type} (v : V → B) : Row (Instr V) → Row B → Row B
  | nil, st => st
  | cons i c, st => run v c (step v i st)

def compile {V : Type} : Expr V → Row (Instr V)
  | lit b => cons (push b) nil
  | var x => cons (load x) nil
  | neg a => compile a ++ cons negate nil
  | conj a b => compile a ++ (compile b ++ cons both nil)
  | disj a b => compile a ++ (compile b ++ cons either nil)

/-- The code of an expression in front of other code. -/
def onto {V : Type} : Expr V → Row (Instr V) → Row (Instr V)
  | lit b, c => cons (push b) c
  | var x, c => cons (load x) c
  | neg a, c => onto a (cons negate c)
  | conj a b, c => onto a (onto b (cons both c))
  | disj a b, c => onto a (onto b (cons either c))

/-- Runs code on expressions instead of values. -/
def build {V : Type} : Row (Instr V) → Row (Expr V) → Row (Expr V)
  | nil, st => st
  | cons (push b) c, st => build c (cons (lit b) st)
  | cons (load x) c, st => build c (cons (var x) st)
  | cons negate c, cons a st => build c (cons (neg a) st)
  | cons both c, cons b (cons a st) => build c (cons (conj a b) st)
  | cons either c, cons b (cons a st) => build c (cons (disj a b) st)
  | cons _ c, st => build c st

/-- Puts an instruction in front of code, unless it is a negation that meets another. -/
def mkCons {V : Type} : Instr V → Row (Instr V) → Row (Instr V)
  | negate, cons negate c => c
  | i, c => cons i c

def peephole {V : Type} : Row (Instr V) → Row (Instr V)
  | nil => nil
  | cons i c => mkCons i (peephole c)

theorem plus_s (a b : N) : a + s b = s (a + b) := rfl
theorem s_plus (a b : N) : s a + b = s (a + b) := by
  induction b with
  | z => rfl
  | s n ih => rw [plus_s, ih, plus_s]
theorem plus_assoc (a b c : N) : a + b + c = a + (b + c) := by
  induction c with
  | z => rfl
  | s n ih => rw [plus_s, ih, plus_s, plus_s]
theorem cons_app {A : Type} (x : A) (l m : Row A) : cons x l ++ m = cons x (l ++ m) := rfl
theorem app_assoc {A : Type} (l m k : Row A) : l ++ m ++ k = l ++ (m ++ k) := by
  induction l with
  | nil => rfl
  | cons x l ih => rw [cons_app, cons_app, ih, cons_app]

-- theorems

/-- A truth value negated twice is itself. By cases. -/
theorem not_not (a : B) : not (not a) = a := by
  cases a <;> rfl

/-- Conjunction of truth values is commutative. By cases on both. -/
theorem and_comm (a b : B) : and a b = and b a := by
  cases a <;> cases b <;> rfl

/-- De Morgan: a conjunction is false exactly when one of its parts is, so its negation is the disjunction of the
negations. By cases. -/
theorem not_and (a b : B) : not (and a b) = or (not a) (not b) := by
  cases a <;> rfl

/-- Conjunction distributes over disjunction. By cases on the first truth value. -/
theorem and_or (a b c : B) : and a (or b c) = or (and a b) (and a c) := by
  cases a <;> rfl

/-- Absorption: a disjunction of a truth value with a conjunction that contains it is the truth value. By cases. -/
theorem or_and_self (a b : B) : or a (and a b) = a := by
  cases a <;> rfl

/-- Exclusive or is associative. By cases on the first two truth values and, where negations meet, on the third. -/
theorem xor_assoc (a b c : B) : xor (xor a b) c = xor a (xor b c) := by
  cases a <;> cases b <;> cases c <;> rfl

/-- The exclusive or of two truth values is no exactly if they are equal. By cases on both. -/
theorem xor_eq_no_iff (a b : B) : xor a b = no ↔ a = b := by
  cases a <;> cases b
  · exact ⟨fun _ => rfl, fun _ => rfl⟩
  · exact ⟨fun h => (by cases h), fun h => (by cases h)⟩
  · exact ⟨fun h => (by cases h), fun h => (by cases h)⟩
  · exact ⟨fun _ => rfl, fun _ => rfl⟩

/-- A conjunction is true exactly if both its parts are. By cases on the first. -/
theorem and_eq_yes_iff (a b : B) : and a b = yes ↔ a = yes ∧ b = yes := by
  cases a with
  | no => exact ⟨fun h => (by cases h), fun h => h.1⟩
  | yes => exact ⟨fun h => ⟨rfl, h⟩, fun h => h.2⟩

/-- No truth value is its own negation. By cases. -/
theorem not_ne_self (a : B) : not a ≠ a := by
  cases a with
  | no => intro h; cases h
  | yes => intro h; cases h

/-- Any function on the truth values, applied three times, has the same effect as applied once. By cases on its two
values and on the argument. -/
theorem three_times (f : B → B) (a : B) : f (f (f a)) = f a := by
  cases hn : f no <;> cases hy : f yes <;> cases a <;> simp only [hn, hy]

/-- Shannon's expansion: a function of a truth value is put together from its values at yes and at no. By cases on the
argument. -/
theorem shannon (f : B → B) (a : B) : f a = or (and a (f yes)) (and (not a) (f no)) := by
  cases a with
  | no => rfl
  | yes => show f yes = or (f yes) no; cases f yes <;> rfl

/-- Values of the variables that agree everywhere give an expression the same value. By induction on the expression. -/
theorem eval_congr {V : Type} (v w : V → B) (h : ∀ x, v x = w x) (a : Expr V) : eval v a = eval w a := by
  induction a with
  | lit b => rfl
  | var x => exact h x
  | neg a ih => rw [eval, ih, eval]
  | conj a b iha ihb => rw [eval, iha, ihb, eval]
  | disj a b iha ihb => rw [eval, iha, ihb, eval]

/-- Substituting each variable by itself changes no expression. By induction. -/
theorem subst_var {V : Type} (a : Expr V) : subst var a = a := by
  induction a with
  | lit b => rfl
  | var x => rfl
  | neg a ih => rw [subst, ih]
  | conj a b iha ihb => rw [subst, iha, ihb]
  | disj a b iha ihb => rw [subst, iha, ihb]

/-- Two substitutions in turn are one, which substitutes in what the first puts in place of a variable. By induction on
the expression. -/
theorem subst_subst {V W U : Type} (f : V → Expr W) (g : W → Expr U) (a : Expr V) :
    subst g (subst f a) = subst (fun x => subst g (f x)) a := by
  induction a with
  | lit b => rfl
  | var x => rfl
  | neg a ih => rw [subst, subst, ih, subst]
  | conj a b iha ihb => rw [subst, subst, iha, ihb, subst]
  | disj a b iha ihb => rw [subst, subst, iha, ihb, subst]

/-- The value of an expression after a substitution is its value when each variable has the value of what was put in its
place. By induction. -/
theorem eval_subst {V W : Type} (f : V → Expr W) (v : W → B) (a : Expr V) :
    eval v (subst f a) = eval (fun x => eval v (f x)) a := by
  induction a with
  | lit b => rfl
  | var x => rfl
  | neg a ih => rw [subst, eval, ih, eval]
  | conj a b iha ihb => rw [subst, eval, iha, ihb, eval]
  | disj a b iha ihb => rw [subst, eval, iha, ihb, eval]

/-- The dual of the dual of an expression is the expression. By induction; truth values are negated twice. -/
theorem dual_dual {V : Type} (a : Expr V) : dual (dual a) = a := by
  induction a with
  | lit b => cases b <;> rfl
  | var x => rfl
  | neg a ih => rw [dual, dual, ih]
  | conj a b iha ihb => rw [dual, dual, iha, ihb]
  | disj a b iha ihb => rw [dual, dual, iha, ihb]

/-- An expression and its dual are equally large. By induction. -/
theorem size_dual {V : Type} (a : Expr V) : size (dual a) = size a := by
  induction a with
  | lit b => rfl
  | var x => rfl
  | neg a ih => rw [dual, size, ih, size]
  | conj a b iha ihb => simp only [dual, size, iha, ihb]
  | disj a b iha ihb => simp only [dual, size, iha, ihb]

/-- The negation that simplifies constants and double negations has the value of a negation. By cases on what is
negated. -/
theorem eval_mkNeg {V : Type} (v : V → B) (a : Expr V) : eval v (mkNeg a) = not (eval v a) := by
  cases a with
  | lit b => rfl
  | var x => rfl
  | neg a => show eval v a = not (not (eval v a)); cases eval v a <;> rfl
  | conj a b => rfl
  | disj a b => rfl

/-- The conjunction that drops constants has the value of a conjunction. By cases on its first part. -/
theorem eval_mkConj {V : Type} (v : V → B) (a b : Expr V) : eval v (mkConj a b) = and (eval v a) (eval v b) := by
  cases a with
  | lit c => cases c <;> rfl
  | var x => rfl
  | neg a => rfl
  | conj a c => rfl
  | disj a c => rfl

/-- Running one code and then another is running the code that consists of both. By induction on the first, for any
stack. -/
theorem run_app {V : Type} (v : V → B) (c d : Row (Instr V)) (st : Row B) :
    run v (c ++ d) st = run v d (run v c st) := by
  induction c generalizing st with
  | nil => rfl
  | cons i c ih => exact ih (step v i st)

/-- Two instructions to negate, in a row, have no effect, on whatever stack. By cases: on an empty stack nothing
happens, else the top is negated twice. -/
theorem run_negate_negate {V : Type} (v : V → B) (c : Row (Instr V)) (st : Row B) :
    run v (cons negate (cons negate c)) st = run v c st := by
  cases st with
  | nil => rfl
  | cons a st => cases a <;> rfl

/-- Compiling an expression in front of other code is compiling it and appending that code. By induction on the
expression, for any code after it. -/
theorem onto_eq {V : Type} (a : Expr V) (c : Row (Instr V)) : onto a c = compile a ++ c := by
  induction a generalizing c with
  | lit b => rfl
  | var x => rfl
  | neg a ih => rw [onto, ih, compile, app_assoc]; rfl
  | conj a b iha ihb => rw [onto, iha, ihb, compile, app_assoc, app_assoc]; rfl
  | disj a b iha ihb => rw [onto, iha, ihb, compile, app_assoc, app_assoc]; rfl

/-- The code of an expression has as many instructions as the expression has nodes. By induction, with the length of
appended lists. -/
theorem len_compile {V : Type} (a : Expr V) : len (compile a) = size a := by
  have len_app : ∀ c d : Row (Instr V), len (c ++ d) = len c + len d := by
    intro c d
    induction c with
    | nil =>
      show len d = z + len d
      generalize len d = n
      induction n with
      | z => rfl
      | s n ih => exact congrArg s ih
    | cons i c ih => exact (congrArg s ih).trans (s_plus _ _).symm
  induction a with
  | lit b => rfl
  | var x => rfl
  | neg a ih => rw [compile, len_app, ih]; rfl
  | conj a b iha ihb => rw [compile, len_app, len_app, iha, ihb]; rfl
  | disj a b iha ihb => rw [compile, len_app, len_app, iha, ihb]; rfl

/-- The compiler is correct: the code of an expression pushes the expression's value on the stack and leaves the rest
alone. By induction, running appended codes one after the other. -/
theorem run_compile {V : Type} (v : V → B) (a : Expr V) (st : Row B) : run v (compile a) st = cons (eval v a) st := by
  have run_app : ∀ (c d : Row (Instr V)) (t : Row B), run v (c ++ d) t = run v d (run v c t) := by
    intro c d
    induction c with
    | nil => intro t; rfl
    | cons i c ih => intro t; exact ih (step v i t)
  induction a generalizing st with
  | lit b => rfl
  | var x => rfl
  | neg a ih => rw [compile, run_app, ih]; rfl
  | conj a b iha ihb => rw [compile, run_app, run_app, iha, ihb]; rfl
  | disj a b iha ihb => rw [compile, run_app, run_app, iha, ihb]; rfl

/-- The compiler in front of other code is correct: running the result is running that code with the expression's value
on the stack. By induction on the expression, for any code and stack. -/
theorem run_onto {V : Type} (v : V → B) (a : Expr V) (c : Row (Instr V)) (st : Row B) :
    run v (onto a c) st = run v c (cons (eval v a) st) := by
  induction a generalizing c st with
  | lit b => rfl
  | var x => rfl
  | neg a ih => rw [onto, ih]; rfl
  | conj a b iha ihb => rw [onto, iha, ihb]; rfl
  | disj a b iha ihb => rw [onto, iha, ihb]; rfl

/-- Duality: the dual of an expression, at negated values of the variables, has the negated value. By induction, with De
Morgan's laws as cases. -/
theorem eval_dual {V : Type} (v : V → B) (a : Expr V) : eval (fun x => not (v x)) (dual a) = not (eval v a) := by
  induction a with
  | lit b => rfl
  | var x => rfl
  | neg a ih => rw [dual, eval, ih, eval]
  | conj a b iha ihb => simp only [dual, eval, iha, ihb]; cases eval v a <;> rfl
  | disj a b iha ihb => simp only [dual, eval, iha, ihb]; cases eval v a <;> rfl

/-- Only the variables that occur in an expression matter for its value. By induction on the expression, passing the
agreement on to its parts. -/
theorem eval_of_agree {V : Type} (v w : V → B) (a : Expr V) (h : ∀ x, Occurs x a → v x = w x) :
    eval v a = eval w a := by
  induction a with
  | lit b => rfl
  | var x => exact h x Occurs.var
  | neg a ih => rw [eval, ih fun x hx => h x (Occurs.neg hx), eval]
  | conj a b iha ihb =>
    rw [eval, iha fun x hx => h x (Occurs.conjLeft hx), ihb fun x hx => h x (Occurs.conjRight hx), eval]
  | disj a b iha ihb =>
    rw [eval, iha fun x hx => h x (Occurs.disjLeft hx), ihb fun x hx => h x (Occurs.disjRight hx), eval]

/-- Expressions without negation are monotone: if every variable that was true stays true, so does the expression. By
induction on how it is built, with cases on the truth values of its parts. -/
theorem eval_monotone {V : Type} (v w : V → B) (hv : ∀ x, v x = yes → w x = yes) (a : Expr V) (h : Positive a)
    (k : eval v a = yes) : eval w a = yes := by
  induction h with
  | lit b => exact k
  | var x => exact hv x k
  | @conj a b _ _ iha ihb =>
    rw [eval] at k ⊢
    cases ha : eval v a with
    | no => rw [ha] at k; cases k
    | yes => rw [ha] at k; rw [iha ha, ihb k]; rfl
  | @disj a b _ _ iha ihb =>
    rw [eval] at k ⊢
    cases ha : eval v a with
    | no => rw [ha] at k; rw [ihb k]; cases eval w a <;> rfl
    | yes => rw [iha ha]; rfl

/-- A variable occurs after a substitution exactly if it occurs in what was put in place of a variable that occurred
before. By induction on the expression. -/
theorem occurs_subst_iff {V W : Type} (f : V → Expr W) (y : W) (a : Expr V) :
    Occurs y (subst f a) ↔ ∃ x, Occurs x a ∧ Occurs y (f x) := by
  constructor
  · intro h
    induction a with
    | lit b => cases h
    | var x => exact ⟨x, Occurs.var, h⟩
    | neg a ih =>
      cases h with
      | neg h => obtain ⟨x, h1, h2⟩ := ih h; exact ⟨x, Occurs.neg h1, h2⟩
    | conj a b iha ihb =>
      cases h with
      | conjLeft h => obtain ⟨x, h1, h2⟩ := iha h; exact ⟨x, Occurs.conjLeft h1, h2⟩
      | conjRight h => obtain ⟨x, h1, h2⟩ := ihb h; exact ⟨x, Occurs.conjRight h1, h2⟩
    | disj a b iha ihb =>
      cases h with
      | disjLeft h => obtain ⟨x, h1, h2⟩ := iha h; exact ⟨x, Occurs.disjLeft h1, h2⟩
      | disjRight h => obtain ⟨x, h1, h2⟩ := ihb h; exact ⟨x, Occurs.disjRight h1, h2⟩
  · intro ⟨x, h, k⟩
    induction h with
    | var => exact k
    | neg _ ih => exact Occurs.neg ih
    | conjLeft _ ih => exact Occurs.conjLeft ih
    | conjRight _ ih => exact Occurs.conjRight ih
    | disjLeft _ ih => exact Occurs.disjLeft ih
    | disjRight _ ih => exact Occurs.disjRight ih

/-- Constant folding is correct: it keeps the value of every expression. By induction, since each of the simplifying
constructors has the value that it should have. -/
theorem eval_fold {V : Type} (v : V → B) (a : Expr V) : eval v (fold a) = eval v a := by
  induction a with
  | lit b => rfl
  | var x => rfl
  | neg a ih =>
    rw [fold, eval, ← ih]
    cases fold a with
    | neg b => show eval v b = not (not (eval v b)); cases eval v b <;> rfl
    | _ => rfl
  | conj a b iha ihb =>
    rw [fold, eval, ← iha, ← ihb]
    cases fold a with
    | lit c => cases c <;> rfl
    | _ => rfl
  | disj a b iha ihb =>
    rw [fold, eval, ← iha, ← ihb]
    cases fold a with
    | lit c => cases c <;> rfl
    | _ => rfl

/-- An expression in which no variable occurs is folded to a constant, which is its value whatever values the variables
have. By induction: the parts are constants by then. -/
theorem fold_closed {V : Type} (v : V → B) (a : Expr V) (h : ∀ x, ¬ Occurs x a) : fold a = lit (eval v a) := by
  induction a with
  | lit b => rfl
  | var x => exact absurd Occurs.var (h x)
  | neg a ih => rw [fold, ih fun x hx => h x (Occurs.neg hx)]; rfl
  | conj a b iha ihb =>
    rw [fold, iha fun x hx => h x (Occurs.conjLeft hx), ihb fun x hx => h x (Occurs.conjRight hx), eval]
    cases eval v a <;> rfl
  | disj a b iha ihb =>
    rw [fold, iha fun x hx => h x (Occurs.disjLeft hx), ihb fun x hx => h x (Occurs.disjRight hx), eval]
    cases eval v a <;> rfl

/-- Constant folding brings in no variables: what occurs in the folded expression occurred before. By induction, with
cases on the folded parts. -/
theorem occurs_of_occurs_fold {V : Type} (x : V) (a : Expr V) (h : Occurs x (fold a)) : Occurs x a := by
  induction a with
  | lit b => exact h
  | var y => exact h
  | neg a ih =>
    rw [fold] at h
    apply Occurs.neg
    apply ih
    generalize fold a = c at h
    cases c with
    | lit b => cases h
    | neg c => exact Occurs.neg h
    | var y => cases h with | neg h => exact h
    | conj c d => cases h with | neg h => exact h
    | disj c d => cases h with | neg h => exact h
  | conj a b iha ihb =>
    rw [fold] at h
    have k : Occurs x (fold a) ∨ Occurs x (fold b) := by
      generalize fold a = c at h
      cases c with
      | lit e => cases e with
        | no => cases h
        | yes => exact Or.inr h
      | _ => cases h with
        | conjLeft h => exact Or.inl h
        | conjRight h => exact Or.inr h
    exact k.elim (fun k => Occurs.conjLeft (iha k)) (fun k => Occurs.conjRight (ihb k))
  | disj a b iha ihb =>
    rw [fold] at h
    have k : Occurs x (fold a) ∨ Occurs x (fold b) := by
      generalize fold a = c at h
      cases c with
      | lit e => cases e with
        | no => exact Or.inr h
        | yes => cases h
      | _ => cases h with
        | disjLeft h => exact Or.inl h
        | disjRight h => exact Or.inr h
    exact k.elim (fun k => Occurs.disjLeft (iha k)) (fun k => Occurs.disjRight (ihb k))

/-- Pushing negations inwards keeps an expression's value. By induction, together with the claim that the negated form
has the negated value. -/
theorem eval_nnf {V : Type} (v : V → B) (a : Expr V) : eval v (nnf yes a) = eval v a := by
  have both : eval v (nnf yes a) = eval v a ∧ eval v (nnf no a) = not (eval v a) := by
    induction a with
    | lit b => exact ⟨rfl, rfl⟩
    | var x => exact ⟨rfl, rfl⟩
    | neg a ih =>
      refine ⟨ih.2, ?_⟩
      show eval v (nnf yes a) = not (not (eval v a))
      rw [ih.1]
      cases eval v a <;> rfl
    | conj a b iha ihb =>
      constructor
      · simp only [nnf, eval, iha.1, ihb.1]
      · simp only [nnf, eval, iha.2, ihb.2]
        cases eval v a <;> rfl
    | disj a b iha ihb =>
      constructor
      · simp only [nnf, eval, iha.1, ihb.1]
      · simp only [nnf, eval, iha.2, ihb.2]
        cases eval v a <;> rfl
  exact both.1

/-- Pushing negations inwards leaves them at variables only, for an expression and for its negation. By induction on the
expression for either of the two. -/
theorem normal_nnf {V : Type} (b : B) (a : Expr V) : Normal (nnf b a) := by
  induction a generalizing b with
  | lit c => cases b <;> exact Normal.lit _
  | var x =>
    cases b with
    | no => exact Normal.neg x
    | yes => exact Normal.var x
  | neg a ih => cases b <;> exact ih _
  | conj a c iha ihc =>
    cases b with
    | no => exact Normal.disj (iha no) (ihc no)
    | yes => exact Normal.conj (iha yes) (ihc yes)
  | disj a c iha ihc =>
    cases b with
    | no => exact Normal.conj (iha no) (ihc no)
    | yes => exact Normal.disj (iha yes) (ihc yes)

/-- The peephole optimiser is correct: removing pairs of negations in a row changes nothing about what code does. By
induction on the code, with cases on what the rest begins with. -/
theorem run_peephole {V : Type} (v : V → B) (c : Row (Instr V)) (st : Row B) : run v (peephole c) st = run v c st := by
  induction c generalizing st with
  | nil => rfl
  | cons i c ih =>
    show run v (mkCons i (peephole c)) st = run v c (step v i st)
    rw [← ih]
    generalize peephole c = d
    cases i with
    | negate =>
      cases d with
      | nil => rfl
      | cons j d =>
        cases j with
        | negate =>
          cases st with
          | nil => rfl
          | cons a st => cases a <;> rfl
        | _ => rfl
    | _ => rfl

/-- Compiling loses nothing: run on expressions instead of values, the code of an expression builds the expression
again. By induction, for any code that follows. -/
theorem build_compile {V : Type} (a : Expr V) (st : Row (Expr V)) : build (compile a) st = cons a st := by
  have gen : ∀ (e : Expr V) (c : Row (Instr V)) (t : Row (Expr V)), build (compile e ++ c) t = build c (cons e t) := by
    intro e
    induction e with
    | lit b => intro c t; rfl
    | var x => intro c t; rfl
    | neg a ih => intro c t; rw [compile, app_assoc, ih]; rfl
    | conj a b iha ihb => intro c t; rw [compile, app_assoc, app_assoc, iha, ihb]; rfl
    | disj a b iha ihb => intro c t; rw [compile, app_assoc, app_assoc, iha, ihb]; rfl
  have app_nil : ∀ c : Row (Instr V), c ++ nil = c := by
    intro c
    induction c with
    | nil => rfl
    | cons i c ih => rw [cons_app, ih]
  have h := gen a nil st
  rw [app_nil] at h
  exact h

/-- Different expressions have different code. By running the code on expressions instead of values, which builds the
expression that was compiled. -/
theorem compile_injective {V : Type} (a b : Expr V) (h : compile a = compile b) : a = b := by
  have gen : ∀ (e : Expr V) (c : Row (Instr V)) (t : Row (Expr V)), build (compile e ++ c) t = build c (cons e t) := by
    intro e
    induction e with
    | lit b => intro c t; rfl
    | var x => intro c t; rfl
    | neg a ih => intro c t; rw [compile, app_assoc, ih]; rfl
    | conj a b iha ihb => intro c t; rw [compile, app_assoc, app_assoc, iha, ihb]; rfl
    | disj a b iha ihb => intro c t; rw [compile, app_assoc, app_assoc, iha, ihb]; rfl
  have k := gen a nil nil
  rw [h, gen b nil nil] at k
  injection k with k
  exact k.symm
