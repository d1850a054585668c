/-- Lists from nothing: empty, or an element before a list. -/
inductive Lst (A : Type) | nil | cons (x : A) (l : Lst A)
inductive N | z | s (n : N)
namespace Lst
open N

def plus : N → N → N
  | a, z => a
  | a, s b => s (plus a b)

instance : Add N := ⟨plus⟩

def app {A : Type} : Lst A → Lst A → Lst A
  | nil, m => m
  | cons x l, m => cons x (app l m)

instance {A : Type} : Append (Lst A) := ⟨app⟩

def len {A : Type} : Lst A → N
  | nil => z
  | cons _ l => s (len l)

/-- The element at the end. -/
def snoc {A : Type} : Lst A → A → Lst A
  | nil, x => cons x nil
  | cons y l, x => cons y (snoc l x)

def rev {A : Type} : Lst A → Lst A
  | nil => nil
  | cons x l => snoc (rev l) x

/-- The first list reversed, in front of the second. -/
def revOnto {A : Type} : Lst A → Lst A → Lst A
  | nil, m => m
  | cons x l, m => revOnto l (cons x m)

def map {A B : Type} (f : A → B) : Lst A → Lst B
  | nil => nil
  | cons x l => cons (f x) (map f l)

/-- All lists of a list, one after the other. -/
def flat {A : Type} : Lst (Lst A) → Lst A
  | nil => nil
  | cons l ls => l ++ flat ls

def rep {A : Type} (x : A) : N → Lst A
  | z => nil
  | s n => cons x (rep x n)

inductive Mem {A : Type} (x : A) : Lst A → Prop
  | head {l : Lst A} : Mem x (cons x l)
  | tail {y : A} {l : Lst A} : Mem x l → Mem x (cons y l)

theorem plus_z (a : N) : a + z = a := rfl
theorem plus_s (a b : N) : a + s b = s (a + b) := rfl
theorem z_plus (a : N) : z + a = a := by
  induction a with
  | z => rfl
  | s n ih => rw [plus_s, ih]
theorem s_plus (a b : N) : s a + b = s (a + b) := by
  induction b with
  | z => rfl
  | s n ih => rw [plus_s, ih, plus_s]
theorem nil_app {A : Type} (m : Lst A) : nil ++ m = m := rfl
theorem cons_app {A : Type} (x : A) (l m : Lst A) : cons x l ++ m = cons x (l ++ m) := rfl
theorem len_cons {A : Type} (x : A) (l : Lst A) : len (cons x l) = s (len l) := rfl
theorem rev_cons {A : Type} (x : A) (l : Lst A) : rev (cons x l) = snoc (rev l) x := rfl
theorem map_cons {A B : Type} (f : A → B) (x : A) (l : Lst A) : map f (cons x l) = cons (f x) (map f l) := rfl
theorem flat_cons {A : Type} (l : Lst A) (ls : Lst (Lst A)) : flat (cons l ls) = l ++ flat ls := rfl

-- theorems

/-- The empty list appended to a list changes nothing. By induction on the list. -/
theorem app_nil {A : Type} (l : Lst A) : l ++ nil = l := by
  induction l with
  | nil => rfl
  | cons x l ih => rw [cons_app, ih]

/-- Appending lists is associative. By induction on the first list, whose elements come out one by one. -/
theorem app_assoc {A : Type} (l m k : Lst A) : l ++ m ++ k = l ++ (m ++ k) := by
  induction l with
  | nil => rfl
  | cons x l ih => rw [cons_app, cons_app, ih, cons_app]

/-- To put an element at the end of a list is to append the list that has only this element. By induction on the
list. -/
theorem snoc_eq_app {A : Type} (l : Lst A) (x : A) : snoc l x = l ++ cons x nil := by
  induction l with
  | nil => rfl
  | cons y l ih => rw [cons_app, ← ih]; rfl

