inductive N | z | s (n : N)
namespace Rel
open N

def plus : N → N → N
  | a, z => a
  | a, s b => s (plus a b)

instance : Add N := ⟨plus⟩

/-- First the one relation, then the other. -/
def comp {A : Type} (r q : A → A → Prop) (x y : A) : Prop := ∃ w, r x w ∧ q w y

def inv {A : Type} (r : A → A → Prop) (x y : A) : Prop := r y x

def union {A : Type} (r q : A → A → Prop) (x y : A) : Prop := r x y ∨ q x y

def meet {A : Type} (r q : A → A → Prop) (x y : A) : Prop := r x y ∧ q x y

def Within {A : Type} (r q : A → A → Prop) : Prop := ∀ x y, r x y → q x y

def Symmetric {A : Type} (r : A → A → Prop) : Prop := ∀ x y, r x y → r y x

def Transitive {A : Type} (r : A → A → Prop) : Prop := ∀ x y w, r x y → r y w → r x w

/-- Two steps from one place can be brought together again by one step each. -/
def Diamond {A : Type} (r : A → A → Prop) : Prop := ∀ x y w, r x y → r x w → ∃ u, r y u ∧ r w u

/-- Any number of steps, or none: the reflexive transitive closure. -/
inductive Star {A : Type} (r : A → A → Prop) : A → A → Prop
  | refl (x : A) : Star r x x
  | step {x y w : A} : r x y → Star r y w → Star r x w

/-- One step or more: the transitive closure. -/
inductive Plus {A : Type} (r : A → A → Prop) : A → A → Prop
  | one {x y : A} : r x y → Plus r x y
  | step {x y w : A} : r x y → Plus r y w → Plus r x w

/-- A step forwards or backwards: the symmetric closure. -/
inductive Sym {A : Type} (r : A → A → Prop) : A → A → Prop
  | fwd {x y : A} : r x y → Sym r x y
  | bwd {x y : A} : r y x → Sym r x y

/-- Any number of steps, each forwards or backwards: the equivalence closure. -/
inductive Conv {A : Type} (r : A → A → Prop) : A → A → Prop
  | refl (x : A) : Conv r x x
  | fwd {x y w : A} : r x y → Conv r y w → Conv r x w
  | bwd {x y w : A} : r y x → Conv r y w → Conv r x w

/-- No step leads away. -/
def Stuck {A : Type} (r : A → A → Prop) (x : A) : Prop := ∀ y, ¬ r x y

/-- No infinite sequence of steps starts here. -/
inductive Ends {A : Type} (r : A → A → Prop) : A → Prop
  | of {x : A} : (∀ y, r x y → Ends r y) → Ends r x

/-- Both lead to the same place. -/
def Joins {A : Type} (r : A → A → Prop) (x y : A) : Prop := ∃ w, Star r x w ∧ Star r y w

def Confluent {A : Type} (r : A → A → Prop) : Prop := ∀ x y w, Star r x y → Star r x w → Joins r y w

def LocallyConfluent {A : Type} (r : A → A → Prop) : Prop := ∀ x y w, r x y → r x w → Joins r y w

/-- A given number of steps. -/
def power {A : Type} (r : A → A → Prop) : N → A → A → Prop
  | z, x, y => x = y
  | s n, x, y => ∃ w, r x w ∧ power r n w y

-- theorems

/-- A single step is a sequence of steps. It is followed by no further ones. -/
theorem star_of_step {A : Type} (r : A → A → Prop) (x y : A) (h : r x y) : Star r x y := by
  exact Star.step h (Star.refl y)

/-- The inverse of the inverse of a relation is the relation. By definition. -/
theorem inv_inv {A : Type} (r : A → A → Prop) (x y : A) : inv (inv r) x y ↔ r x y := by
  exact Iff.rfl

