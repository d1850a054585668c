inductive N | z | s (n : N)
inductive Bit | no | yes
inductive Row (A : Type) | nil | cons (x : A) (l : Row A)
/-- Regular expressions over an alphabet. -/
inductive Re (A : Type) | none | eps | chr (x : A) | alt (a b : Re A) | seq (a b : Re A) | star (a : Re A)
namespace Re
open N Bit Row

def pick {T : Type} : Bit → T → T → T
  | yes, a, _ => a
  | no, _, b => b

def and : Bit → Bit → Bit
  | yes, b => b
  | no, _ => no

def or : Bit → Bit → Bit
  | yes, _ => yes
  | no, b => b

def app {A : Type} : Row A → Row A → Row A
  | nil, m => m
  | cons x l, m => cons x (app l m)

instance {A : Type} : Append (Row A) := ⟨app⟩

def rev {A : Type} : Row A → Row A
  | nil => nil
  | cons x l => rev l ++ cons x nil

def each {A B : Type} (f : A → B) : Row A → Row B
  | nil => nil
  | cons x l => cons (f x) (each f l)

/-- A word belongs to the language of an expression. -/
inductive Matches {A : Type} : Re A → Row A → Prop
  | eps : Matches eps nil
  | chr (x : A) : Matches (chr x) (cons x nil)
  | left {a b : Re A} {w : Row A} : Matches a w → Matches (alt a b) w
  | right {a b : Re A} {w : Row A} : Matches b w → Matches (alt a b) w
  | seq {a b : Re A} {v w : Row A} : Matches a v → Matches b w → Matches (seq a b) (v ++ w)
  | stop {a : Re A} : Matches (star a) nil
  | more {a : Re A} {v w : Row A} : Matches a v → Matches (star a) w → Matches (star a) (v ++ w)

/-- Two expressions have the same language. -/
def Same {A : Type} (a b : Re A) : Prop := ∀ w, Matches a w ↔ Matches b w

/-- Whether the empty word belongs to the language. -/
def nullable {A : Type} : Re A → Bit
  | none => no
  | eps => yes
  | chr _ => no
  | alt a b => or (nullable a) (nullable b)
  | seq a b => and (nullable a) (nullable b)
  | star _ => yes

/-- Brzozowski's derivative: what may follow a letter. -/
def der {A : Type} (eq : A → A → Bit) (x : A) : Re A → Re A
  | none => none
  | eps => none
  | chr y => pick (eq x y) eps none
  | alt a b => alt (der eq x a) (der eq x b)
  | seq a b => pick (nullable a) (alt (seq (der eq x a) b) (der eq x b)) (seq (der eq x a) b)
  | star a => seq (der eq x a) (star a)

def reverse {A : Type} : Re A → Re A
  | none => none
  | eps => eps
  | chr x => chr x
  | alt a b => alt (reverse a) (reverse b)
  | seq a b => seq (reverse b) (reverse a)
  | star a => star (reverse a)

def map {A B : Type} (f : A → B) : Re A → Re B
  | none => none
  | eps => eps
  | chr x => chr (f x)
  | alt a b => alt (map f a) (map f b)
  | seq a b => seq (map f a) (map f b)
  | star a => star (map f a)

def power {A : Type} (a : Re A) : N → Re A
  | z => eps
  | s n => seq a (power a n)

/-- The expression for one word. -/
def word {A : Type} : Row A → Re A
  | nil => eps
  | cons x w => seq (chr x) (word w)

theorem cons_app {A : Type} (x : A) (l m : Row A) : cons x l ++ m = cons x (l ++ m) := rfl
theorem app_nil {A : Type} (l : Row A) : l ++ nil = l := by
  induction l with
  | nil => rfl
  | cons x l ih => rw [cons_app, ih]
theorem app_assoc {A : Type} (l m k : Row A) : l ++ m ++ k = l ++ (m ++ k) := by
  induction l with
  | nil => rfl
  | cons x l ih => rw [cons_app, cons_app, ih, cons_app]
theorem rev_app {A : Type} (l m : Row A) : rev (l ++ m) = rev m ++ rev l := by
  induction l with
  | nil => exact (app_nil _).symm
  | cons x l ih => show rev (l ++ m) ++ _ = rev m ++ (rev l ++ _); rw [ih, app_assoc]
