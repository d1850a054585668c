inductive Row (A : Type) | nil | cons (x : A) (l : Row A)
/-- Propositional formulas in variables. -/
inductive Form (V : Type) | bot | var (x : V) | imp (a b : Form V) | and (a b : Form V) | or (a b : Form V)
namespace Form
open Row

inductive Mem {A : Type} (x : A) : Row A → Prop
  | head {l : Row A} : Mem x (cons x l)
  | tail {y : A} {l : Row A} : Mem x l → Mem x (cons y l)

def each {A B : Type} (f : A → B) : Row A → Row B
  | nil => nil
  | cons x l => cons (f x) (each f l)

def neg {V : Type} (a : Form V) : Form V := imp a bot

/-- Natural deduction: a formula follows from a list of assumptions, in intuitionistic logic. -/
inductive Proves {V : Type} : Row (Form V) → Form V → Prop
  | hyp {g : Row (Form V)} {a : Form V} : Mem a g → Proves g a
  | absurd {g : Row (Form V)} {a : Form V} : Proves g bot → Proves g a
  | lam {g : Row (Form V)} {a b : Form V} : Proves (cons a g) b → Proves g (imp a b)
  | mp {g : Row (Form V)} {a b : Form V} : Proves g (imp a b) → Proves g a → Proves g b
  | pair {g : Row (Form V)} {a b : Form V} : Proves g a → Proves g b → Proves g (and a b)
  | fst {g : Row (Form V)} {a b : Form V} : Proves g (and a b) → Proves g a
  | snd {g : Row (Form V)} {a b : Form V} : Proves g (and a b) → Proves g b
  | inl {g : Row (Form V)} {a b : Form V} : Proves g a → Proves g (or a b)
  | inr {g : Row (Form V)} {a b : Form V} : Proves g b → Proves g (or a b)
  | split {g : Row (Form V)} {a b c : Form V} :
    Proves g (or a b) → Proves (cons a g) c → Proves (cons b g) c → Proves g c

/-- A system of Hilbert's kind for implication: two axioms and detachment. -/
inductive Hilbert {V : Type} (g : Row (Form V)) : Form V → Prop
  | hyp {a : Form V} : Mem a g → Hilbert g a
  | k (a b : Form V) : Hilbert g (imp a (imp b a))
  | s (a b c : Form V) : Hilbert g (imp (imp a (imp b c)) (imp (imp a b) (imp a c)))
  | mp {a b : Form V} : Hilbert g (imp a b) → Hilbert g a → Hilbert g b

/-- Truth, when it is said which variables are true. -/
def Holds {V : Type} (v : V → Prop) : Form V → Prop
  | bot => False
  | var x => v x
  | imp a b => Holds v a → Holds v b
  | and a b => Holds v a ∧ Holds v b
  | or a b => Holds v a ∨ Holds v b

inductive World | now | later

/-- Truth in two worlds, where what is true now is true later. -/
def Forced {V : Type} (v : World → V → Prop) : World → Form V → Prop
  | _, bot => False
  | World.now, var x => v World.now x ∧ v World.later x
  | World.later, var x => v World.later x
  | World.now, imp a b =>
    (Forced v World.now a → Forced v World.now b) ∧ (Forced v World.later a → Forced v World.later b)
  | World.later, imp a b => Forced v World.later a → Forced v World.later b
  | w, and a b => Forced v w a ∧ Forced v w b
  | w, or a b => Forced v w a ∨ Forced v w b

def subst {V W : Type} (f : V → Form W) : Form V → Form W
  | bot => bot
  | var x => f x
  | imp a b => imp (subst f a) (subst f b)
  | and a b => and (subst f a) (subst f b)
  | or a b => or (subst f a) (subst f b)

/-- Without falsity anywhere. -/
inductive Positive {V : Type} : Form V → Prop
  | var (x : V) : Positive (var x)
  | imp {a b : Form V} : Positive a → Positive b → Positive (imp a b)
  | and {a b : Form V} : Positive a → Positive b → Positive (and a b)
  | or {a b : Form V} : Positive a → Positive b → Positive (or a b)