/-- A list does not get shorter or longer by mapping a function over it. By induction. -/
theorem len_map {A B : Type} (f : A → B) (l : Lst A) : len (map f l) = len l := by
  induction l with
  | nil => rfl
  | cons x l ih => rw [map_cons, len_cons, ih, len_cons]

/-- Mapping the identity over a list gives the list back. By induction. -/
theorem map_id {A : Type} (l : Lst A) : map (fun x => x) l = l := by
  induction l with
  | nil => rfl
  | cons x l ih => rw [map_cons, ih]

/-- Mapping one function and then another is mapping their composition. By induction on the list. -/
theorem map_map {A B C : Type} (f : A → B) (g : B → C) (l : Lst A) : map g (map f l) = map (fun x => g (f x)) l := by
  induction l with
  | nil => rfl
  | cons x l ih => rw [map_cons, map_cons, ih, map_cons]

/-- Mapping over two lists appended is appending what they are mapped to. By induction on the first list. -/
theorem map_app {A B : Type} (f : A → B) (l m : Lst A) : map f (l ++ m) = map f l ++ map f m := by
  induction l with
  | nil => rfl
  | cons x l ih => rw [cons_app, map_cons, ih, map_cons, cons_app]

/-- Functions that agree on all arguments map a list to the same list. By induction. -/
theorem map_congr {A B : Type} (f g : A → B) (h : ∀ x, f x = g x) (l : Lst A) : map f l = map g l := by
  induction l with
  | nil => rfl
  | cons x l ih => rw [map_cons, map_cons, h, ih]

/-- An element at the end makes a list one longer. By induction on the list. -/
theorem len_snoc {A : Type} (l : Lst A) (x : A) : len (snoc l x) = s (len l) := by
  induction l with
  | nil => rfl
  | cons y l ih => exact congrArg s ih

/-- The repetition of one element n times has length n. By induction on n. -/
theorem len_rep {A : Type} (x : A) (n : N) : len (rep x n) = n := by
  induction n with
  | z => rfl
  | s n ih => exact congrArg s ih

/-- Nothing is in the empty list, since neither way of being a member fits it. -/
theorem not_mem_nil {A : Type} (x : A) : ¬ Mem x nil := by
  intro h
  cases h

/-- A member of a list with one element is that element. Membership can only be at the head. -/
theorem eq_of_mem_single {A : Type} (x y : A) (h : Mem x (cons y nil)) : x = y := by
  cases h with
  | head => rfl
  | tail h => cases h

/-- The length of two lists appended is the sum of their lengths. By induction on the first list; its successors come
out of the sum on the left. -/
theorem len_app {A : Type} (l m : Lst A) : len (l ++ m) = len l + len m := by
  induction l with
  | nil => rw [nil_app]; exact (z_plus _).symm
  | cons x l ih => rw [cons_app, len_cons, ih, len_cons, s_plus]

/-- The image of a member of a list is a member of the list's image. By induction on the membership. -/
theorem mem_map_of_mem {A B : Type} (f : A → B) (x : A) (l : Lst A) (h : Mem x l) : Mem (f x) (map f l) := by
  induction h with
  | head => exact Mem.head
  | tail _ ih => exact Mem.tail ih

/-- The last element of a list is a member of it. By induction on what comes before. -/
theorem mem_snoc {A : Type} (x : A) (l : Lst A) : Mem x (snoc l x) := by
  induction l with
  | nil => exact Mem.head
  | cons y l ih => exact Mem.tail ih

/-- A member of the second of two lists is a member of both appended. By induction on the first list. -/
theorem mem_app_right {A : Type} (x : A) (l m : Lst A) (h : Mem x m) : Mem x (l ++ m) := by
  induction l with
  | nil => exact h
  | cons y l ih => exact Mem.tail ih

/-- What is in the repetition of an element is that element. By induction on the number of repetitions. -/
theorem eq_of_mem_rep {A : Type} (x y : A) (n : N) (h : Mem y (rep x n)) : y = x := by
  induction n with
  | z => cases h
  | s n ih =>
    cases h with
    | head => rfl
    | tail h => exact ih h