theorem seq_inv {A : Type} {a b : Re A} {u : Row A} (h : Matches (seq a b) u) :
    ∃ v w, u = v ++ w ∧ Matches a v ∧ Matches b w := by
  cases h with
  | seq h k => exact ⟨_, _, rfl, h, k⟩
/-- Induction over the words of a star. -/
theorem star_ind {A : Type} {a : Re A} {p : Row A → Prop} (stop : p nil)
    (more : ∀ v w, Matches a v → Matches (star a) w → p w → p (v ++ w)) {w : Row A} (h : Matches (star a) w) : p w := by
  generalize e : star a = r at h
  induction h with
  | stop => exact stop
  | more h k _ ih => injection e with e; subst e; exact more _ _ h k (ih rfl)
  | _ => cases e
theorem nullable_iff {A : Type} (a : Re A) : nullable a = yes ↔ Matches a nil := by
  constructor
  · intro h
    induction a with
    | none => cases h
    | eps => exact Matches.eps
    | chr x => cases h
    | alt a b iha ihb =>
      cases e : nullable a with
      | no => rw [nullable, e] at h; exact Matches.right (ihb h)
      | yes => exact Matches.left (iha e)
    | seq a b iha ihb =>
      cases e : nullable a with
      | no => rw [nullable, e] at h; cases h
      | yes => rw [nullable, e] at h; exact Matches.seq (iha e) (ihb h)
    | star a _ => exact Matches.stop
  · intro h
    induction a with
    | none => cases h
    | eps => rfl
    | chr x => cases h
    | alt a b iha ihb =>
      cases h with
      | left h => rw [nullable, iha h]; rfl
      | right h => rw [nullable, ihb h]; cases nullable a <;> rfl
    | seq a b iha ihb =>
      obtain ⟨u, v, e, h, k⟩ := seq_inv h
      cases u with
      | nil => change nil = v at e; subst e; rw [nullable, iha h, ihb k]; rfl
      | cons x u => cases e
    | star a _ => rfl

-- theorems

/-- No word belongs to the empty language. None of the ways to match fits its expression. -/
theorem not_matches_none {A : Type} (w : Row A) : ¬ Matches none w := by
  intro h
  cases h

/-- Only the empty word belongs to the language of the empty word. By cases on the match. -/
theorem matches_eps_iff {A : Type} (w : Row A) : Matches eps w ↔ w = nil := by
  constructor
  · intro h; cases h; rfl
  · intro h; rw [h]; exact Matches.eps

/-- A word belongs to an alternative exactly if it belongs to one of the two languages. By cases on the match. -/
theorem matches_alt_iff {A : Type} (a b : Re A) (w : Row A) : Matches (alt a b) w ↔ Matches a w ∨ Matches b w := by
  constructor
  · intro h
    cases h with
    | left h => exact Or.inl h
    | right h => exact Or.inr h
  · intro h
    rcases h with h | h
    · exact Matches.left h
    · exact Matches.right h

/-- The order of two alternatives does not matter. By cases on which of them a word matches. -/
theorem alt_comm {A : Type} (a b : Re A) : Same (alt a b) (alt b a) := by
  intro w
  constructor
  · intro h
    cases h with
    | left h => exact Matches.right h
    | right h => exact Matches.left h
  · intro h
    cases h with
    | left h => exact Matches.right h
    | right h => exact Matches.left h

/-- An alternative between an expression and itself has the language of the expression. By cases. -/
theorem alt_self {A : Type} (a : Re A) : Same (alt a a) a := by
  intro w
  constructor
  · intro h
    cases h with
    | left h => exact h
    | right h => exact h
  · intro h; exact Matches.left h

/-- The empty language adds nothing as an alternative. By cases, one of which is impossible. -/
theorem alt_none {A : Type} (a : Re A) : Same (alt a none) a := by
  intro w
  constructor
  · intro h
    cases h with
    | left h => exact h
    | right h => cases h
  · intro h; exact Matches.left h

/-- No word belongs to a sequence that begins with the empty language. Its first part would have to belong to it. -/
theorem none_seq {A : Type} (a : Re A) (w : Row A) : ¬ Matches (seq none a) w := by
  intro h
  obtain ⟨u, v, _, h, _⟩ := seq_inv h
  cases h