/-- The inverse of a composition is the composition of the inverses in the other order. The place in between is the
same. -/
theorem inv_comp {A : Type} (r q : A → A → Prop) (x y : A) : inv (comp r q) x y ↔ comp (inv q) (inv r) x y := by
  constructor
  · intro ⟨w, h, k⟩; exact ⟨w, k, h⟩
  · intro ⟨w, h, k⟩; exact ⟨w, k, h⟩

/-- Composition of relations is associative. Both sides speak of two places in between. -/
theorem comp_assoc {A : Type} (r q t : A → A → Prop) (x y : A) : comp (comp r q) t x y ↔ comp r (comp q t) x y := by
  constructor
  · intro ⟨w, ⟨u, h, k⟩, l⟩; exact ⟨u, h, w, k, l⟩
  · intro ⟨u, h, w, k, l⟩; exact ⟨w, ⟨u, h, k⟩, l⟩

/-- Composition distributes over a union of relations on the right. By cases on which of the two relations it is. -/
theorem comp_union {A : Type} (r q t : A → A → Prop) (x y : A) :
    comp r (union q t) x y ↔ union (comp r q) (comp r t) x y := by
  constructor
  · intro ⟨w, h, k⟩
    rcases k with k | k
    · exact Or.inl ⟨w, h, k⟩
    · exact Or.inr ⟨w, h, k⟩
  · intro h
    rcases h with ⟨w, h, k⟩ | ⟨w, h, k⟩
    · exact ⟨w, h, Or.inl k⟩
    · exact ⟨w, h, Or.inr k⟩

/-- A relation is transitive exactly if its composition with itself lies within it. Both say the same about two
steps. -/
theorem transitive_iff {A : Type} (r : A → A → Prop) : Transitive r ↔ Within (comp r r) r := by
  constructor
  · intro h x y ⟨w, k, l⟩; exact h x w y k l
  · intro h x y w k l; exact h x w ⟨y, k, l⟩

/-- A symmetric and transitive relation relates a place to itself if it relates it to anything. The step there and the
step back make one that leads to where it began. -/
theorem refl_of_symm_trans {A : Type} (r : A → A → Prop) (hs : Symmetric r) (ht : Transitive r) (x y : A) (h : r x y) :
    r x x := by
  exact ht x y x h (hs x y h)

/-- The symmetric closure of a relation is symmetric. A step forwards becomes one backwards. -/
theorem sym_symmetric {A : Type} (r : A → A → Prop) : Symmetric (Sym r) := by
  intro x y h
  cases h with
  | fwd h => exact Sym.bwd h
  | bwd h => exact Sym.fwd h

/-- The symmetric closure is the least symmetric relation that contains a given one. By cases on the direction of the
step. -/
theorem sym_least {A : Type} (r q : A → A → Prop) (hq : Symmetric q) (h : Within r q) : Within (Sym r) q := by
  intro x y k
  cases k with
  | fwd k => exact h x y k
  | bwd k => exact hq y x (h y x k)

/-- From a place where no step leads away, a sequence of steps leads nowhere else. By cases on the sequence. -/
theorem eq_of_stuck {A : Type} (r : A → A → Prop) (x y : A) (h : Stuck r x) (k : Star r x y) : x = y := by
  cases k with
  | refl => rfl
  | step k _ => exact absurd k (h _)

/-- Sequences of steps can be put one after the other. By induction on the first. -/
theorem star_trans {A : Type} (r : A → A → Prop) (x y w : A) (h : Star r x y) (k : Star r y w) : Star r x w := by
  induction h with
  | refl => exact k
  | step h _ ih => exact Star.step h (ih k)

/-- A sequence of steps can be made longer at its end by one step. By induction on the sequence. -/
theorem star_snoc {A : Type} (r : A → A → Prop) (x y w : A) (h : Star r x y) (k : r y w) : Star r x w := by
  induction h with
  | refl => exact Star.step k (Star.refl w)
  | step h _ ih => exact Star.step h (ih k)