/-- The conjunction of all formulas of a list. -/
def both {V : Type} : Row (Form V) → Form V
  | nil => imp bot bot
  | cons a g => and a (both g)

theorem neg_def {V : Type} (a : Form V) : neg a = imp a bot := rfl
theorem hyp0 {V : Type} {g : Row (Form V)} (a : Form V) : Proves (cons a g) a := Proves.hyp Mem.head
theorem hyp1 {V : Type} {g : Row (Form V)} (a b : Form V) : Proves (cons b (cons a g)) a :=
  Proves.hyp (Mem.tail Mem.head)
theorem hyp2 {V : Type} {g : Row (Form V)} (a b c : Form V) : Proves (cons c (cons b (cons a g))) a :=
  Proves.hyp (Mem.tail (Mem.tail Mem.head))

-- theorems

/-- Every formula implies itself: assume it, and there it is. -/
theorem imp_self {V : Type} (g : Row (Form V)) (a : Form V) : Proves g (imp a a) := by
  exact Proves.lam (hyp0 a)

/-- What is assumed follows from any further assumption: a implies that b implies a. Two assumptions are made and the
first is used. -/
theorem imp_imp_self {V : Type} (g : Row (Form V)) (a b : Form V) : Proves g (imp a (imp b a)) := by
  exact Proves.lam (Proves.lam (hyp1 a b))

/-- Falsity implies every formula. Once it is assumed, anything follows. -/
theorem bot_imp {V : Type} (g : Row (Form V)) (a : Form V) : Proves g (imp bot a) := by
  exact Proves.lam (Proves.absurd (hyp0 bot))

/-- Implication is transitive: if b implies c and a implies b, then a implies c. Assume a and detach twice. -/
theorem imp_trans {V : Type} (g : Row (Form V)) (a b c : Form V) :
    Proves g (imp (imp b c) (imp (imp a b) (imp a c))) := by
  exact Proves.lam (Proves.lam (Proves.lam (Proves.mp (hyp2 _ _ _) (Proves.mp (hyp1 _ _) (hyp0 _)))))

/-- The two assumptions of an implication between implications may change places. Assume them in the new order and use
them in the old. -/
theorem imp_swap {V : Type} (g : Row (Form V)) (a b c : Form V) :
    Proves g (imp (imp a (imp b c)) (imp b (imp a c))) := by
  exact Proves.lam (Proves.lam (Proves.lam (Proves.mp (Proves.mp (hyp2 _ _ _) (hyp0 _)) (hyp1 _ _))))

/-- If a implies that b implies c, and a implies b, then a implies c. Assume a, which is used twice. -/
theorem imp_share {V : Type} (g : Row (Form V)) (a b c : Form V) :
    Proves g (imp (imp a (imp b c)) (imp (imp a b) (imp a c))) := by
  exact Proves.lam (Proves.lam (Proves.lam
    (Proves.mp (Proves.mp (hyp2 _ _ _) (hyp0 _)) (Proves.mp (hyp1 _ _) (hyp0 _)))))

/-- Conjunction is commutative: from a and b follows b and a, by taking the pair apart. -/
theorem and_swap {V : Type} (g : Row (Form V)) (a b : Form V) : Proves g (imp (and a b) (and b a)) := by
  exact Proves.lam (Proves.pair (Proves.snd (hyp0 _)) (Proves.fst (hyp0 _)))

/-- Disjunction is commutative: from a or b follows b or a. By distinguishing the two cases. -/
theorem or_swap {V : Type} (g : Row (Form V)) (a b : Form V) : Proves g (imp (or a b) (or b a)) := by
  exact Proves.lam (Proves.split (hyp0 _) (Proves.inr (hyp0 _)) (Proves.inl (hyp0 _)))

/-- Every formula implies its double negation: the negation would contradict it. -/
theorem imp_neg_neg {V : Type} (g : Row (Form V)) (a : Form V) : Proves g (imp a (neg (neg a))) := by
  exact Proves.lam (Proves.lam (Proves.mp (hyp0 _) (hyp1 _ _)))

