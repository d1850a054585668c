inductive Peano | z | s (n : Peano)
namespace Peano

def add : Peano → Peano → Peano
  | a, z => a
  | a, s b => s (add a b)

/-- Subtraction that stops at zero. -/
def sub : Peano → Peano → Peano
  | a, z => a
  | z, s _ => z
  | s a, s b => sub a b

def max : Peano → Peano → Peano
  | z, b => b
  | s a, z => s a
  | s a, s b => s (max a b)

def min : Peano → Peano → Peano
  | z, _ => z
  | s _, z => z
  | s a, s b => s (min a b)

/-- `b` is reached from `a` by successors. -/
inductive Le (a : Peano) : Peano → Prop
  | refl : Le a a
  | step {b : Peano} : Le a b → Le a (s b)

instance : Add Peano := ⟨add⟩
instance : Sub Peano := ⟨sub⟩
instance : LE Peano := ⟨Le⟩
instance : LT Peano := ⟨fun a b => s a ≤ b⟩

theorem add_z (a : Peano) : a + z = a := rfl
theorem add_s (a b : Peano) : a + s b = s (a + b) := rfl
theorem z_add (a : Peano) : z + a = a := by
  induction a with
  | z => rfl
  | s n ih => rw [add_s, ih]
theorem s_add (a b : Peano) : s a + b = s (a + b) := by
  induction b with
  | z => rfl
  | s n ih => rw [add_s, ih, add_s]
theorem sub_z (a : Peano) : a - z = a := by cases a <;> rfl
theorem s_sub_s (a b : Peano) : s a - s b = a - b := rfl
theorem max_s (a b : Peano) : max (s a) (s b) = s (max a b) := rfl
theorem min_s (a b : Peano) : min (s a) (s b) = s (min a b) := rfl
theorem lt_def (a b : Peano) : a < b ↔ s a ≤ b := Iff.rfl
theorem le_refl (a : Peano) : a ≤ a := Le.refl
theorem le_step {a b : Peano} (h : a ≤ b) : a ≤ s b := Le.step h
theorem z_le (a : Peano) : z ≤ a := by
  induction a with
  | z => exact Le.refl
  | s n ih => exact Le.step ih
theorem le_trans {a b c : Peano} (h : a ≤ b) (k : b ≤ c) : a ≤ c := by
  induction k with
  | refl => exact h
  | step _ ih => exact Le.step ih
theorem s_le_s {a b : Peano} (h : a ≤ b) : s a ≤ s b := by
  induction h with
  | refl => exact Le.refl
  | step _ ih => exact Le.step ih
theorem le_of_s_le_s {a b : Peano} (h : s a ≤ s b) : a ≤ b := by
  cases h with
  | refl => exact Le.refl
  | step h => exact le_trans (Le.step Le.refl) h
theorem not_s_le (a : Peano) : ¬ s a ≤ a := by
  induction a with
  | z => intro h; cases h
  | s n ih => intro h; exact ih (le_of_s_le_s h)

-- theorems

/-- Every number is less than its successor. Less than means that the successor is at most the other, and here they are
the same. -/
theorem lt_s (a : Peano) : a < s a := by
  exact le_refl (s a)

/-- Nothing is less than zero, since no constructor makes a successor at most zero. -/
theorem not_lt_z (a : Peano) : ¬ a < z := by
  intro h
  cases h

/-- A number that is at most zero is zero. Of the ways to be at most zero only being equal is left. -/
theorem eq_z_of_le_z (a : Peano) (h : a ≤ z) : a = z := by
  cases h
  rfl

/-- Zero is less than every successor, because it is at most the predecessor and both may be raised by one. -/
theorem z_lt_s (a : Peano) : z < s a := by
  exact s_le_s (z_le a)

/-- A number is at most its sum with any other. By induction on the other summand. -/
theorem le_add (a b : Peano) : a ≤ a + b := by
  induction b with
  | z => exact le_refl a
  | s n ih => exact le_step ih