/-- The closure under sequences of steps is monotone: more steps give more sequences. By induction on the sequence. -/
theorem star_mono {A : Type} (r q : A → A → Prop) (h : Within r q) : Within (Star r) (Star q) := by
  intro x y k
  induction k with
  | refl x => exact Star.refl x
  | step k _ ih => exact Star.step (h _ _ k) ih

/-- The reflexive transitive closure is the least reflexive and transitive relation that contains a given one. By
induction on the sequence of steps. -/
theorem star_least {A : Type} (r q : A → A → Prop) (hr : ∀ x, q x x) (ht : Transitive q) (h : Within r q) :
    Within (Star r) q := by
  intro x y k
  induction k with
  | refl x => exact hr x
  | step k _ ih => exact ht _ _ _ (h _ _ k) ih

/-- A function that takes steps of one relation to steps of another takes sequences of steps to sequences. By
induction. -/
theorem star_map {A B : Type} (r : A → A → Prop) (q : B → B → Prop) (f : A → B) (hf : ∀ x y, r x y → q (f x) (f y))
    (x y : A) (h : Star r x y) : Star q (f x) (f y) := by
  induction h with
  | refl x => exact Star.refl _
  | step h _ ih => exact Star.step (hf _ _ h) ih

/-- What is kept by each step is kept by any sequence of steps: an invariant. By induction on the sequence. -/
theorem star_invariant {A : Type} (r : A → A → Prop) (p : A → Prop) (hp : ∀ x y, r x y → p x → p y) (x y : A)
    (h : Star r x y) (k : p x) : p y := by
  induction h with
  | refl => exact k
  | step h _ ih => exact ih (hp _ _ h k)

/-- One step or more is a step followed by any number of steps. By induction from left to right; from right to left by
induction on the further steps, whatever the first. -/
theorem plus_iff {A : Type} (r : A → A → Prop) (x y : A) : Plus r x y ↔ comp r (Star r) x y := by
  constructor
  · intro h
    induction h with
    | @one x y h => exact ⟨y, h, Star.refl y⟩
    | @step x y w h _ ih =>
      obtain ⟨u, k, l⟩ := ih
      exact ⟨y, h, Star.step k l⟩
  · intro ⟨w, h, k⟩
    induction k generalizing x with
    | refl => exact Plus.one h
    | step k _ ih => exact Plus.step h (ih _ k)

/-- The transitive closure is transitive. By induction on the first of the two sequences. -/
theorem plus_trans {A : Type} (r : A → A → Prop) : Transitive (Plus r) := by
  intro x y w h k
  induction h with
  | one h => exact Plus.step h k
  | step h _ ih => exact Plus.step h (ih k)

/-- Any number of steps is no step or at least one. By induction on the sequence in one direction and on the sequence
with at least one step in the other. -/
theorem star_iff_eq_or_plus {A : Type} (r : A → A → Prop) (x y : A) : Star r x y ↔ x = y ∨ Plus r x y := by
  constructor
  · intro h
    induction h with
    | refl => exact Or.inl rfl
    | step h _ ih =>
      rcases ih with e | k
      · rw [← e]; exact Or.inr (Plus.one h)
      · exact Or.inr (Plus.step h k)
  · intro h
    rcases h with e | k
    · rw [e]; exact Star.refl y
    · induction k with
      | one h => exact Star.step h (Star.refl _)
      | step h _ ih => exact Star.step h ih

/-- Nothing is gained by closing twice: a sequence of sequences of steps is a sequence of steps. By induction, putting
sequences one after the other. -/
theorem star_star {A : Type} (r : A → A → Prop) (x y : A) (h : Star (Star r) x y) : Star r x y := by
  have trans : ∀ a b c, Star r a b → Star r b c → Star r a c := by
    intro a b c h k
    induction h with
    | refl => exact k
    | step h _ ih => exact Star.step h (ih k)
  induction h with
  | refl x => exact Star.refl x
  | step h _ ih => exact trans _ _ _ h ih