/-- Contraposition: if a implies b, the negation of b implies that of a. Assuming a leads to b and then to falsity. -/
theorem contraposition {V : Type} (g : Row (Form V)) (a b : Form V) :
    Proves g (imp (imp a b) (imp (neg b) (neg a))) := by
  exact Proves.lam (Proves.lam (Proves.lam (Proves.mp (hyp1 _ _) (Proves.mp (hyp2 _ _ _) (hyp0 _)))))

/-- No formula holds together with its negation. The one part of the conjunction refutes the other. -/
theorem neg_and_neg {V : Type} (g : Row (Form V)) (a : Form V) : Proves g (neg (and a (neg a))) := by
  exact Proves.lam (Proves.mp (Proves.snd (hyp0 _)) (Proves.fst (hyp0 _)))

/-- An implication from a conjunction is an implication from one part to an implication from the other: currying. Assume
both parts and pair them. -/
theorem curry {V : Type} (g : Row (Form V)) (a b c : Form V) : Proves g (imp (imp (and a b) c) (imp a (imp b c))) := by
  exact Proves.lam (Proves.lam (Proves.lam (Proves.mp (hyp2 _ _ _) (Proves.pair (hyp1 _ _) (hyp0 _)))))

/-- What follows from a disjunction follows from each of its parts. Each part gives the disjunction. -/
theorem imp_of_or {V : Type} (g : Row (Form V)) (a b c : Form V) :
    Proves g (imp (imp (or a b) c) (and (imp a c) (imp b c))) := by
  exact Proves.lam (Proves.pair
    (Proves.lam (Proves.mp (hyp1 _ _) (Proves.inl (hyp0 _))))
    (Proves.lam (Proves.mp (hyp1 _ _) (Proves.inr (hyp0 _)))))

/-- De Morgan: if a disjunction is refuted, both its parts are. Either part would give the disjunction. -/
theorem neg_or {V : Type} (g : Row (Form V)) (a b : Form V) : Proves g (imp (neg (or a b)) (and (neg a) (neg b))) := by
  exact Proves.lam (Proves.pair
    (Proves.lam (Proves.mp (hyp1 _ _) (Proves.inl (hyp0 _))))
    (Proves.lam (Proves.mp (hyp1 _ _) (Proves.inr (hyp0 _)))))

/-- The other law of De Morgan, in the direction that needs no excluded middle: if one of two formulas is refuted, so is
their conjunction. By cases. -/
theorem neg_and_of_or {V : Type} (g : Row (Form V)) (a b : Form V) :
    Proves g (imp (or (neg a) (neg b)) (neg (and a b))) := by
  exact Proves.lam (Proves.lam (Proves.split (hyp1 _ _)
    (Proves.mp (hyp0 _) (Proves.fst (hyp1 _ _)))
    (Proves.mp (hyp0 _) (Proves.snd (hyp1 _ _)))))

/-- A disjunction of the negation of a formula with another gives the implication from the formula to the other. In the
first case there is a contradiction. -/
theorem imp_of_neg_or {V : Type} (g : Row (Form V)) (a b : Form V) : Proves g (imp (or (neg a) b) (imp a b)) := by
  exact Proves.lam (Proves.lam (Proves.split (hyp1 _ _)
    (Proves.absurd (Proves.mp (hyp0 _) (hyp1 _ _)))
    (hyp0 _)))

/-- Conjunction distributes over disjunction. Cases are distinguished in the second part, and the first is kept in
both. -/
theorem and_or_distrib {V : Type} (g : Row (Form V)) (a b c : Form V) :
    Proves g (imp (and a (or b c)) (or (and a b) (and a c))) := by
  exact Proves.lam (Proves.split (Proves.snd (hyp0 _))
    (Proves.inl (Proves.pair (Proves.fst (hyp1 _ _)) (hyp0 _)))
    (Proves.inr (Proves.pair (Proves.fst (hyp1 _ _)) (hyp0 _))))