/-- Repeating an element m plus n times is repeating it n times and then m times. By induction on n. -/
theorem rep_plus {A : Type} (x : A) (m n : N) : rep x (m + n) = rep x n ++ rep x m := by
  induction n with
  | z => rfl
  | s n ih => rw [plus_s]; exact congrArg (cons x) ih

/-- Reversal turns the last element into the first: the reverse of a list with x at its end is x and the list's reverse.
By induction on the list. -/
theorem rev_snoc {A : Type} (l : Lst A) (x : A) : rev (snoc l x) = cons x (rev l) := by
  induction l with
  | nil => rfl
  | cons y l ih =>
    show snoc (rev (snoc l x)) y = cons x (rev (cons y l))
    rw [ih]
    rfl

/-- A list reversed twice is the list itself. By induction; the step needs that the element put at the end comes back to
the front. -/
theorem rev_rev {A : Type} (l : Lst A) : rev (rev l) = l := by
  have rev_snoc : ∀ (m : Lst A) (x : A), rev (snoc m x) = cons x (rev m) := by
    intro m x
    induction m with
    | nil => rfl
    | cons y m ih =>
      show snoc (rev (snoc m x)) y = cons x (rev (cons y m))
      rw [ih]
      rfl
  induction l with
  | nil => rfl
  | cons x l ih => rw [rev_cons, rev_snoc, ih]

/-- Reversal keeps the length. By induction, with the length of a list that has got one more element at its end. -/
theorem len_rev {A : Type} (l : Lst A) : len (rev l) = len l := by
  have len_snoc : ∀ (m : Lst A) (x : A), len (snoc m x) = s (len m) := by
    intro m x
    induction m with
    | nil => rfl
    | cons y m ih => exact congrArg s ih
  induction l with
  | nil => rfl
  | cons x l ih => rw [rev_cons, len_snoc, ih, len_cons]

/-- Reversing and mapping may be done in either order. By induction, with the case of an element at the end on the
way. -/
theorem map_rev {A B : Type} (f : A → B) (l : Lst A) : map f (rev l) = rev (map f l) := by
  have map_snoc : ∀ (m : Lst A) (x : A), map f (snoc m x) = snoc (map f m) (f x) := by
    intro m x
    induction m with
    | nil => rfl
    | cons y m ih => exact congrArg (cons (f y)) ih
  induction l with
  | nil => rfl
  | cons x l ih => rw [rev_cons, map_snoc, ih, map_cons, rev_cons]

/-- The reverse of two lists appended is the reverse of the second, then that of the first. By induction on the first;
an element may be put at the end before or after appending. -/
theorem rev_app {A : Type} (l m : Lst A) : rev (l ++ m) = rev m ++ rev l := by
  have app_snoc : ∀ (k j : Lst A) (x : A), snoc (k ++ j) x = k ++ snoc j x := by
    intro k j x
    induction k with
    | nil => rfl
    | cons y k ih => exact congrArg (cons y) ih
  have app_nil : ∀ k : Lst A, k ++ nil = k := by
    intro k
    induction k with
    | nil => rfl
    | cons y k ih => rw [cons_app, ih]
  induction l with
  | nil => exact (app_nil _).symm
  | cons x l ih => rw [cons_app, rev_cons, ih, app_snoc, rev_cons]

/-- To reverse a list onto another is to append the other to its reverse. By induction on the first list while the
second varies. -/
theorem revOnto_eq {A : Type} (l m : Lst A) : revOnto l m = rev l ++ m := by
  have snoc_app : ∀ (k j : Lst A) (x : A), snoc k x ++ j = k ++ cons x j := by
    intro k j x
    induction k with
    | nil => rfl
    | cons y k ih => exact congrArg (cons y) ih
  induction l generalizing m with
  | nil => rfl
  | cons x l ih => rw [rev_cons, snoc_app, ← ih]; rfl