/-- A sequence of steps of the inverse relation is a sequence of steps walked backwards. By induction, adding the last
step at the end. -/
theorem star_inv {A : Type} (r : A → A → Prop) (x y : A) (h : Star (inv r) x y) : Star r y x := by
  have snoc : ∀ a b c, Star r a b → r b c → Star r a c := by
    intro a b c h k
    induction h with
    | refl => exact Star.step k (Star.refl c)
    | step h _ ih => exact Star.step h (ih k)
  induction h with
  | refl x => exact Star.refl x
  | step h _ ih => exact snoc _ _ _ ih h

/-- If steps can be taken back, sequences of steps can. By induction; the first step is taken back at the end. -/
theorem star_symmetric {A : Type} (r : A → A → Prop) (hr : Symmetric r) : Symmetric (Star r) := by
  have snoc : ∀ a b c, Star r a b → r b c → Star r a c := by
    intro a b c h k
    induction h with
    | refl => exact Star.step k (Star.refl c)
    | step h _ ih => exact Star.step h (ih k)
  intro x y h
  induction h with
  | refl x => exact Star.refl x
  | step h _ ih => exact snoc _ _ _ ih (hr _ _ h)

/-- A step and then a sequence can also be seen as a sequence and then a step, and the other way round. By induction on
the sequence in each direction. -/
theorem comp_star_comm {A : Type} (r : A → A → Prop) (x y : A) : comp r (Star r) x y ↔ comp (Star r) r x y := by
  constructor
  · intro ⟨w, h, k⟩
    induction k generalizing x with
    | refl w => exact ⟨x, Star.refl x, h⟩
    | step k _ ih =>
      obtain ⟨u, l, m⟩ := ih _ k
      exact ⟨u, Star.step h l, m⟩
  · intro ⟨w, h, k⟩
    induction h with
    | refl w => exact ⟨y, k, Star.refl y⟩
    | step h _ ih =>
      obtain ⟨u, l, m⟩ := ih k
      exact ⟨_, h, Star.step l m⟩

/-- Convertibility is symmetric: steps forwards and backwards can be walked in the opposite direction. By induction,
each step being put at the other end. -/
theorem conv_symmetric {A : Type} (r : A → A → Prop) : Symmetric (Conv r) := by
  have trans : ∀ a b c, Conv r a b → Conv r b c → Conv r a c := by
    intro a b c h k
    induction h with
    | refl => exact k
    | fwd h _ ih => exact Conv.fwd h (ih k)
    | bwd h _ ih => exact Conv.bwd h (ih k)
  intro x y h
  induction h with
  | refl x => exact Conv.refl x
  | fwd h _ ih => exact trans _ _ _ ih (Conv.bwd h (Conv.refl _))
  | bwd h _ ih => exact trans _ _ _ ih (Conv.fwd h (Conv.refl _))

/-- The equivalence closure is the reflexive transitive closure of the symmetric closure. By induction, with cases on
the direction of each step. -/
theorem conv_iff_star_sym {A : Type} (r : A → A → Prop) (x y : A) : Conv r x y ↔ Star (Sym r) x y := by
  constructor
  · intro h
    induction h with
    | refl x => exact Star.refl x
    | fwd h _ ih => exact Star.step (Sym.fwd h) ih
    | bwd h _ ih => exact Star.step (Sym.bwd h) ih
  · intro h
    induction h with
    | refl x => exact Conv.refl x
    | step h _ ih =>
      cases h with
      | fwd h => exact Conv.fwd h ih
      | bwd h => exact Conv.bwd h ih