/-- A formula that is negated three times is refuted as if it were negated once. Assuming the formula gives its double
negation, which the triple negation refutes. -/
theorem neg_neg_neg {V : Type} (g : Row (Form V)) (a : Form V) : Proves g (imp (neg (neg (neg a))) (neg a)) := by
  exact Proves.lam (Proves.lam (Proves.mp (hyp1 _ _) (Proves.lam (Proves.mp (hyp0 _) (hyp1 _ _)))))

/-- The excluded middle is never refuted, without being assumed: its double negation can be derived. From its refutation
follows the negation of the formula, and this again is a case of it. -/
theorem neg_neg_excluded_middle {V : Type} (g : Row (Form V)) (a : Form V) : Proves g (neg (neg (or a (neg a)))) := by
  exact Proves.lam (Proves.mp (hyp0 _)
    (Proves.inr (Proves.lam (Proves.mp (hyp1 _ _) (Proves.inl (hyp0 _))))))

/-- Double negations can be gone on from: if a is not refuted, and a implies that b is not refuted, then b is not
refuted. A refutation of b refutes a. -/
theorem neg_neg_bind {V : Type} (g : Row (Form V)) (a b : Form V) :
    Proves g (imp (neg (neg a)) (imp (imp a (neg (neg b))) (neg (neg b)))) := by
  exact Proves.lam (Proves.lam (Proves.lam (Proves.mp (hyp2 _ _ _)
    (Proves.lam (Proves.mp (Proves.mp (hyp2 _ _ _) (hyp0 _)) (hyp1 _ _))))))

/-- The law of double negation is itself not refuted. Its refutation refutes the formula, hence gives the law from a
contradiction. -/
theorem neg_neg_law {V : Type} (g : Row (Form V)) (a : Form V) : Proves g (neg (neg (imp (neg (neg a)) a))) := by
  exact Proves.lam (Proves.mp (hyp0 _) (Proves.lam (Proves.absurd (Proves.mp (hyp0 _)
    (Proves.lam (Proves.mp (hyp2 _ _ _) (Proves.lam (hyp1 _ _))))))))

/-- In Hilbert's system every formula implies itself. The second axiom is applied to two instances of the first. -/
theorem hilbert_self {V : Type} (g : Row (Form V)) (a : Form V) : Hilbert g (imp a a) := by
  exact Hilbert.mp (Hilbert.mp (Hilbert.s a (imp a a) a) (Hilbert.k a (imp a a))) (Hilbert.k a a)

/-- What can be derived in Hilbert's system follows from any further assumption. By the first axiom. -/
theorem hilbert_drop {V : Type} (g : Row (Form V)) (a b : Form V) (h : Hilbert g b) : Hilbert g (imp a b) := by
  exact Hilbert.mp (Hilbert.k b a) h

/-- In Hilbert's system two implications can be chained. The first axiom puts the second implication under the
assumption, and the second axiom detaches there. -/
theorem hilbert_trans {V : Type} (g : Row (Form V)) (a b c : Form V) (h : Hilbert g (imp a b))
    (j : Hilbert g (imp b c)) : Hilbert g (imp a c) := by
  exact Hilbert.mp (Hilbert.mp (Hilbert.s a b c) (Hilbert.mp (Hilbert.k _ a) j)) h

/-- What is derived in Hilbert's system can be derived by natural deduction. By induction on the derivation; the axioms
are derived by assuming and detaching. -/
theorem proves_of_hilbert {V : Type} (g : Row (Form V)) (a : Form V) (h : Hilbert g a) : Proves g a := by
  induction h with
  | hyp h => exact Proves.hyp h
  | k a b => exact Proves.lam (Proves.lam (hyp1 _ _))
  | s a b c =>
    exact Proves.lam (Proves.lam (Proves.lam
      (Proves.mp (Proves.mp (hyp2 _ _ _) (hyp0 _)) (Proves.mp (hyp1 _ _) (hyp0 _)))))
  | mp _ _ ih1 ih2 => exact Proves.mp ih1 ih2