/-- Reversing with an accumulator is undone by doing it again. By induction on the list, for any accumulator: the second
pass puts the elements back in front of it. -/
theorem revOnto_revOnto {A : Type} (l : Lst A) : revOnto (revOnto l nil) nil = l := by
  have gen : ∀ k m : Lst A, revOnto (revOnto k m) nil = revOnto m k := by
    intro k
    induction k with
    | nil => intro m; rfl
    | cons x k ih => intro m; exact ih (cons x m)
  exact gen l nil

/-- What is appended on the left can be cancelled. By induction on it: its elements are stripped from both sides. -/
theorem app_left_cancel {A : Type} (l m k : Lst A) (h : l ++ m = l ++ k) : m = k := by
  induction l with
  | nil => exact h
  | cons x l ih =>
    rw [cons_app, cons_app] at h
    injection h with _ h
    exact ih h

/-- If two lists appended give the empty list, both are empty. The first has no head, and then neither has the
second. -/
theorem eq_nil_of_app_eq_nil {A : Type} (l m : Lst A) (h : l ++ m = nil) : l = nil ∧ m = nil := by
  cases l with
  | nil => exact ⟨rfl, h⟩
  | cons x l => cases h

/-- A list is empty exactly if its length is zero. By cases on the list. -/
theorem len_eq_z_iff {A : Type} (l : Lst A) : len l = z ↔ l = nil := by
  constructor
  · intro h
    cases l with
    | nil => rfl
    | cons x l => cases h
  · intro h
    rw [h]
    rfl

/-- A member of two lists appended is a member of one of them, and the other way round. By induction on the first
list. -/
theorem mem_app_iff {A : Type} (x : A) (l m : Lst A) : Mem x (l ++ m) ↔ Mem x l ∨ Mem x m := by
  constructor
  · intro h
    induction l with
    | nil => exact Or.inr h
    | cons y l ih =>
      cases h with
      | head => exact Or.inl Mem.head
      | tail h => exact (ih h).imp Mem.tail id
  · intro h
    rcases h with h | h
    · induction h with
      | head => exact Mem.head
      | tail _ ih => exact Mem.tail ih
    · induction l with
      | nil => exact h
      | cons y l ih => exact Mem.tail ih

/-- What is in the image of a list is the image of one of its members. By induction on the list. -/
theorem exists_of_mem_map {A B : Type} (f : A → B) (y : B) (l : Lst A) (h : Mem y (map f l)) :
    ∃ x, Mem x l ∧ y = f x := by
  induction l with
  | nil => cases h
  | cons x l ih =>
    cases h with
    | head => exact ⟨x, Mem.head, rfl⟩
    | tail h =>
      obtain ⟨w, hw, e⟩ := ih h
      exact ⟨w, Mem.tail hw, e⟩

/-- Flattening two lists of lists appended is appending what each is flattened to. By induction on the first, with the
associativity of appending. -/
theorem flat_app {A : Type} (k m : Lst (Lst A)) : flat (k ++ m) = flat k ++ flat m := by
  have assoc : ∀ a b c : Lst A, a ++ b ++ c = a ++ (b ++ c) := by
    intro a b c
    induction a with
    | nil => rfl
    | cons x a ih => rw [cons_app, cons_app, ih, cons_app]
  induction k with
  | nil => rfl
  | cons l k ih => rw [cons_app, flat_cons, ih, flat_cons, assoc]

/-- Mapping over a flattened list of lists is mapping over each list first and flattening then. By induction, with the
image of two lists appended. -/
theorem map_flat {A B : Type} (f : A → B) (ls : Lst (Lst A)) : map f (flat ls) = flat (map (map f) ls) := by
  have map_app : ∀ a b : Lst A, map f (a ++ b) = map f a ++ map f b := by
    intro a b
    induction a with
    | nil => rfl
    | cons x a ih => rw [cons_app, map_cons, ih, map_cons, cons_app]
  induction ls with
  | nil => rfl
  | cons l ls ih => rw [flat_cons, map_app, ih, map_cons, flat_cons]