/-- Places that lead to the same place are convertible. One sequence is walked forwards, then the other backwards. -/
theorem conv_of_joins {A : Type} (r : A → A → Prop) (x y : A) (h : Joins r x y) : Conv r x y := by
  obtain ⟨w, h, k⟩ := h
  have back : Conv r w y := by
    have gen : ∀ a b c, Star r a b → Conv r a c → Conv r b c := by
      intro a b c l m
      induction l with
      | refl => exact m
      | step l _ ih => exact ih (Conv.bwd l m)
    exact gen y w y k (Conv.refl y)
  induction h with
  | refl => exact back
  | step h _ ih => exact Conv.fwd h (ih k back)

/-- To go m plus n steps is to go n steps and then m. By induction on n, for any start. -/
theorem power_plus {A : Type} (r : A → A → Prop) (m n : N) (x y : A) :
    power r (m + n) x y ↔ comp (power r n) (power r m) x y := by
  induction n generalizing x with
  | z =>
    constructor
    · intro h; exact ⟨x, rfl, h⟩
    · intro ⟨w, e, h⟩; cases e; exact h
  | s n ih =>
    constructor
    · intro ⟨w, h, k⟩
      obtain ⟨u, l, o⟩ := (ih w).1 k
      exact ⟨u, ⟨w, h, l⟩, o⟩
    · intro ⟨u, ⟨w, h, l⟩, o⟩
      exact ⟨w, h, (ih w).2 ⟨u, l, o⟩⟩

/-- One place is reached from another by a sequence of steps exactly if it is reached by some number of steps. By
induction on the sequence in one direction and on the number in the other. -/
theorem star_iff_power {A : Type} (r : A → A → Prop) (x y : A) : Star r x y ↔ ∃ n, power r n x y := by
  constructor
  · intro h
    induction h with
    | refl x => exact ⟨z, rfl⟩
    | step h _ ih =>
      obtain ⟨n, k⟩ := ih
      exact ⟨s n, _, h, k⟩
  · intro ⟨n, h⟩
    induction n generalizing x with
    | z => cases h; exact Star.refl _
    | s n ih =>
      obtain ⟨w, h, k⟩ := h
      exact Star.step h (ih w k)

/-- The modular law for relations: what lies in the composition of r and q and in t also lies in the composition of r
with the meet of q and the composition of the inverse of r with t. The same place in between serves for both. -/
theorem modular {A : Type} (r q t : A → A → Prop) :
    Within (meet (comp r q) t) (comp r (meet q (comp (inv r) t))) := by
  intro x y ⟨⟨w, h, k⟩, l⟩
  exact ⟨w, h, k, x, h, l⟩

/-- If every step of one relation is a step of another and every such step a sequence of the first, both have the same
sequences. By induction in each direction, putting sequences one after the other. -/
theorem star_eq_of_between {A : Type} (r q : A → A → Prop) (h : Within r q) (k : Within q (Star r)) (x y : A) :
    Star r x y ↔ Star q x y := by
  have trans : ∀ a b c, Star r a b → Star r b c → Star r a c := by
    intro a b c h k
    induction h with
    | refl => exact k
    | step h _ ih => exact Star.step h (ih k)
  constructor
  · intro l
    induction l with
    | refl x => exact Star.refl x
    | step l _ ih => exact Star.step (h _ _ l) ih
  · intro l
    induction l with
    | refl x => exact Star.refl x
    | step l _ ih => exact trans _ _ _ (k _ _ l) ih

/-- If at most one step leads away from each place, then of two places reached from a third one leads to the other. By
induction on the one sequence with cases on the other. -/
theorem star_linear {A : Type} (r : A → A → Prop) (hr : ∀ x y w, r x y → r x w → y = w) (x y w : A)
    (h : Star r x y) (k : Star r x w) : Star r y w ∨ Star r w y := by
  induction h with
  | refl => exact Or.inl k
  | step h l ih =>
    cases k with
    | refl => exact Or.inr (Star.step h l)
    | step k m => rw [hr _ _ _ k h] at m; exact ih m