/-- What is less than a number is at most that number. The step from a number to its successor comes first. -/
theorem le_of_lt (a b : Peano) (h : a < b) : a ≤ b := by
  exact le_trans (le_step (le_refl a)) h

/-- A number minus itself is zero. By induction: one successor comes off both at a time. -/
theorem sub_self (a : Peano) : a - a = z := by
  induction a with
  | z => rfl
  | s n ih => rw [s_sub_s, ih]

/-- Nothing can be taken from zero. By cases on what is taken. -/
theorem z_sub (a : Peano) : z - a = z := by
  cases a with
  | z => rfl
  | s n => rfl

/-- Adding a number and then taking it away again changes nothing. By induction on that number. -/
theorem add_sub_cancel (a b : Peano) : a + b - b = a := by
  induction b with
  | z => rw [add_z, sub_z]
  | s n ih => rw [add_s, s_sub_s, ih]

/-- The greater of a number and itself is the number. By induction. -/
theorem max_self (a : Peano) : max a a = a := by
  induction a with
  | z => rfl
  | s n ih => rw [max_s, ih]

/-- The smaller of a number and its successor is the number. By induction. -/
theorem min_s_self (a : Peano) : min a (s a) = a := by
  induction a with
  | z => rfl
  | s n ih => rw [min_s, ih]

/-- If every value of a function is at most the next, then a smaller argument has a value that is at most the value of a
greater one. By induction on the order of the arguments. -/
theorem monotone_of_step (f : Peano → Peano) (hf : ∀ n, f n ≤ f (s n)) (a b : Peano) (h : a ≤ b) : f a ≤ f b := by
  induction h with
  | refl => exact le_refl _
  | step _ ih => exact le_trans ih (hf _)

/-- If a number is at most a second, which is less than a third, then the first is less than the third. Raise the first
comparison by one and use transitivity. -/
theorem lt_of_le_of_lt (a b c : Peano) (h : a ≤ b) (k : b < c) : a < c := by
  exact le_trans (s_le_s h) k

/-- Less than is asymmetric: no two numbers are each less than the other. Otherwise some number would be less than
itself. -/
theorem lt_asymm (a b : Peano) (h : a < b) (k : b < a) : False := by
  exact not_s_le a (le_trans h (le_trans (le_step (le_refl b)) k))

/-- A strictly increasing function lies nowhere below the identity. By induction: each step raises the value by one at
least. -/
theorem le_of_increasing (f : Peano → Peano) (hf : ∀ n, f n < f (s n)) (a : Peano) : a ≤ f a := by
  induction a with
  | z => exact z_le _
  | s n ih => exact le_trans (s_le_s ih) (hf n)

/-- The maximum does not depend on the order of the two numbers. By induction on one of them and cases on the other. -/
theorem max_comm (a b : Peano) : max a b = max b a := by
  induction a generalizing b with
  | z => cases b <;> rfl
  | s n ih =>
    cases b with
    | z => rfl
    | s m => rw [max_s, ih, max_s]

/-- The minimum of three numbers can be taken in either bracketing. By induction on the first, with cases on the
others. -/
theorem min_assoc (a b c : Peano) : min (min a b) c = min a (min b c) := by
  induction a generalizing b c with
  | z => rfl
  | s n ih =>
    cases b with
    | z => rfl
    | s m =>
      cases c with
      | z => rfl
      | s k => rw [min_s, min_s, min_s, min_s, ih]

/-- The first of two numbers is at most their maximum. By induction on it and cases on the second. -/
theorem le_max_left (a b : Peano) : a ≤ max a b := by
  induction a generalizing b with
  | z => exact z_le _
  | s n ih =>
    cases b with
    | z => exact le_refl _
    | s m => exact s_le_s (ih m)