/-- A list of lists of lists may be flattened from the inside or from the outside. By induction; the step needs how
flattening meets appending. -/
theorem flat_flat {A : Type} (ls : Lst (Lst (Lst A))) : flat (flat ls) = flat (map flat ls) := by
  have assoc : ∀ a b c : Lst A, a ++ b ++ c = a ++ (b ++ c) := by
    intro a b c
    induction a with
    | nil => rfl
    | cons x a ih => rw [cons_app, cons_app, ih, cons_app]
  have flat_app : ∀ a b : Lst (Lst A), flat (a ++ b) = flat a ++ flat b := by
    intro a b
    induction a with
    | nil => rfl
    | cons l a ih => rw [cons_app, flat_cons, ih, flat_cons, assoc]
  induction ls with
  | nil => rfl
  | cons l ls ih => rw [flat_cons, flat_app, ih, map_cons, flat_cons]

/-- Mapping an injective function is injective: lists with the same image are the same. By induction on the first list,
with cases on the second. -/
theorem map_injective {A B : Type} (f : A → B) (hf : ∀ x y, f x = f y → x = y) (l m : Lst A)
    (h : map f l = map f m) : l = m := by
  induction l generalizing m with
  | nil =>
    cases m with
    | nil => rfl
    | cons y m => cases h
  | cons x l ih =>
    cases m with
    | nil => cases h
    | cons y m =>
      rw [map_cons, map_cons] at h
      injection h with h k
      rw [hf x y h, ih m k]

/-- A list in which every element equals x is the repetition of x as often as the list is long. By induction on the
list. -/
theorem eq_rep_of_all_eq {A : Type} (x : A) (l : Lst A) (h : ∀ y, Mem y l → y = x) : l = rep x (len l) := by
  induction l with
  | nil => rfl
  | cons y l ih =>
    have e := h y Mem.head
    have k := ih (fun w hw => h w (Mem.tail hw))
    subst e
    exact congrArg (cons y) k

/-- The reverse of a repetition is the same repetition. By induction, since an element more at the end is the same as
one more in front. -/
theorem rev_rep {A : Type} (x : A) (n : N) : rev (rep x n) = rep x n := by
  have snoc_rep : ∀ m, snoc (rep x m) x = cons x (rep x m) := by
    intro m
    induction m with
    | z => rfl
    | s m ih => exact congrArg (cons x) ih
  induction n with
  | z => rfl
  | s n ih =>
    show snoc (rev (rep x n)) x = cons x (rep x n)
    rw [ih, snoc_rep]

/-- A member of a list can be found at a place: the list is something, the member, and something more. By induction on
the membership. -/
theorem split_of_mem {A : Type} (x : A) (l : Lst A) (h : Mem x l) : ∃ m k, l = m ++ cons x k := by
  induction h with
  | @head l => exact ⟨nil, l, rfl⟩
  | @tail y l _ ih =>
    obtain ⟨m, k, e⟩ := ih
    exact ⟨cons y m, k, by rw [e, cons_app]⟩

/-- A list has the same members as its reverse. By induction; being a member of a list with an element at its end is
being that element or a member of the rest. -/
theorem mem_rev_iff {A : Type} (x : A) (l : Lst A) : Mem x (rev l) ↔ Mem x l := by
  have of_snoc : ∀ (m : Lst A) (y : A), Mem x (snoc m y) → Mem x (cons y m) := by
    intro m y h
    induction m with
    | nil => exact h
    | cons w m ih =>
      cases h with
      | head => exact Mem.tail Mem.head
      | tail h =>
        cases ih h with
        | head => exact Mem.head
        | tail h => exact Mem.tail (Mem.tail h)
  have last : ∀ m : Lst A, Mem x (snoc m x) := by
    intro m
    induction m with
    | nil => exact Mem.head
    | cons w m ih => exact Mem.tail ih
  have early : ∀ (m : Lst A) (y : A), Mem x m → Mem x (snoc m y) := by
    intro m y h
    induction h with
    | head => exact Mem.head
    | tail _ ih => exact Mem.tail ih
  constructor
  · intro h
    induction l with
    | nil => exact h
    | cons y l ih =>
      cases of_snoc _ _ h with
      | head => exact Mem.head
      | tail h => exact Mem.tail (ih h)
  · intro h
    induction h with
    | head => exact last _
    | tail _ ih => exact early _ _ ih