/-- What begins with the empty word and goes on with an expression has the language of the expression. The first part is
empty. -/
theorem eps_seq {A : Type} (a : Re A) : Same (seq eps a) a := by
  intro w
  constructor
  · intro h
    obtain ⟨u, v, e, h, k⟩ := seq_inv h
    cases h
    rw [e]
    exact k
  · intro h
    exact Matches.seq Matches.eps h

/-- What ends with the empty word has the language of what comes before. The second part is empty, and appending it
changes nothing. -/
theorem seq_eps {A : Type} (a : Re A) : Same (seq a eps) a := by
  intro w
  constructor
  · intro h
    obtain ⟨u, v, e, h, k⟩ := seq_inv h
    cases k
    rw [e, app_nil]
    exact h
  · intro h
    have k := Matches.seq h Matches.eps
    rw [app_nil] at k
    exact k

/-- A word that matches an expression matches its star: it is repeated once. -/
theorem star_of_matches {A : Type} (a : Re A) (w : Row A) (h : Matches a w) : Matches (star a) w := by
  have k := Matches.more h Matches.stop
  rw [app_nil] at k
  exact k

/-- Sequences distribute over alternatives on the right. The alternative that the second part matches decides. -/
theorem seq_alt {A : Type} (a b c : Re A) : Same (seq a (alt b c)) (alt (seq a b) (seq a c)) := by
  intro w
  constructor
  · intro h
    obtain ⟨u, v, e, h, k⟩ := seq_inv h
    rw [e]
    cases k with
    | left k => exact Matches.left (Matches.seq h k)
    | right k => exact Matches.right (Matches.seq h k)
  · intro h
    cases h with
    | left h =>
      obtain ⟨u, v, e, h, k⟩ := seq_inv h
      rw [e]
      exact Matches.seq h (Matches.left k)
    | right h =>
      obtain ⟨u, v, e, h, k⟩ := seq_inv h
      rw [e]
      exact Matches.seq h (Matches.right k)

/-- Three expressions in sequence may be bracketed either way. A word falls into three parts, and appending is
associative. -/
theorem seq_assoc {A : Type} (a b c : Re A) : Same (seq (seq a b) c) (seq a (seq b c)) := by
  intro w
  constructor
  · intro h
    obtain ⟨u, v, e, h, k⟩ := seq_inv h
    obtain ⟨s, t, f, h, j⟩ := seq_inv h
    rw [e, f, app_assoc]
    exact Matches.seq h (Matches.seq j k)
  · intro h
    obtain ⟨u, v, e, h, k⟩ := seq_inv h
    obtain ⟨s, t, f, j, k⟩ := seq_inv k
    rw [e, f, ← app_assoc]
    exact Matches.seq (Matches.seq h j) k

/-- If the language of one expression lies in that of another, the same is true of their stars. By induction over the
words of the star. -/
theorem star_mono {A : Type} (a b : Re A) (h : ∀ w, Matches a w → Matches b w) (w : Row A) (k : Matches (star a) w) :
    Matches (star b) w := by
  apply star_ind _ _ k
  · exact Matches.stop
  · intro u v hu _ ih
    exact Matches.more (h u hu) ih

/-- Two words of a star, one after the other, are again a word of it. By induction over the first. -/
theorem star_app {A : Type} (a : Re A) (v w : Row A) (h : Matches (star a) v) (k : Matches (star a) w) :
    Matches (star a) (v ++ w) := by
  apply star_ind (p := fun u => Matches (star a) (u ++ w)) _ _ h
  · exact k
  · intro s t hs _ ih
    rw [app_assoc]
    exact Matches.more hs ih

/-- A star is the empty word or a round of its expression and then the star again. By cases on the match. -/
theorem star_unfold {A : Type} (a : Re A) : Same (star a) (alt eps (seq a (star a))) := by
  intro w
  constructor
  · intro h
    cases h with
    | stop => exact Matches.left Matches.eps
    | more h k => exact Matches.right (Matches.seq h k)
  · intro h
    cases h with
    | left h => cases h; exact Matches.stop
    | right h =>
      obtain ⟨u, v, e, h, k⟩ := seq_inv h
      rw [e]
      exact Matches.more h k