/-- The minimum of two numbers is at most the second. By induction on the second and cases on the first. -/
theorem min_le_right (a b : Peano) : min a b ≤ b := by
  induction b generalizing a with
  | z => cases a <;> exact le_refl z
  | s m ih =>
    cases a with
    | z => exact z_le _
    | s n => exact s_le_s (ih n)

/-- The maximum of two numbers is one of them. By induction on the first while the second varies. -/
theorem max_eq_or (a b : Peano) : max a b = a ∨ max a b = b := by
  induction a generalizing b with
  | z => exact Or.inr rfl
  | s n ih =>
    cases b with
    | z => exact Or.inl rfl
    | s m =>
      rcases ih m with h | h
      · exact Or.inl (by rw [max_s, h])
      · exact Or.inr (by rw [max_s, h])

/-- The maximum of a number with its minimum with another is the number itself. By induction on it, with cases on the
other. -/
theorem max_min_self (a b : Peano) : max a (min a b) = a := by
  induction a generalizing b with
  | z => rfl
  | s n ih =>
    cases b with
    | z => rfl
    | s m => rw [min_s, max_s, ih]

/-- The order is antisymmetric: two numbers that are each at most the other are equal. By induction on the first; a zero
meets only zero, and successors come off both. -/
theorem le_antisymm (a b : Peano) (h : a ≤ b) (k : b ≤ a) : a = b := by
  induction a generalizing b with
  | z => cases k; rfl
  | s n ih =>
    cases b with
    | z => cases h
    | s m => rw [ih m (le_of_s_le_s h) (le_of_s_le_s k)]

/-- Any two numbers are comparable: the first is at most the second or the second at most the first. By induction on the
first while the second varies. -/
theorem le_total (a b : Peano) : a ≤ b ∨ b ≤ a := by
  induction a generalizing b with
  | z => exact Or.inl (z_le b)
  | s n ih =>
    cases b with
    | z => exact Or.inr (z_le _)
    | s m => exact (ih m).imp s_le_s s_le_s

/-- Of two numbers, the first is less, or they are equal, or the second is less. By induction on the first, with cases
on the second. -/
theorem trichotomy (a b : Peano) : a < b ∨ a = b ∨ b < a := by
  induction a generalizing b with
  | z =>
    cases b with
    | z => exact Or.inr (Or.inl rfl)
    | s m => exact Or.inl (s_le_s (z_le m))
  | s n ih =>
    cases b with
    | z => exact Or.inr (Or.inr (s_le_s (z_le n)))
    | s m =>
      rcases ih m with h | h | h
      · exact Or.inl (s_le_s h)
      · exact Or.inr (Or.inl (by rw [h]))
      · exact Or.inr (Or.inr (s_le_s h))

/-- To be at most another number is to be less than it or equal to it. From left to right by the two ways to be at
most. -/
theorem le_iff_lt_or_eq (a b : Peano) : a ≤ b ↔ a < b ∨ a = b := by
  constructor
  · intro h
    cases h with
    | refl => exact Or.inr rfl
    | step h => exact Or.inl (s_le_s h)
  · intro h
    rcases h with h | h
    · exact le_trans (le_step (le_refl a)) h
    · rw [h]; exact le_refl b

/-- A number is at most another exactly if something can be added to it that gives the other. The successors by which
the other is reached are what is added. -/
theorem le_iff_exists_add (a b : Peano) : a ≤ b ↔ ∃ d, b = a + d := by
  constructor
  · intro h
    induction h with
    | refl => exact ⟨z, rfl⟩
    | step _ ih =>
      obtain ⟨d, h⟩ := ih
      exact ⟨s d, by rw [h, add_s]⟩
  · intro ⟨d, h⟩
    subst h
    induction d with
    | z => exact le_refl a
    | s d ih => exact le_step ih