/-- The deduction theorem for Hilbert's system: what is derived with a further assumption is implied by it. By induction
on the derivation; the axioms are those that its cases need. -/
theorem deduction {V : Type} (g : Row (Form V)) (a b : Form V) (h : Hilbert (cons a g) b) : Hilbert g (imp a b) := by
  induction h with
  | hyp h =>
    cases h with
    | head => exact Hilbert.mp (Hilbert.mp (Hilbert.s a (imp a a) a) (Hilbert.k a (imp a a))) (Hilbert.k a a)
    | tail h => exact Hilbert.mp (Hilbert.k _ a) (Hilbert.hyp h)
  | k b c => exact Hilbert.mp (Hilbert.k _ a) (Hilbert.k b c)
  | s b c d => exact Hilbert.mp (Hilbert.k _ a) (Hilbert.s b c d)
  | mp _ _ ih1 ih2 => exact Hilbert.mp (Hilbert.mp (Hilbert.s a _ _) ih1) ih2

/-- In Hilbert's system assumptions that can be derived from others may be replaced by these. By induction on the
derivation that uses them. -/
theorem hilbert_cut {V : Type} (g d : Row (Form V)) (a : Form V) (h : ∀ b, Mem b g → Hilbert d b) (j : Hilbert g a) :
    Hilbert d a := by
  induction j with
  | hyp j => exact h _ j
  | k b c => exact Hilbert.k b c
  | s b c e => exact Hilbert.s b c e
  | mp _ _ ih1 ih2 => exact Hilbert.mp ih1 ih2

/-- In Hilbert's system, too, the premises of an implication may change places: if it proves that a implies that b
implies c, it proves that b implies that a implies c. The second axiom distributes a, and the first puts b in its
place. -/
theorem hilbert_swap {V : Type} (g : Row (Form V)) (a b c : Form V) (h : Hilbert g (imp a (imp b c))) :
    Hilbert g (imp b (imp a c)) := by
  have under : Hilbert g (imp b (imp (imp a b) (imp a c))) :=
    Hilbert.mp (Hilbert.k _ b) (Hilbert.mp (Hilbert.s a b c) h)
  exact Hilbert.mp (Hilbert.mp (Hilbert.s b (imp a b) (imp a c)) under) (Hilbert.k b a)

/-- A list of assumptions proves the conjunction of all of them. By induction, for a list that contains them at
least. -/
theorem proves_both {V : Type} (g : Row (Form V)) : Proves g (both g) := by
  have gen : ∀ d e : Row (Form V), (∀ a, Mem a d → Mem a e) → Proves e (both d) := by
    intro d
    induction d with
    | nil => intro e _; exact Proves.lam (hyp0 _)
    | cons a d ih => intro e h; exact Proves.pair (Proves.hyp (h a Mem.head)) (ih e (fun b hb => h b (Mem.tail hb)))
  exact gen g g (fun _ h => h)

/-- A formula without falsity is true if all variables are. By induction on how it is built. -/
theorem holds_of_positive {V : Type} (v : V → Prop) (hv : ∀ x, v x) (a : Form V) (h : Positive a) : Holds v a := by
  induction h with
  | var x => exact hv x
  | imp _ _ _ ihb => exact fun _ => ihb
  | and _ _ iha ihb => exact ⟨iha, ihb⟩
  | or _ _ iha _ => exact Or.inl iha

/-- A formula after a substitution is true exactly if it was true with each variable as true as what was put in its
place. By induction on the formula. -/
theorem holds_subst_iff {V W : Type} (f : V → Form W) (v : W → Prop) (a : Form V) :
    Holds v (subst f a) ↔ Holds (fun x => Holds v (f x)) a := by
  induction a with
  | bot => exact Iff.rfl
  | var x => exact Iff.rfl
  | imp a b iha ihb => exact ⟨fun h k => ihb.1 (h (iha.2 k)), fun h k => ihb.2 (h (iha.1 k))⟩
  | and a b iha ihb => exact ⟨fun h => ⟨iha.1 h.1, ihb.1 h.2⟩, fun h => ⟨iha.2 h.1, ihb.2 h.2⟩⟩
  | or a b iha ihb => exact ⟨fun h => h.imp iha.1 ihb.1, fun h => h.imp iha.2 ihb.2⟩