/-- The star of the empty word has only the empty word. By induction over the words of the star: empty words are put
together. -/
theorem star_eps {A : Type} : Same (star eps) (eps : Re A) := by
  intro w
  constructor
  · intro h
    apply star_ind (p := fun u => Matches eps u) _ _ h
    · exact Matches.eps
    · intro u v hu _ ih
      cases hu
      exact ih
  · intro h
    cases h
    exact Matches.stop

/-- To allow the empty word in each round of a star changes nothing. By induction over the words of the star. -/
theorem star_alt_eps {A : Type} (a : Re A) : Same (star (alt eps a)) (star a) := by
  intro w
  constructor
  · intro h
    apply star_ind (p := fun u => Matches (star a) u) _ _ h
    · exact Matches.stop
    · intro u v hu _ ih
      cases hu with
      | left hu => cases hu; exact ih
      | right hu => exact Matches.more hu ih
  · intro h
    apply star_ind (p := fun u => Matches (star (alt eps a)) u) _ _ h
    · exact Matches.stop
    · intro u v hu _ ih
      exact Matches.more (Matches.right hu) ih

/-- The star of a star is the star. By induction over the words of the outer star, each part of which is a word of the
inner. -/
theorem star_star {A : Type} (a : Re A) : Same (star (star a)) (star a) := by
  have glue : ∀ v w, Matches (star a) v → Matches (star a) w → Matches (star a) (v ++ w) := by
    intro v w h k
    apply star_ind (p := fun u => Matches (star a) (u ++ w)) _ _ h
    · exact k
    · intro s t hs _ ih
      rw [app_assoc]
      exact Matches.more hs ih
  intro w
  constructor
  · intro h
    apply star_ind (p := fun u => Matches (star a) u) _ _ h
    · exact Matches.stop
    · intro u v hu _ ih
      exact glue u v hu ih
  · intro h
    have k := Matches.more h (Matches.stop (a := star a))
    rw [app_nil] at k
    exact k

/-- A star followed by the same star is the star. Two of its words make one, and the empty word may always be added. -/
theorem star_seq_star {A : Type} (a : Re A) : Same (seq (star a) (star a)) (star a) := by
  intro w
  constructor
  · intro h
    obtain ⟨u, v, e, h, k⟩ := seq_inv h
    rw [e]
    apply star_ind (p := fun t => Matches (star a) (t ++ v)) _ _ h
    · exact k
    · intro s t hs _ ih
      rw [app_assoc]
      exact Matches.more hs ih
  · intro h
    exact Matches.seq Matches.stop h

/-- Expressions with the same language may replace each other before another expression. The parts of a word stay as
they are. -/
theorem seq_congr {A : Type} (a b c : Re A) (h : Same a b) : Same (seq a c) (seq b c) := by
  intro w
  constructor
  · intro k
    obtain ⟨u, v, e, k, l⟩ := seq_inv k
    rw [e]
    exact Matches.seq ((h u).1 k) l
  · intro k
    obtain ⟨u, v, e, k, l⟩ := seq_inv k
    rw [e]
    exact Matches.seq ((h u).2 k) l

/-- The expression that spells out a word has this word in its language and no other. By induction on the word. -/
theorem matches_word_iff {A : Type} (v w : Row A) : Matches (word v) w ↔ w = v := by
  constructor
  · intro h
    induction v generalizing w with
    | nil => cases h; rfl
    | cons x v ih =>
      obtain ⟨s, t, e, h, k⟩ := seq_inv h
      cases h
      rw [e, ih t k]
      rfl
  · intro h
    subst h
    induction w with
    | nil => exact Matches.eps
    | cons x w ih => exact Matches.seq (Matches.chr x) ih

/-- An expression reversed twice is the expression. By induction. -/
theorem reverse_reverse {A : Type} (a : Re A) : reverse (reverse a) = a := by
  induction a with
  | none => rfl
  | eps => rfl
  | chr x => rfl
  | alt a b iha ihb => simp only [reverse, iha, ihb]
  | seq a b iha ihb => simp only [reverse, iha, ihb]
  | star a ih => simp only [reverse, ih]