/-- Comparisons may be added: if a is at most b and c at most d, then a plus c is at most b plus d. By induction on both
comparisons. -/
theorem add_le_add (a b c d : Peano) (h : a ≤ b) (k : c ≤ d) : a + c ≤ b + d := by
  induction k with
  | refl =>
    induction c with
    | z => exact h
    | s n ih => exact s_le_s ih
  | step _ ih => exact le_step ih

/-- A summand on the left can be cancelled from a comparison of two sums. By induction on it. -/
theorem le_of_add_le_add (a b c : Peano) (h : c + a ≤ c + b) : a ≤ b := by
  induction c with
  | z => rw [z_add, z_add] at h; exact h
  | s n ih => rw [s_add, s_add] at h; exact ih (le_of_s_le_s h)

/-- A number fails to be at most another exactly if the other is less than it. By induction on the first for one
direction; for the other, some number would be less than itself. -/
theorem not_le_iff_lt (a b : Peano) : ¬ a ≤ b ↔ b < a := by
  constructor
  · intro h
    induction a generalizing b with
    | z => exact absurd (z_le b) h
    | s n ih =>
      cases b with
      | z => exact s_le_s (z_le n)
      | s m => exact s_le_s (ih m (fun k => h (s_le_s k)))
  · intro h k
    exact not_s_le b (le_trans h k)

/-- A number is at most another exactly if their maximum is the other. By induction on the first, with cases on the
second. -/
theorem le_iff_max_eq (a b : Peano) : a ≤ b ↔ max a b = b := by
  induction a generalizing b with
  | z => exact ⟨fun _ => rfl, fun _ => z_le b⟩
  | s n ih =>
    cases b with
    | z =>
      constructor
      · intro h; cases h
      · intro h; cases h
    | s m =>
      constructor
      · intro h; rw [max_s, (ih m).1 (le_of_s_le_s h)]
      · intro h; injection h with h; exact s_le_s ((ih m).2 h)

/-- The maximum of two numbers is at most a third exactly if both of them are. By induction on the third, taking a
successor off all three. -/
theorem max_le_iff (a b c : Peano) : max a b ≤ c ↔ a ≤ c ∧ b ≤ c := by
  induction a generalizing b c with
  | z => exact ⟨fun h => ⟨z_le c, h⟩, fun h => h.2⟩
  | s n ih =>
    cases b with
    | z => exact ⟨fun h => ⟨h, z_le c⟩, fun h => h.1⟩
    | s m =>
      cases c with
      | z =>
        constructor
        · intro h; cases h
        · intro h; cases h.1
      | s k =>
        constructor
        · intro h
          have g := (ih m k).1 (le_of_s_le_s h)
          exact ⟨s_le_s g.1, s_le_s g.2⟩
        · intro h
          exact s_le_s ((ih m k).2 ⟨le_of_s_le_s h.1, le_of_s_le_s h.2⟩)

/-- The minimum distributes over the maximum. By induction on the number outside, with cases on the two inside. -/
theorem min_max_distrib (a b c : Peano) : min a (max b c) = max (min a b) (min a c) := by
  induction a generalizing b c with
  | z => rfl
  | s n ih =>
    cases b with
    | z => rfl
    | s m =>
      cases c with
      | z => rfl
      | s k => rw [max_s, min_s, min_s, min_s, max_s, ih]

/-- Adding the same number to both sides commutes with the maximum. By induction on the number that is added. -/
theorem max_add_add (a b c : Peano) : max (a + c) (b + c) = max a b + c := by
  induction c with
  | z => rfl
  | s n ih => rw [add_s, add_s, max_s, ih, add_s]

/-- The maximum and the minimum of two numbers have the same sum as the numbers themselves. By induction on the first,
with cases on the second. -/
theorem max_add_min (a b : Peano) : max a b + min a b = a + b := by
  induction a generalizing b with
  | z => rw [z_add]; rfl
  | s n ih =>
    cases b with
    | z => rfl
    | s m => rw [max_s, min_s, add_s, s_add, ih, add_s, s_add]