/-- Soundness: what is proved from assumptions is true wherever all of them are. By induction on the proof; assumptions
that are made on the way are true when they are used. -/
theorem soundness {V : Type} (v : V → Prop) (g : Row (Form V)) (a : Form V) (h : Proves g a)
    (hg : ∀ b, Mem b g → Holds v b) : Holds v a := by
  induction h with
  | hyp h => exact hg _ h
  | absurd _ ih => exact (ih hg).elim
  | lam _ ih =>
    intro ha
    apply ih
    intro b hb
    cases hb with
    | head => exact ha
    | tail hb => exact hg b hb
  | mp _ _ ih1 ih2 => exact ih1 hg (ih2 hg)
  | pair _ _ ih1 ih2 => exact ⟨ih1 hg, ih2 hg⟩
  | fst _ ih => exact (ih hg).1
  | snd _ ih => exact (ih hg).2
  | inl _ ih => exact Or.inl (ih hg)
  | inr _ ih => exact Or.inr (ih hg)
  | split _ _ _ ih1 ih2 ih3 =>
    rcases ih1 hg with ha | ha
    · apply ih2
      intro b hb
      cases hb with
      | head => exact ha
      | tail hb => exact hg b hb
    · apply ih3
      intro b hb
      cases hb with
      | head => exact ha
      | tail hb => exact hg b hb

/-- Hilbert's system does not prove a variable without assumptions. If all variables are false, the axioms are true and
detachment preserves truth. -/
theorem hilbert_not_var {V : Type} (x : V) : ¬ Hilbert nil (var x) := by
  have sound : ∀ a : Form V, Hilbert nil a → Holds (fun _ => False) a := by
    intro a h
    induction h with
    | hyp h => cases h
    | k a b => exact fun ha _ => ha
    | s a b c => exact fun f g ha => f ha (g ha)
    | mp _ _ ih1 ih2 => exact ih1 ih2
  exact fun h => sound _ h

/-- What is true in the first of two worlds is true in the second. By induction on the formula. -/
theorem forced_later {V : Type} (v : World → V → Prop) (a : Form V) (h : Forced v World.now a) :
    Forced v World.later a := by
  induction a with
  | bot => exact h
  | var x => exact h.2
  | imp a b _ _ => exact h.2
  | and a b iha ihb => exact ⟨iha h.1, ihb h.2⟩
  | or a b iha ihb => exact h.imp iha ihb

/-- Weakening: what is proved from some assumptions is proved from any list that contains them all. By induction on the
proof, adding on both sides the assumptions that it makes on the way. -/
theorem weakening {V : Type} (g d : Row (Form V)) (a : Form V) (h : Proves g a) (hd : ∀ b, Mem b g → Mem b d) :
    Proves d a := by
  have under : ∀ (g d : Row (Form V)) (c : Form V), (∀ b, Mem b g → Mem b d) →
      ∀ b, Mem b (cons c g) → Mem b (cons c d) := by
    intro g d c hd b hb
    cases hb with
    | head => exact Mem.head
    | tail hb => exact Mem.tail (hd b hb)
  induction h generalizing d with
  | hyp h => exact Proves.hyp (hd _ h)
  | absurd _ ih => exact Proves.absurd (ih d hd)
  | lam _ ih => exact Proves.lam (ih _ (under _ _ _ hd))
  | mp _ _ ih1 ih2 => exact Proves.mp (ih1 d hd) (ih2 d hd)
  | pair _ _ ih1 ih2 => exact Proves.pair (ih1 d hd) (ih2 d hd)
  | fst _ ih => exact Proves.fst (ih d hd)
  | snd _ ih => exact Proves.snd (ih d hd)
  | inl _ ih => exact Proves.inl (ih d hd)
  | inr _ ih => exact Proves.inr (ih d hd)
  | split _ _ _ ih1 ih2 ih3 =>
    exact Proves.split (ih1 d hd) (ih2 _ (under _ _ _ hd)) (ih3 _ (under _ _ _ hd))