/-- No step leads from a place to itself if no infinite sequence of steps starts there. By induction on why there is
none. -/
theorem irrefl_of_ends {A : Type} (r : A → A → Prop) (x : A) (h : Ends r x) : ¬ r x x := by
  induction h with
  | of _ ih => intro k; exact ih _ k k

/-- Where no infinite sequence of steps starts, none starts further on. By induction on the steps that lead there. -/
theorem ends_of_star {A : Type} (r : A → A → Prop) (x y : A) (h : Ends r x) (k : Star r x y) : Ends r y := by
  induction k with
  | refl => exact h
  | step k _ ih =>
    cases h with
    | of h => exact ih (h _ k)

/-- A place where no infinite sequence of steps starts leads to one where no step leads away. By induction: either it is
such a place, or one takes a step. -/
theorem stuck_of_ends {A : Type} (r : A → A → Prop) (x : A) (h : Ends r x) : ∃ y, Star r x y ∧ Stuck r y := by
  induction h with
  | @of x _ ih =>
    by_cases e : ∃ y, r x y
    · obtain ⟨y, hy⟩ := e
      obtain ⟨w, k, l⟩ := ih y hy
      exact ⟨w, Star.step hy k, l⟩
    · exact ⟨x, Star.refl x, fun y hy => e ⟨y, hy⟩⟩

/-- If places of two relations correspond so that each step of the one is answered by a sequence of steps of the other
to a place that corresponds again, then a sequence is answered by a sequence. By induction, putting the answers one
after the other. -/
theorem star_simulation {A B : Type} (r : A → A → Prop) (q : B → B → Prop) (t : A → B → Prop)
    (ht : ∀ x y u, t x u → r x y → ∃ v, Star q u v ∧ t y v) (x y : A) (u : B) (h : t x u) (k : Star r x y) :
    ∃ v, Star q u v ∧ t y v := by
  have trans : ∀ a b c, Star q a b → Star q b c → Star q a c := by
    intro a b c h k
    induction h with
    | refl => exact k
    | step h _ ih => exact Star.step h (ih k)
  induction k generalizing u with
  | refl => exact ⟨u, Star.refl u, h⟩
  | step k _ ih =>
    obtain ⟨v, l, m⟩ := ht _ _ u h k
    obtain ⟨o, n, p⟩ := ih v m
    exact ⟨o, trans _ _ _ l n, p⟩

/-- In a confluent relation, two places without further steps that are reached from the same place are equal: normal
forms are unique. Joining them takes no step on either side. -/
theorem stuck_unique {A : Type} (r : A → A → Prop) (hr : Confluent r) (x y w : A) (h : Star r x y) (k : Star r x w)
    (hy : Stuck r y) (hw : Stuck r w) : y = w := by
  obtain ⟨u, l, m⟩ := hr x y w h k
  have same : ∀ a b, Stuck r a → Star r a b → a = b := by
    intro a b ha hab
    cases hab with
    | refl => rfl
    | step hab _ => exact absurd hab (ha _)
  rw [same y u hy l, same w u hw m]

/-- If every step can be joined with every sequence of steps from the same place, the relation is confluent. By
induction on one of two sequences, joining its first step with the other. -/
theorem confluent_of_semi {A : Type} (r : A → A → Prop) (hr : ∀ x y w, r x y → Star r x w → Joins r y w) :
    Confluent r := by
  have trans : ∀ a b c, Star r a b → Star r b c → Star r a c := by
    intro a b c h k
    induction h with
    | refl => exact k
    | step h _ ih => exact Star.step h (ih k)
  intro x y w h
  induction h generalizing w with
  | refl => intro k; exact ⟨w, k, Star.refl w⟩
  | step h _ ih =>
    intro k
    obtain ⟨u, l, m⟩ := hr _ _ _ h k
    obtain ⟨v, n, o⟩ := ih u l
    exact ⟨v, n, trans _ _ _ m o⟩