/-- Taking away a number that is not greater and adding it again gives back what there was. By induction on that
number. -/
theorem sub_add_cancel (a b : Peano) (h : b ≤ a) : a - b + b = a := by
  induction b generalizing a with
  | z => rw [sub_z, add_z]
  | s n ih =>
    cases a with
    | z => cases h
    | s m => rw [s_sub_s, add_s, ih m (le_of_s_le_s h)]

/-- Taking away one number and then another is taking away their sum. By induction on the first that is taken away. -/
theorem sub_sub (a b c : Peano) : a - b - c = a - (b + c) := by
  induction b generalizing a with
  | z => rw [sub_z, z_add]
  | s n ih =>
    cases a with
    | z => rw [s_add]; cases c <;> rfl
    | s m => rw [s_add, s_sub_s, s_sub_s, ih]

/-- A difference, stopped at zero, is zero exactly if what is taken away is at least as great. By induction on it. -/
theorem sub_eq_z_iff (a b : Peano) : a - b = z ↔ a ≤ b := by
  induction b generalizing a with
  | z =>
    rw [sub_z]
    constructor
    · intro h; rw [h]; exact le_refl z
    · intro h; cases h; rfl
  | s n ih =>
    cases a with
    | z => exact ⟨fun _ => z_le _, fun _ => rfl⟩
    | s m => exact ⟨fun h => s_le_s ((ih m).1 h), fun h => (ih m).2 (le_of_s_le_s h)⟩

/-- Subtraction is adjoint to addition: a minus b is at most c exactly if a is at most c plus b. By induction on b. -/
theorem sub_le_iff (a b c : Peano) : a - b ≤ c ↔ a ≤ c + b := by
  induction b generalizing a with
  | z => rw [sub_z, add_z]
  | s n ih =>
    cases a with
    | z => exact ⟨fun _ => z_le _, fun _ => z_le _⟩
    | s m => exact ⟨fun h => s_le_s ((ih m).1 h), fun h => (ih m).2 (le_of_s_le_s h)⟩

/-- The maximum of two numbers is the second plus what the first exceeds it by. By induction on the first, with cases on
the second. -/
theorem max_eq_add_sub (a b : Peano) : max a b = b + (a - b) := by
  induction a generalizing b with
  | z => cases b <;> rfl
  | s n ih =>
    cases b with
    | z => rw [z_add]; rfl
    | s m => rw [max_s, ih, s_sub_s, s_add]

/-- The minimum of two numbers is the first minus what it exceeds the second by. By induction on the first; the step
needs that a difference is never greater than what it was taken from. -/
theorem min_eq_sub_sub (a b : Peano) : min a b = a - (a - b) := by
  have self : ∀ x : Peano, x - x = z := by
    intro x
    induction x with
    | z => rfl
    | s n ih => rw [s_sub_s, ih]
  have le : ∀ x y : Peano, x - y ≤ x := by
    intro x
    induction x with
    | z => intro y; cases y <;> exact le_refl z
    | s n ih =>
      intro y
      cases y with
      | z => exact le_refl _
      | s m => exact le_step (ih m)
  have out : ∀ x y : Peano, y ≤ x → s x - y = s (x - y) := by
    intro x
    induction x with
    | z => intro y h; cases h; rfl
    | s n ih =>
      intro y h
      cases y with
      | z => rfl
      | s m => rw [s_sub_s, ih m (le_of_s_le_s h), s_sub_s]
  induction a generalizing b with
  | z => cases b <;> rfl
  | s n ih =>
    cases b with
    | z => rw [sub_z, self]; rfl
    | s m => rw [min_s, s_sub_s, out n _ (le n m), ih]