/-- An implication is proved exactly if its conclusion is proved from its premise as a further assumption. From left to
right the proof is weakened, and then the assumption detached. -/
theorem proves_imp_iff {V : Type} (g : Row (Form V)) (a b : Form V) : Proves g (imp a b) ↔ Proves (cons a g) b := by
  have weak : ∀ (e : Form V) (k : Row (Form V)), Proves k e → ∀ d, (∀ c, Mem c k → Mem c d) → Proves d e := by
    have under : ∀ (g d : Row (Form V)) (c : Form V), (∀ b, Mem b g → Mem b d) →
        ∀ b, Mem b (cons c g) → Mem b (cons c d) := by
      intro g d c hd b hb
      cases hb with
      | head => exact Mem.head
      | tail hb => exact Mem.tail (hd b hb)
    intro e k h
    induction h with
    | hyp h => intro d hd; exact Proves.hyp (hd _ h)
    | absurd _ ih => intro d hd; exact Proves.absurd (ih d hd)
    | lam _ ih => intro d hd; exact Proves.lam (ih _ (under _ _ _ hd))
    | mp _ _ ih1 ih2 => intro d hd; exact Proves.mp (ih1 d hd) (ih2 d hd)
    | pair _ _ ih1 ih2 => intro d hd; exact Proves.pair (ih1 d hd) (ih2 d hd)
    | fst _ ih => intro d hd; exact Proves.fst (ih d hd)
    | snd _ ih => intro d hd; exact Proves.snd (ih d hd)
    | inl _ ih => intro d hd; exact Proves.inl (ih d hd)
    | inr _ ih => intro d hd; exact Proves.inr (ih d hd)
    | split _ _ _ ih1 ih2 ih3 =>
      intro d hd
      exact Proves.split (ih1 d hd) (ih2 _ (under _ _ _ hd)) (ih3 _ (under _ _ _ hd))
  constructor
  · intro h
    exact Proves.mp (weak _ _ h _ (fun _ hc => Mem.tail hc)) (hyp0 a)
  · exact Proves.lam

/-- Proofs survive substitution: if a formula is proved from assumptions, then so it is after formulas have been put in
place of the variables everywhere. By induction on the proof. -/
theorem proves_subst {V W : Type} (f : V → Form W) (g : Row (Form V)) (a : Form V) (h : Proves g a) :
    Proves (each (subst f) g) (subst f a) := by
  have image : ∀ (b : Form V) (d : Row (Form V)), Mem b d → Mem (subst f b) (each (subst f) d) := by
    intro b d hb
    induction hb with
    | head => exact Mem.head
    | tail _ ih => exact Mem.tail ih
  induction h with
  | hyp h => exact Proves.hyp (image _ _ h)
  | absurd _ ih => exact Proves.absurd ih
  | lam _ ih => exact Proves.lam ih
  | mp _ _ ih1 ih2 => exact Proves.mp ih1 ih2
  | pair _ _ ih1 ih2 => exact Proves.pair ih1 ih2
  | fst _ ih => exact Proves.fst ih
  | snd _ ih => exact Proves.snd ih
  | inl _ ih => exact Proves.inl ih
  | inr _ ih => exact Proves.inr ih
  | split _ _ _ ih1 ih2 ih3 => exact Proves.split ih1 ih2 ih3