/-- A relation with the diamond property is confluent. First a step is carried along a whole sequence, by induction;
then sequences are carried along each other. -/
theorem confluent_of_diamond {A : Type} (r : A → A → Prop) (hr : Diamond r) : Confluent r := by
  have strip : ∀ x w, Star r x w → ∀ y, r x y → ∃ u, Star r y u ∧ r w u := by
    intro x w h
    induction h with
    | refl => intro y k; exact ⟨y, Star.refl y, k⟩
    | step h _ ih =>
      intro y k
      obtain ⟨u, l, m⟩ := hr _ _ _ h k
      obtain ⟨v, n, o⟩ := ih u l
      exact ⟨v, Star.step m n, o⟩
  intro x y w h
  induction h generalizing w with
  | refl => intro k; exact ⟨w, k, Star.refl w⟩
  | step h _ ih =>
    intro k
    obtain ⟨u, l, m⟩ := strip _ _ k _ h
    obtain ⟨v, n, o⟩ := ih u l
    exact ⟨v, n, Star.step m o⟩

/-- The theorem of Church and Rosser in its abstract form: in a confluent relation, convertible places can be joined. By
induction on the conversion; a step backwards is answered by confluence. -/
theorem church_rosser {A : Type} (r : A → A → Prop) (hr : Confluent r) (x y : A) (h : Conv r x y) : Joins r x y := by
  have trans : ∀ a b c, Star r a b → Star r b c → Star r a c := by
    intro a b c h k
    induction h with
    | refl => exact k
    | step h _ ih => exact Star.step h (ih k)
  induction h with
  | refl x => exact ⟨x, Star.refl x, Star.refl x⟩
  | fwd h _ ih =>
    obtain ⟨u, k, l⟩ := ih
    exact ⟨u, Star.step h k, l⟩
  | bwd h _ ih =>
    obtain ⟨u, k, l⟩ := ih
    obtain ⟨v, m, n⟩ := hr _ _ _ (Star.step h (Star.refl _)) k
    exact ⟨v, m, trans _ _ _ l n⟩

/-- Newman's lemma: a locally confluent relation without infinite sequences of steps is confluent. By induction along
the relation: the first steps are joined, and then twice what follows them. -/
theorem newman {A : Type} (r : A → A → Prop) (hr : LocallyConfluent r) (ends : ∀ x, Ends r x) : Confluent r := by
  have trans : ∀ a b c, Star r a b → Star r b c → Star r a c := by
    intro a b c h k
    induction h with
    | refl => exact k
    | step h _ ih => exact Star.step h (ih k)
  intro x
  induction ends x with
  | of _ ih =>
    intro y w h k
    cases h with
    | refl => exact ⟨w, k, Star.refl w⟩
    | step h1 h2 =>
      cases k with
      | refl => exact ⟨y, Star.refl y, Star.step h1 h2⟩
      | step k1 k2 =>
        obtain ⟨u, l, m⟩ := hr _ _ _ h1 k1
        obtain ⟨v, n, o⟩ := ih _ h1 _ _ h2 l
        obtain ⟨t, p, q⟩ := ih _ k1 _ _ (trans _ _ _ m o) k2
        exact ⟨t, trans _ _ _ n p, q⟩

/-- If a step of q and then one of r can always be replaced by a step of r and then one of q, a sequence of mixed steps
can be sorted: first steps of r only, then steps of q only. By induction, moving a step of q through the steps of r. -/
theorem star_union_sorted {A : Type} (r q : A → A → Prop) (h : Within (comp q r) (comp r q)) (x y : A)
    (k : Star (union r q) x y) : comp (Star r) (Star q) x y := by
  have push : ∀ a b, Star r a b → ∀ c, q c a → comp (Star r) q c b := by
    intro a b l
    induction l with
    | refl a => intro c m; exact ⟨c, Star.refl c, m⟩
    | step l _ ih =>
      intro c m
      obtain ⟨u, n, o⟩ := h c _ ⟨_, m, l⟩
      obtain ⟨v, p, t⟩ := ih u o
      exact ⟨v, Star.step n p, t⟩
  induction k with
  | refl x => exact ⟨x, Star.refl x, Star.refl x⟩
  | step l _ ih =>
    obtain ⟨u, m, n⟩ := ih
    rcases l with l | l
    · exact ⟨u, Star.step l m, n⟩
    · obtain ⟨v, o, p⟩ := push _ _ m _ l
      exact ⟨v, o, Star.step p n⟩