/-- A word belongs to the star of an expression exactly if it belongs to some power of it. By induction over the star,
and on the exponent. -/
theorem star_iff_power {A : Type} (a : Re A) (w : Row A) : Matches (star a) w ↔ ∃ n, Matches (power a n) w := by
  constructor
  · intro h
    apply star_ind (p := fun u => ∃ n, Matches (power a n) u) _ _ h
    · exact ⟨z, Matches.eps⟩
    · intro u v hu _ ih
      obtain ⟨n, ih⟩ := ih
      exact ⟨s n, Matches.seq hu ih⟩
  · intro ⟨n, h⟩
    induction n generalizing w with
    | z => cases h; exact Matches.stop
    | s n ih =>
      obtain ⟨u, v, e, h, k⟩ := seq_inv h
      rw [e]
      exact Matches.more h (ih v k)

/-- If a word belongs to a language, its image letter by letter belongs to the language of the expression with its
letters mapped. By induction on the match. -/
theorem matches_map {A B : Type} (f : A → B) (a : Re A) (w : Row A) (h : Matches a w) :
    Matches (map f a) (each f w) := by
  have each_app : ∀ u v : Row A, each f (u ++ v) = each f u ++ each f v := by
    intro u v
    induction u with
    | nil => rfl
    | cons x u ih => exact congrArg (cons (f x)) ih
  induction h with
  | eps => exact Matches.eps
  | chr x => exact Matches.chr (f x)
  | left _ ih => exact Matches.left ih
  | right _ ih => exact Matches.right ih
  | seq _ _ ih1 ih2 => rw [each_app]; exact Matches.seq ih1 ih2
  | stop => exact Matches.stop
  | more _ _ ih1 ih2 => rw [each_app]; exact Matches.more ih1 ih2

/-- Every word of an expression with its letters mapped is the image of a word of the expression. By induction on the
expression, and in the case of the star over its words. -/
theorem exists_of_matches_map {A B : Type} (f : A → B) (a : Re A) (w : Row B) (h : Matches (map f a) w) :
    ∃ v, Matches a v ∧ w = each f v := by
  have each_app : ∀ u v : Row A, each f (u ++ v) = each f u ++ each f v := by
    intro u v
    induction u with
    | nil => rfl
    | cons x u ih => exact congrArg (cons (f x)) ih
  induction a generalizing w with
  | none => cases h
  | eps => cases h; exact ⟨nil, Matches.eps, rfl⟩
  | chr x => cases h; exact ⟨cons x nil, Matches.chr x, rfl⟩
  | alt a b iha ihb =>
    cases h with
    | left h =>
      obtain ⟨v, k, e⟩ := iha w h
      exact ⟨v, Matches.left k, e⟩
    | right h =>
      obtain ⟨v, k, e⟩ := ihb w h
      exact ⟨v, Matches.right k, e⟩
  | seq a b iha ihb =>
    obtain ⟨u, v, e, h, k⟩ := seq_inv h
    obtain ⟨s, h, d⟩ := iha u h
    obtain ⟨t, k, f⟩ := ihb v k
    exact ⟨s ++ t, Matches.seq h k, by rw [e, d, f, each_app]⟩
  | star a ih =>
    apply star_ind (p := fun u => ∃ v, Matches (star a) v ∧ u = each f v) _ _ h
    · exact ⟨nil, Matches.stop, rfl⟩
    · intro u v hu _ ⟨t, k, e⟩
      obtain ⟨s, j, d⟩ := ih u hu
      exact ⟨s ++ t, Matches.more j k, by rw [d, e, each_app]⟩

/-- A word read backwards belongs to the reversed expression if the word belongs to the expression. By induction on the
match; in the star, the last round comes first. -/
theorem matches_reverse {A : Type} (a : Re A) (w : Row A) (h : Matches a w) : Matches (reverse a) (rev w) := by
  have snoc : ∀ (b : Re A) (u v : Row A), Matches (star b) u → Matches b v → Matches (star b) (u ++ v) := by
    intro b u v h k
    apply star_ind (p := fun t => Matches (star b) (t ++ v)) _ _ h
    · have l := Matches.more k Matches.stop
      rw [app_nil] at l
      exact l
    · intro s t hs _ ih
      rw [app_assoc]
      exact Matches.more hs ih
  induction h with
  | eps => exact Matches.eps
  | chr x => exact Matches.chr x
  | left _ ih => exact Matches.left ih
  | right _ ih => exact Matches.right ih
  | seq _ _ ih1 ih2 => rw [rev_app]; exact Matches.seq ih2 ih1
  | stop => exact Matches.stop
  | more _ _ ih1 ih2 => rw [rev_app]; exact snoc _ _ _ ih2 ih1