/-- The logic is consistent: without assumptions falsity cannot be proved. Every proved formula is true, whatever the
variables are, and falsity is not. -/
theorem consistency {V : Type} : ¬ Proves nil (bot : Form V) := by
  have sound : ∀ (g : Row (Form V)) (a : Form V), Proves g a → (∀ b, Mem b g → Holds (fun _ => True) b) →
      Holds (fun _ => True) a := by
    intro g a h
    induction h with
    | hyp h => exact fun hg => hg _ h
    | absurd _ ih => exact fun hg => (ih hg).elim
    | lam _ ih =>
      intro hg ha
      apply ih
      intro b hb
      cases hb with
      | head => exact ha
      | tail hb => exact hg b hb
    | mp _ _ ih1 ih2 => exact fun hg => ih1 hg (ih2 hg)
    | pair _ _ ih1 ih2 => exact fun hg => ⟨ih1 hg, ih2 hg⟩
    | fst _ ih => exact fun hg => (ih hg).1
    | snd _ ih => exact fun hg => (ih hg).2
    | inl _ ih => exact fun hg => Or.inl (ih hg)
    | inr _ ih => exact fun hg => Or.inr (ih hg)
    | split _ _ _ ih1 ih2 ih3 =>
      intro hg
      rcases ih1 hg with ha | ha
      · apply ih2
        intro b hb
        cases hb with
        | head => exact ha
        | tail hb => exact hg b hb
      · apply ih3
        intro b hb
        cases hb with
        | head => exact ha
        | tail hb => exact hg b hb
  intro h
  apply sound nil bot h
  intro b hb
  cases hb

/-- The excluded middle is not provable for a variable. In two worlds where the variable becomes true only later,
neither it nor its negation is true now, but everything provable is: by induction on proofs, for both worlds at once. -/
theorem no_excluded_middle {V : Type} (x : V) : ¬ Proves nil (or (var x) (neg (var x))) := by
  have sound : ∀ (v : World → V → Prop) (g : Row (Form V)) (a : Form V), Proves g a →
      ∀ w, (∀ b, Mem b g → Forced v w b) → Forced v w a := by
    intro v
    have mono : ∀ a : Form V, Forced v World.now a → Forced v World.later a := by
      intro a
      induction a with
      | bot => exact fun h => h
      | var x => exact fun h => h.2
      | imp a b _ _ => exact fun h => h.2
      | and a b iha ihb => exact fun h => ⟨iha h.1, ihb h.2⟩
      | or a b iha ihb => exact fun h => h.imp iha ihb
    have under : ∀ (w : World) (g : Row (Form V)) (a : Form V), Forced v w a → (∀ b, Mem b g → Forced v w b) →
        ∀ b, Mem b (cons a g) → Forced v w b := by
      intro w g a ha hg b hb
      cases hb with
      | head => exact ha
      | tail hb => exact hg b hb
    intro g a h
    induction h with
    | hyp h => exact fun w hg => hg _ h
    | absurd _ ih => intro w hg; exact (show False by cases w <;> exact ih _ hg).elim
    | lam _ ih =>
      intro w hg
      cases w with
      | now =>
        exact ⟨fun ha => ih _ (under _ _ _ ha hg), fun ha => ih _ (under _ _ _ ha (fun b hb => mono b (hg b hb)))⟩
      | later => exact fun ha => ih _ (under _ _ _ ha hg)
    | mp _ _ ih1 ih2 =>
      intro w hg
      cases w with
      | now => exact (ih1 _ hg).1 (ih2 _ hg)
      | later => exact ih1 World.later hg (ih2 World.later hg)
    | pair _ _ ih1 ih2 => intro w hg; cases w <;> exact ⟨ih1 _ hg, ih2 _ hg⟩
    | fst _ ih => intro w hg; cases w <;> exact (ih _ hg).1
    | snd _ ih => intro w hg; cases w <;> exact (ih _ hg).2
    | inl _ ih => intro w hg; cases w <;> exact Or.inl (ih _ hg)
    | inr _ ih => intro w hg; cases w <;> exact Or.inr (ih _ hg)
    | @split g a b c _ _ _ ih1 ih2 ih3 =>
      intro w hg
      have k : Forced v w a ∨ Forced v w b := by cases w <;> exact ih1 _ hg
      exact k.elim (fun ha => ih2 _ (under _ _ _ ha hg)) (fun hb => ih3 _ (under _ _ _ hb hg))
  intro h
  have now := sound (fun w _ => w = World.later) nil _ h World.now (fun b hb => by cases hb)
  rcases now with k | k
  · cases k.1
  · exact k.2 rfl