/-- The lemma of Hindley and Rosen: if two confluent relations commute, in that a sequence of the one and a sequence of
the other from the same place can be joined crosswise, their union is confluent. A sequence of one kind is carried along
a mixed sequence by induction, and then mixed sequences along each other. -/
theorem hindley_rosen {A : Type} (r q : A → A → Prop) (hr : Confluent r) (hq : Confluent q)
    (h : ∀ x y w, Star r x y → Star q x w → ∃ u, Star q y u ∧ Star r w u) : Confluent (union r q) := by
  have left : Within (Star r) (Star (union r q)) := by
    intro x y k
    induction k with
    | refl x => exact Star.refl x
    | step k _ ih => exact Star.step (Or.inl k) ih
  have right : Within (Star q) (Star (union r q)) := by
    intro x y k
    induction k with
    | refl x => exact Star.refl x
    | step k _ ih => exact Star.step (Or.inr k) ih
  have trans : ∀ a b c, Star (union r q) a b → Star (union r q) b c → Star (union r q) a c := by
    intro a b c h k
    induction h with
    | refl => exact k
    | step h _ ih => exact Star.step h (ih k)
  have strip : ∀ x w, Star (union r q) x w → ∀ y, (Star r x y ∨ Star q x y) →
      ∃ u, Star (union r q) y u ∧ (Star r w u ∨ Star q w u) := by
    intro x w k
    induction k with
    | refl x => intro y l; exact ⟨y, Star.refl y, l⟩
    | step k _ ih =>
      intro y l
      rcases k with k | k
      · rcases l with l | l
        · obtain ⟨u, m, n⟩ := hr _ _ _ (Star.step k (Star.refl _)) l
          obtain ⟨v, o, p⟩ := ih u (Or.inl m)
          exact ⟨v, trans _ _ _ (left _ _ n) o, p⟩
        · obtain ⟨u, m, n⟩ := h _ _ _ (Star.step k (Star.refl _)) l
          obtain ⟨v, o, p⟩ := ih u (Or.inr m)
          exact ⟨v, trans _ _ _ (left _ _ n) o, p⟩
      · rcases l with l | l
        · obtain ⟨u, m, n⟩ := h _ _ _ l (Star.step k (Star.refl _))
          obtain ⟨v, o, p⟩ := ih u (Or.inl n)
          exact ⟨v, trans _ _ _ (right _ _ m) o, p⟩
        · obtain ⟨u, m, n⟩ := hq _ _ _ (Star.step k (Star.refl _)) l
          obtain ⟨v, o, p⟩ := ih u (Or.inr m)
          exact ⟨v, trans _ _ _ (right _ _ n) o, p⟩
  intro x y w k
  induction k generalizing w with
  | refl => intro l; exact ⟨w, l, Star.refl w⟩
  | step k _ ih =>
    intro l
    have one : ∀ a b, union r q a b → Star r a b ∨ Star q a b := by
      intro a b m
      exact m.imp (fun m => Star.step m (Star.refl b)) (fun m => Star.step m (Star.refl b))
    obtain ⟨u, m, n⟩ := strip _ _ l _ (one _ _ k)
    obtain ⟨v, o, p⟩ := ih u m
    exact ⟨v, o, trans _ _ _ (n.elim (left _ _) (right _ _)) p⟩