/-- Half of Arden's rule: if a language contains a second one, and with each of its words also those with a word of a
third put in front, then it contains the star of the third followed by the second. By induction over the star. -/
theorem star_least {A : Type} (a b c : Re A) (hb : ∀ w, Matches b w → Matches c w)
    (ha : ∀ w, Matches (seq a c) w → Matches c w) (w : Row A) (h : Matches (seq (star a) b) w) : Matches c w := by
  obtain ⟨u, v, e, h, k⟩ := seq_inv h
  rw [e]
  apply star_ind (p := fun t => Matches c (t ++ v)) _ _ h
  · exact hb v k
  · intro s t hs _ ih
    rw [app_assoc]
    exact ha _ (Matches.seq hs ih)

/-- Sliding: an expression a and then any number of times b and a is any number of times a and b, and then a. By
induction over either star, shifting the brackets. -/
theorem sliding {A : Type} (a b : Re A) : Same (seq a (star (seq b a))) (seq (star (seq a b)) a) := by
  intro w
  constructor
  · intro h
    obtain ⟨u, v, e, h, k⟩ := seq_inv h
    rw [e]
    have gen : ∀ u, Matches a u → Matches (seq (star (seq a b)) a) (u ++ v) := by
      apply star_ind (p := fun t => ∀ u, Matches a u → Matches (seq (star (seq a b)) a) (u ++ t)) _ _ k
      · intro u hu
        rw [app_nil]
        exact Matches.seq Matches.stop hu
      · intro s t hs _ ih u hu
        obtain ⟨s1, s2, e, h1, h2⟩ := seq_inv hs
        obtain ⟨p, q, f, hp, hq⟩ := seq_inv (ih s2 h2)
        have g : u ++ (s ++ t) = u ++ s1 ++ p ++ q := by rw [e, app_assoc s1, f]; simp only [app_assoc]
        rw [g]
        exact Matches.seq (Matches.more (Matches.seq hu h1) hp) hq
    exact gen u h
  · intro h
    obtain ⟨u, v, e, h, k⟩ := seq_inv h
    rw [e]
    have gen : ∀ v, Matches a v → Matches (seq a (star (seq b a))) (u ++ v) := by
      apply star_ind (p := fun t => ∀ v, Matches a v → Matches (seq a (star (seq b a))) (t ++ v)) _ _ h
      · intro v hv
        have l := Matches.seq hv (Matches.stop (a := seq b a))
        rw [app_nil] at l
        exact l
      · intro s t hs _ ih v hv
        obtain ⟨s1, s2, e, h1, h2⟩ := seq_inv hs
        obtain ⟨p, q, f, hp, hq⟩ := seq_inv (ih v hv)
        have g : s ++ t ++ v = s1 ++ (s2 ++ p ++ q) := by rw [e, app_assoc (s1 ++ s2), f]; simp only [app_assoc]
        rw [g]
        exact Matches.seq h1 (Matches.more (Matches.seq h2 hp) hq)
    exact gen v k

/-- Denesting a star: rounds of either of two expressions are rounds of the first, and then any number of times a round
of the second followed by rounds of the first. By induction over the stars in both directions. -/
theorem denesting {A : Type} (a b : Re A) : Same (star (alt a b)) (seq (star a) (star (seq b (star a)))) := by
  intro w
  constructor
  · intro h
    apply star_ind (p := fun u => Matches (seq (star a) (star (seq b (star a)))) u) _ _ h
    · exact Matches.seq Matches.stop Matches.stop
    · intro u v hu _ ih
      obtain ⟨s, t, e, hs, ht⟩ := seq_inv ih
      rw [e, ← app_assoc]
      cases hu with
      | left hu => exact Matches.seq (Matches.more hu hs) ht
      | right hu =>
        have k := Matches.seq (Matches.stop (a := a)) (Matches.more (Matches.seq hu hs) ht)
        exact k
  · intro h
    have put : ∀ s t, Matches (star a) s → Matches (star (alt a b)) t → Matches (star (alt a b)) (s ++ t) := by
      intro s t hs ht
      apply star_ind (p := fun u => Matches (star (alt a b)) (u ++ t)) _ _ hs
      · exact ht
      · intro p q hp _ ih
        rw [app_assoc]
        exact Matches.more (Matches.left hp) ih
    obtain ⟨s, t, e, hs, ht⟩ := seq_inv h
    rw [e]
    apply put s t hs
    apply star_ind (p := fun u => Matches (star (alt a b)) u) _ _ ht
    · exact Matches.stop
    · intro p q hp _ ih
      obtain ⟨u, v, f, hu, hv⟩ := seq_inv hp
      rw [f, app_assoc]
      exact Matches.more (Matches.right hu) (put v q hv ih)