/-- What is appended on the right can be cancelled. By induction on the two lists in front; if just one of them has
ended, the lengths cannot agree. -/
theorem app_right_cancel {A : Type} (l m k : Lst A) (h : l ++ k = m ++ k) : l = m := by
  have len_app : ∀ a b : Lst A, len (a ++ b) = len a + len b := by
    intro a b
    induction a with
    | nil => exact (z_plus _).symm
    | cons x a ih => rw [cons_app, len_cons, ih, len_cons, s_plus]
  have longer : ∀ a b : N, b ≠ s a + b := by
    intro a b e
    induction b with
    | z => cases e
    | s b ih => injection e with e; exact ih e
  induction l generalizing m with
  | nil =>
    cases m with
    | nil => rfl
    | cons y m =>
      have e := congrArg len h
      rw [len_app (cons y m)] at e
      exact absurd e (longer _ _)
  | cons x l ih =>
    cases m with
    | nil =>
      have e := congrArg len h
      rw [len_app (cons x l)] at e
      exact absurd e.symm (longer _ _)
    | cons y m =>
      rw [cons_app, cons_app] at h
      injection h with h g
      rw [h, ih m g]

/-- Two lists that are appended to give the same in two ways overlap: one of the first parts is the beginning of the
other. By induction on one first part, with cases on the other. -/
theorem app_eq_app {A : Type} (a b c d : Lst A) (h : a ++ b = c ++ d) :
    (∃ e, c = a ++ e ∧ b = e ++ d) ∨ ∃ e, a = c ++ e ∧ d = e ++ b := by
  induction a generalizing c with
  | nil => exact Or.inl ⟨c, rfl, h⟩
  | cons x a ih =>
    cases c with
    | nil => exact Or.inr ⟨cons x a, rfl, h.symm⟩
    | cons y c =>
      rw [cons_app, cons_app] at h
      injection h with h k
      subst h
      rcases ih c k with ⟨e, h1, h2⟩ | ⟨e, h1, h2⟩
      · exact Or.inl ⟨e, by rw [h1, cons_app], h2⟩
      · exact Or.inr ⟨e, by rw [h1, cons_app], h2⟩

/-- If one list is the reverse of another, then the other is the reverse of the one. By induction, since a reversal
brings the element that was put at the end back to the front. -/
theorem eq_rev_of_rev_eq {A : Type} (l m : Lst A) (h : rev l = m) : l = rev m := by
  have rev_snoc : ∀ (k : Lst A) (x : A), rev (snoc k x) = cons x (rev k) := by
    intro k x
    induction k with
    | nil => rfl
    | cons y k ih =>
      show snoc (rev (snoc k x)) y = cons x (rev (cons y k))
      rw [ih]
      rfl
  subst h
  induction l with
  | nil => rfl
  | cons x l ih => rw [rev_cons, rev_snoc, ← ih]

/-- A list to which an element can be added in front or at the end with the same result repeats that element throughout.
By induction: its head is the element, and its rest has the same property. -/
theorem eq_rep_of_comm {A : Type} (x : A) (l : Lst A) (h : l ++ cons x nil = cons x l) : l = rep x (len l) := by
  induction l with
  | nil => rfl
  | cons y l ih =>
    rw [cons_app] at h
    injection h with h k
    subst h
    exact congrArg (cons y) (ih k)