/-- The values of a function at the numbers up to a given one have a common upper bound. By induction: the sum of the
old bound and the new value is a bound. -/
theorem bounded_up_to (f : Peano → Peano) (n : Peano) : ∃ m, ∀ k, k ≤ n → f k ≤ m := by
  have le_add : ∀ x y : Peano, x ≤ x + y := by
    intro x y
    induction y with
    | z => exact le_refl x
    | s n ih => exact le_step ih
  have le_add_left : ∀ x y : Peano, x ≤ y + x := by
    intro x y
    induction x with
    | z => exact z_le _
    | s n ih => exact s_le_s ih
  induction n with
  | z => exact ⟨f z, fun k h => by cases h; exact le_refl _⟩
  | s n ih =>
    obtain ⟨m, hm⟩ := ih
    refine ⟨m + f (s n), fun k h => ?_⟩
    cases h with
    | refl => exact le_add_left _ _
    | step h => exact le_trans (hm k h) (le_add _ _)

/-- A strictly increasing function takes no value twice. Of two different arguments one is smaller, and induction shows
that its value is smaller too. -/
theorem injective_of_increasing (f : Peano → Peano) (hf : ∀ n, f n < f (s n)) (a b : Peano) (h : f a = f b) :
    a = b := by
  have mono : ∀ x y : Peano, x < y → f x < f y := by
    intro x y k
    induction k with
    | refl => exact hf x
    | step _ ih => exact le_trans ih (le_trans (le_step (le_refl _)) (hf _))
  have compare : ∀ x y : Peano, x < y ∨ x = y ∨ y < x := by
    intro x
    induction x with
    | z =>
      intro y
      cases y with
      | z => exact Or.inr (Or.inl rfl)
      | s m => exact Or.inl (s_le_s (z_le m))
    | s n ih =>
      intro y
      cases y with
      | z => exact Or.inr (Or.inr (s_le_s (z_le n)))
      | s m =>
        rcases ih m with k | k | k
        · exact Or.inl (s_le_s k)
        · exact Or.inr (Or.inl (by rw [k]))
        · exact Or.inr (Or.inr (s_le_s k))
  rcases compare a b with k | k | k
  · have g := mono a b k
    rw [h] at g
    exact absurd g (not_s_le _)
  · exact k
  · have g := mono b a k
    rw [h] at g
    exact absurd g (not_s_le _)

/-- There is no infinite strictly descending sequence of numbers. By induction on a bound for one of its members: the
next member is below a smaller bound. -/
theorem no_infinite_descent (f : Peano → Peano) (hf : ∀ n, f (s n) < f n) : False := by
  have none : ∀ b n : Peano, f n ≤ b → False := by
    intro b
    induction b with
    | z => intro n h; cases le_trans (hf n) h
    | s b ih => intro n h; exact ih (s n) (le_of_s_le_s (le_trans (hf n) h))
  exact none (f z) z (le_refl _)

/-- A property that some number has is had by a least number. By induction on a bound: either a least one has been found
by then, or all numbers with the property lie above. -/
theorem exists_least (p : Peano → Prop) (h : ∃ n, p n) : ∃ n, p n ∧ ∀ m, p m → n ≤ m := by
  have up_to : ∀ b : Peano, (∃ n, p n ∧ ∀ m, p m → n ≤ m) ∨ ∀ m, p m → s b ≤ m := by
    intro b
    induction b with
    | z =>
      by_cases hz : p z
      · exact Or.inl ⟨z, hz, fun m _ => z_le m⟩
      · refine Or.inr (fun m hm => ?_)
        cases m with
        | z => exact absurd hm hz
        | s m => exact s_le_s (z_le m)
    | s b ih =>
      rcases ih with found | above
      · exact Or.inl found
      · by_cases hb : p (s b)
        · exact Or.inl ⟨s b, hb, above⟩
        · refine Or.inr (fun m hm => ?_)
          cases above m hm with
          | refl => exact absurd hm hb
          | step k => exact s_le_s k
  obtain ⟨n, hn⟩ := h
  rcases up_to n with found | above
  · exact found
  · exact absurd (above n hn) (not_s_le n)