/-- Brzozowski: a word belongs to the derivative of an expression by a letter exactly if the letter before the word
belongs to the expression, provided that letters are compared rightly. By induction on the expression; the first round
of a star that is not empty takes the letter. -/
theorem matches_der_iff {A : Type} (eq : A → A → Bit) (he : ∀ x y, eq x y = yes ↔ x = y) (x : A) (a : Re A)
    (w : Row A) : Matches (der eq x a) w ↔ Matches a (cons x w) := by
  induction a generalizing w with
  | none => exact ⟨fun h => (by cases h), fun h => (by cases h)⟩
  | eps => exact ⟨fun h => (by cases h), fun h => (by cases h)⟩
  | chr y =>
    rw [der]
    cases e : eq x y with
    | no =>
      constructor
      · intro h; cases h
      · intro h; cases h; rw [(he x x).2 rfl] at e; cases e
    | yes =>
      have f := (he x y).1 e
      subst f
      constructor
      · intro h; cases h; exact Matches.chr x
      · intro h; cases h; exact Matches.eps
  | alt a b iha ihb =>
    constructor
    · intro h
      cases h with
      | left h => exact Matches.left ((iha w).1 h)
      | right h => exact Matches.right ((ihb w).1 h)
    · intro h
      cases h with
      | left h => exact Matches.left ((iha w).2 h)
      | right h => exact Matches.right ((ihb w).2 h)
  | seq a b iha ihb =>
    have first : Matches (seq (der eq x a) b) w → Matches (seq a b) (cons x w) := by
      intro h
      obtain ⟨u, v, e, h, k⟩ := seq_inv h
      rw [e, ← cons_app]
      exact Matches.seq ((iha u).1 h) k
    have back : Matches (seq a b) (cons x w) →
        Matches (seq (der eq x a) b) w ∨ nullable a = yes ∧ Matches (der eq x b) w := by
      intro h
      obtain ⟨u, v, e, h, k⟩ := seq_inv h
      cases u with
      | nil => change cons x w = v at e; subst e; exact Or.inr ⟨(nullable_iff a).2 h, (ihb w).2 k⟩
      | cons y u =>
        rw [cons_app] at e
        injection e with e f
        subst e
        rw [f]
        exact Or.inl (Matches.seq ((iha u).2 h) k)
    rw [der]
    cases e : nullable a with
    | no =>
      constructor
      · exact first
      · intro h
        rcases back h with k | ⟨k, _⟩
        · exact k
        · rw [e] at k; cases k
    | yes =>
      constructor
      · intro h
        cases h with
        | left h => exact first h
        | right h => exact Matches.seq ((nullable_iff a).1 e) ((ihb w).1 h)
      · intro h
        rcases back h with k | ⟨_, k⟩
        · exact Matches.left k
        · exact Matches.right k
  | star a ih =>
    constructor
    · intro h
      obtain ⟨u, v, e, h, k⟩ := seq_inv h
      rw [e, ← cons_app]
      exact Matches.more ((ih u).1 h) k
    · intro h
      have gen : ∀ u, Matches (star a) u → ∀ t, u = cons x t → Matches (seq (der eq x a) (star a)) t := by
        intro u hu
        apply star_ind (p := fun u => ∀ t, u = cons x t → Matches (seq (der eq x a) (star a)) t) _ _ hu
        · intro t e; cases e
        · intro p q hp hq ih2 t e
          cases p with
          | nil => exact ih2 t e
          | cons y p =>
            rw [cons_app] at e
            injection e with e f
            subst e
            rw [← f]
            exact Matches.seq ((ih p).2 hp) hq
      exact gen _ h w rfl
