inductive N | z | s (n : N)
/-- Integers: a natural number, or one less than the opposite of a natural number. -/
inductive Z | pos (n : N) | negs (n : N)
namespace Z
open N

def plus : N → N → N
  | a, z => a
  | a, s b => s (plus a b)

instance : Add N := ⟨plus⟩

abbrev zero : Z := pos z

def up : Z → Z
  | pos n => pos (s n)
  | negs z => pos z
  | negs (s n) => negs n

def down : Z → Z
  | pos z => negs z
  | pos (s n) => pos n
  | negs n => negs (s n)

def opp : Z → Z
  | pos z => pos z
  | pos (s n) => negs n
  | negs n => pos (s n)

/-- A function applied so many times. -/
def iter (f : Z → Z) : N → Z → Z
  | z, a => a
  | s n, a => f (iter f n a)

def add : Z → Z → Z
  | a, pos n => iter up n a
  | a, negs n => down (iter down n a)

instance : Add Z := ⟨add⟩
instance : Sub Z := ⟨fun a b => a + opp b⟩

/-- The natural number that says how far from zero. -/
def abs : Z → N
  | pos n => n
  | negs n => s n

/-- A multiple: so many summands of the same integer. -/
def times : N → Z → Z
  | z, _ => zero
  | s n, a => times n a + a

def Le (a b : Z) : Prop := ∃ n, b = a + pos n

theorem up_down (a : Z) : up (down a) = a := by
  cases a with
  | pos n => cases n <;> rfl
  | negs n => rfl
theorem down_up (a : Z) : down (up a) = a := by
  cases a with
  | pos n => rfl
  | negs n => cases n <;> rfl
/-- What holds at zero and passes to both neighbours holds everywhere. -/
theorem induct {p : Z → Prop} (base : p zero) (above : ∀ a, p a → p (up a)) (below : ∀ a, p a → p (down a)) (a : Z) :
    p a := by
  cases a with
  | pos n =>
    induction n with
    | z => exact base
    | s n ih => exact above _ ih
  | negs n =>
    induction n with
    | z => exact below _ base
    | s n ih => exact below _ ih
theorem add_zero (a : Z) : a + zero = a := rfl
theorem add_up (a b : Z) : a + up b = up (a + b) := by
  cases b with
  | pos n => rfl
  | negs n => cases n <;> exact (up_down _).symm
theorem add_down (a b : Z) : a + down b = down (a + b) := by
  cases b with
  | pos n =>
    cases n with
    | z => rfl
    | s n => exact (down_up _).symm
  | negs n => rfl
theorem opp_up (a : Z) : opp (up a) = down (opp a) := by
  cases a with
  | pos n => cases n <;> rfl
  | negs n => cases n <;> rfl
theorem opp_down (a : Z) : opp (down a) = up (opp a) := by
  cases a with
  | pos n =>
    cases n with
    | z => rfl
    | s n => cases n <;> rfl
  | negs n => rfl
theorem zero_add (a : Z) : zero + a = a := by
  induction a using induct with
  | base => rfl
  | above a ih => rw [add_up, ih]
  | below a ih => rw [add_down, ih]
theorem up_add (a b : Z) : up a + b = up (a + b) := by
  induction b using induct with
  | base => rfl
  | above b ih => rw [add_up, ih, add_up]
  | below b ih => rw [add_down, ih, add_down, down_up, up_down]
theorem down_add (a b : Z) : down a + b = down (a + b) := by
  induction b using induct with
  | base => rfl
  | above b ih => rw [add_up, ih, add_up, down_up, up_down]
  | below b ih => rw [add_down, ih, add_down]
theorem add_assoc (a b c : Z) : a + b + c = a + (b + c) := by
  induction c using induct with
  | base => rfl
  | above c ih => rw [add_up, ih, add_up, add_up]
  | below c ih => rw [add_down, ih, add_down, add_down]
theorem add_comm (a b : Z) : a + b = b + a := by
  induction b using induct with
  | base => rw [zero_add]; rfl
  | above b ih => rw [add_up, ih, up_add]
  | below b ih => rw [add_down, ih, down_add]
instance : Std.Associative (α := Z) (· + ·) := ⟨add_assoc⟩
instance : Std.Commutative (α := Z) (· + ·) := ⟨add_comm⟩
theorem add_opp (a : Z) : a + opp a = zero := by
  induction a using induct with
  | base => rfl
  | above a ih => rw [opp_up, add_down, up_add, down_up, ih]
  | below a ih => rw [opp_down, add_up, down_add, up_down, ih]
theorem sub_def (a b : Z) : a - b = a + opp b := rfl
theorem times_s (n : N) (a : Z) : times (s n) a = times n a + a := rfl

-- theorems

/-- The opposite of the opposite of an integer is the integer. By cases. -/
theorem opp_opp (a : Z) : opp (opp a) = a := by
  cases a with
  | pos n => cases n <;> rfl
  | negs n => rfl

/-- Adding one, the integer after zero, is going to the next integer. By definition. -/
theorem add_one (a : Z) : a + up zero = up a := by
  rfl

/-- An integer minus itself is zero, as its sum with its opposite. -/
theorem sub_self (a : Z) : a - a = zero := by
  rw [sub_def, add_opp]

/-- Integers with the same next integer are equal. Step back from both. -/
theorem up_injective (a b : Z) (h : up a = up b) : a = b := by
  rw [← down_up a, h, down_up]

/-- Every integer comes next after some integer: the one before it. -/
theorem up_surjective (a : Z) : ∃ b, up b = a := by
  exact ⟨down a, up_down a⟩

/-- The opposite of a sum is the sum of the opposites. By induction on the second summand in both directions. -/
theorem opp_add (a b : Z) : opp (a + b) = opp a + opp b := by
  induction b using induct with
  | base => rfl
  | above b ih => rw [add_up, opp_up, ih, opp_up, add_down]
  | below b ih => rw [add_down, opp_down, ih, opp_down, add_up]

/-- The natural numbers are embedded with their addition: the integer of a sum is the sum of the integers. By induction
on the second summand. -/
theorem pos_plus (m n : N) : pos (m + n) = pos m + pos n := by
  induction n with
  | z => rfl
  | s n ih => exact congrArg up ih

/-- Taking an integer away and adding it again changes nothing. By associativity, since the opposite and the integer
cancel. -/
theorem sub_add_cancel (a b : Z) : a - b + b = a := by
  rw [sub_def, add_assoc, add_comm (opp b), add_opp, add_zero]

/-- If the same integer is taken away from two others with the same result, the two are equal. Add it to both sides,
where it cancels its opposite. -/
theorem sub_right_cancel (a b c : Z) (h : a - c = b - c) : a = b := by
  have k : a - c + c = b - c + c := by rw [h]
  rw [sub_def, sub_def, add_assoc, add_assoc, add_comm (opp c), add_opp] at k
  exact k

/-- An integer and its opposite are equally far from zero. By cases. -/
theorem abs_opp (a : Z) : abs (opp a) = abs a := by
  cases a with
  | pos n => cases n <;> rfl
  | negs n => rfl

/-- Only zero has distance zero from zero. By cases. -/
theorem eq_zero_of_abs (a : Z) (h : abs a = z) : a = zero := by
  cases a with
  | pos n => exact congrArg pos h
  | negs n => cases h

/-- Every integer is a natural number or the opposite of one. By cases. -/
theorem pos_or_opp (a : Z) : ∃ n, a = pos n ∨ a = opp (pos n) := by
  cases a with
  | pos n => exact ⟨n, Or.inl rfl⟩
  | negs n => exact ⟨s n, Or.inr rfl⟩

/-- Zero is the only integer that is its own opposite. By cases: otherwise the two lie on different sides. -/
theorem eq_zero_of_opp_eq (a : Z) (h : opp a = a) : a = zero := by
  cases a with
  | pos n =>
    cases n with
    | z => rfl
    | s n => cases h
  | negs n => cases h

/-- Integers with equal opposites are equal. Take opposites once more. -/
theorem opp_injective (a b : Z) (h : opp a = opp b) : a = b := by
  have twice : ∀ x, opp (opp x) = x := by
    intro x
    cases x with
    | pos n => cases n <;> rfl
    | negs n => rfl
  rw [← twice a, h, twice]

/-- The opposite of a difference is the difference the other way round. The opposite goes into the sum and cancels with
another. -/
theorem opp_sub (a b : Z) : opp (a - b) = b - a := by
  rw [sub_def, sub_def]
  induction a using induct with
  | base =>
    rw [zero_add]
    show opp (opp b) = b
    cases b with
    | pos n => cases n <;> rfl
    | negs n => rfl
  | above a ih => rw [up_add, opp_up, ih, opp_up, add_down]
  | below a ih => rw [down_add, opp_down, ih, opp_down, add_up]

/-- Taking away two integers in turn is taking away their sum. By the opposite of a sum, which induction gives. -/
theorem sub_sub (a b c : Z) : a - b - c = a - (b + c) := by
  rw [sub_def, sub_def, sub_def]
  induction c using induct with
  | base => rfl
  | above c ih => rw [opp_up, add_down, ih, add_up, opp_up, add_down]
  | below c ih => rw [opp_down, add_up, ih, add_down, opp_down, add_up]

/-- A difference is zero exactly if the two integers are equal. Add the one that is taken away to both sides. -/
theorem sub_eq_zero_iff (a b : Z) : a - b = zero ↔ a = b := by
  constructor
  · intro h
    have k : a - b + b = zero + b := by rw [h]
    rw [sub_def, add_assoc, add_comm (opp b), add_opp, zero_add] at k
    exact k
  · intro h
    rw [h, sub_def, add_opp]

/-- An integer has only one opposite: what adds up to zero with it. Add the opposite to both sides. -/
theorem eq_opp_of_add_eq_zero (a b : Z) (h : a + b = zero) : b = opp a := by
  have k : opp a + (a + b) = opp a + zero := by rw [h]
  rw [← add_assoc, add_comm (opp a), add_opp, zero_add] at k
  exact k

/-- For given integers a and b there is exactly one that gives b when added to a. It is the difference of the two. -/
theorem exists_unique_add (a b : Z) : ∃ x, a + x = b ∧ ∀ y, a + y = b → y = x := by
  refine ⟨opp a + b, ?_, ?_⟩
  · rw [← add_assoc, add_opp, zero_add]
  · intro y h
    rw [← h, ← add_assoc, add_comm (opp a), add_opp, zero_add]

/-- Applying a function m plus n times is applying it m times and then n times. By induction on n. -/
theorem iter_plus (f : Z → Z) (m n : N) (a : Z) : iter f (m + n) a = iter f n (iter f m a) := by
  induction n with
  | z => rfl
  | s n ih => exact congrArg f ih

/-- If a first function undoes a second, then applying it n times undoes n applications of the second. By induction on
n, with the innermost applications cancelled. -/
theorem iter_inverse (f g : Z → Z) (h : ∀ a, f (g a) = a) (n : N) (a : Z) : iter f n (iter g n a) = a := by
  have shift : ∀ (m : N) (x : Z), f (iter f m x) = iter f m (f x) := by
    intro m x
    induction m with
    | z => rfl
    | s m ih => exact congrArg f ih
  induction n with
  | z => rfl
  | s n ih =>
    show f (iter f n (g (iter g n a))) = a
    rw [shift, h, ih]

/-- A function on the integers that commutes with the step forwards commutes with the step backwards. The step forwards
undoes what is to be compared. -/
theorem comm_down (f : Z → Z) (h : ∀ a, f (up a) = up (f a)) (a : Z) : f (down a) = down (f a) := by
  have k := h (down a)
  rw [up_down] at k
  rw [k, down_up]

/-- A function that commutes with the step forwards is a translation: it adds its value at zero. By induction in both
directions. -/
theorem translation (f : Z → Z) (h : ∀ a, f (up a) = up (f a)) (a : Z) : f a = f zero + a := by
  induction a using induct with
  | base => rfl
  | above a ih => rw [h, ih, add_up]
  | below a ih =>
    have k := h (down a)
    rw [up_down, ih] at k
    rw [add_down, k, down_up]

/-- A function that respects sums takes zero to zero. Its value at zero is twice that value, and cancels. -/
theorem additive_zero (f : Z → Z) (h : ∀ a b, f (a + b) = f a + f b) : f zero = zero := by
  have k : f zero = f zero + f zero := h zero zero
  have l : f zero + opp (f zero) = f zero + f zero + opp (f zero) := by rw [← k]
  rw [add_assoc, add_opp, add_zero] at l
  exact l.symm

/-- A function that respects sums respects opposites. The values at an integer and at its opposite add up to the value
at zero, which is zero. -/
theorem additive_opp (f : Z → Z) (h : ∀ a b, f (a + b) = f a + f b) (a : Z) : f (opp a) = opp (f a) := by
  have zero_zero : f zero = zero := by
    have k : f zero = f zero + f zero := h zero zero
    have l : f zero + opp (f zero) = f zero + f zero + opp (f zero) := by rw [← k]
    rw [add_assoc, add_opp, add_zero] at l
    exact l.symm
  have k := h a (opp a)
  rw [add_opp, zero_zero] at k
  have l : opp (f a) + (f a + f (opp a)) = opp (f a) := by rw [← k]; rfl
  rw [← add_assoc, add_comm (opp (f a)), add_opp, zero_add] at l
  exact l

/-- Two functions that respect sums and agree at one agree everywhere. By induction in both directions; a step adds the
value at one or takes it away. -/
theorem additive_unique (f g : Z → Z) (hf : ∀ a b, f (a + b) = f a + f b) (hg : ∀ a b, g (a + b) = g a + g b)
    (h : f (up zero) = g (up zero)) (a : Z) : f a = g a := by
  have stay : ∀ x y : Z, x = x + y → y = zero := by
    intro x y e
    have k : opp x + x = opp x + (x + y) := by rw [← e]
    rw [← add_assoc, add_comm (opp x), add_opp, zero_add] at k
    exact k.symm
  have cancel : ∀ x y w : Z, x + w = y + w → x = y := by
    intro x y w e
    have k : x + w + opp w = y + w + opp w := by rw [e]
    rw [add_assoc, add_assoc, add_opp] at k
    exact k
  induction a using induct with
  | base => rw [stay _ _ (hf zero zero), stay _ _ (hg zero zero)]
  | above a ih => exact (hf a (up zero)).trans ((congr (congrArg _ ih) h).trans (hg a (up zero)).symm)
  | below a ih =>
    apply cancel _ _ (f (up zero))
    rw [← hf, h, ← hg, add_up, add_zero, up_down]
    exact ih

/-- Integers that are equally far from zero are equal or opposite. By cases on their signs. -/
theorem eq_or_opp_of_abs (a b : Z) (h : abs a = abs b) : a = b ∨ a = opp b := by
  cases a with
  | pos m =>
    cases b with
    | pos n => exact Or.inl (congrArg pos h)
    | negs n => exact Or.inr (congrArg pos h)
  | negs m =>
    cases b with
    | pos n =>
      refine Or.inr ?_
      change s m = n at h
      rw [← h]
      rfl
    | negs n => injection h with h; exact Or.inl (congrArg negs h)

/-- A multiple of a sum is the sum of the multiples. By induction on how many summands, regrouping four. -/
theorem times_add (n : N) (a b : Z) : times n (a + b) = times n a + times n b := by
  induction n with
  | z => rfl
  | s n ih => rw [times_s, times_s, times_s, ih]; ac_rfl

/-- The sum of m and n times an integer is m times it plus n times it. By induction on n. -/
theorem times_plus (m n : N) (a : Z) : times (m + n) a = times m a + times n a := by
  induction n with
  | z => rfl
  | s n ih =>
    show times (m + n) a + a = times m a + (times n a + a)
    rw [ih, add_assoc]

/-- A multiple of the opposite is the opposite of the multiple. By induction, with the opposite of a sum. -/
theorem times_opp (n : N) (a : Z) : times n (opp a) = opp (times n a) := by
  have opp_add : ∀ x y : Z, opp (x + y) = opp x + opp y := by
    intro x y
    induction y using induct with
    | base => rfl
    | above y ih => rw [add_up, opp_up, ih, opp_up, add_down]
    | below y ih => rw [add_down, opp_down, ih, opp_down, add_up]
  induction n with
  | z => rfl
  | s n ih => rw [times_s, times_s, ih, opp_add]

/-- The order of the integers is transitive: what is added in two steps can be added at once. -/
theorem le_trans (a b c : Z) (h : Le a b) (k : Le b c) : Le a c := by
  obtain ⟨m, h⟩ := h
  obtain ⟨n, k⟩ := k
  have sum : ∀ i j : N, pos i + pos j = pos (i + j) := by
    intro i j
    induction j with
    | z => rfl
    | s j ih => exact congrArg up ih
  exact ⟨m + n, by rw [k, h, add_assoc, sum]⟩

/-- The same integer may be added on both sides of a comparison. What is between the sides stays the same. -/
theorem add_le_add_right (a b c : Z) (h : Le a b) : Le (a + c) (b + c) := by
  obtain ⟨n, h⟩ := h
  exact ⟨n, by rw [h]; ac_rfl⟩

/-- Taking opposites reverses the order. What leads from the one integer to the other leads from the other's opposite to
the one's. -/
theorem opp_le_opp (a b : Z) (h : Le a b) : Le (opp b) (opp a) := by
  have opp_add : ∀ x y : Z, opp (x + y) = opp x + opp y := by
    intro x y
    induction y using induct with
    | base => rfl
    | above y ih => rw [add_up, opp_up, ih, opp_up, add_down]
    | below y ih => rw [add_down, opp_down, ih, opp_down, add_up]
  obtain ⟨n, h⟩ := h
  exact ⟨n, by rw [h, opp_add, add_assoc, add_comm (opp (pos n)), add_opp]; rfl⟩

/-- Induction from any integer upwards: what holds there, and passes from each integer above to the next, holds at all
integers that are not smaller. By induction on how far up they are. -/
theorem induction_from (p : Z → Prop) (a : Z) (h : p a) (step : ∀ b, Le a b → p b → p (up b)) (b : Z) (k : Le a b) :
    p b := by
  obtain ⟨n, k⟩ := k
  subst k
  induction n with
  | z => exact h
  | s n ih => exact step _ ⟨n, rfl⟩ ih

/-- The order of the integers is antisymmetric. What would have to be added in either direction adds up to zero, so each
of it is zero. -/
theorem le_antisymm (a b : Z) (h : Le a b) (k : Le b a) : a = b := by
  obtain ⟨m, h⟩ := h
  obtain ⟨n, k⟩ := k
  cases m with
  | z => exact h.symm
  | s m =>
    have e : a = a + pos (s m) + pos n := by rw [← h, ← k]
    have f : opp a + a = opp a + (a + pos (s m) + pos n) := by rw [← e]
    rw [add_assoc, ← add_assoc, add_comm (opp a), add_opp, zero_add] at f
    have g : ∀ i, ∃ j, pos (s m) + pos i = pos (s j) := by
      intro i
      induction i with
      | z => exact ⟨m, rfl⟩
      | s i ih =>
        obtain ⟨j, ih⟩ := ih
        exact ⟨s j, congrArg up ih⟩
    obtain ⟨j, g⟩ := g n
    rw [g] at f
    cases f

/-- Any two integers are comparable. Their difference is a natural number, or its opposite is. -/
theorem le_total (a b : Z) : Le a b ∨ Le b a := by
  have e : b = a + (b + opp a) := by rw [add_comm b, ← add_assoc, add_opp, zero_add]
  cases h : b + opp a with
  | pos n => rw [h] at e; exact Or.inl ⟨n, e⟩
  | negs n =>
    rw [h] at e
    refine Or.inr ⟨s n, ?_⟩
    have k : negs n + pos (s n) = zero := by rw [add_comm]; exact add_opp (pos (s n))
    rw [e, add_assoc, k]
    rfl

/-- Nothing lies between an integer and the next: what is at least the one and at most the other is one of the two. The
two distances add up to one, so one of them is zero. -/
theorem eq_or_up_of_between (a b : Z) (h : Le a b) (k : Le b (up a)) : b = a ∨ b = up a := by
  obtain ⟨m, h⟩ := h
  obtain ⟨n, k⟩ := k
  cases m with
  | z => exact Or.inl h
  | s m =>
    cases n with
    | z => exact Or.inr k.symm
    | s n =>
      have e : a = a + (pos m + pos (s n)) := by
        rw [h] at k
        change up a = up (a + pos m) + pos (s n) at k
        rw [up_add] at k
        have l := congrArg down k
        rw [down_up, down_up, add_assoc] at l
        exact l
      have f : opp a + a = opp a + (a + (pos m + pos (s n))) := by rw [← e]
      rw [← add_assoc, add_comm (opp a), add_opp, zero_add] at f
      have g : ∀ i, ∃ j, pos i + pos (s n) = pos (s j) := by
        intro i
        rw [add_comm]
        induction i with
        | z => exact ⟨n, rfl⟩
        | s i ih =>
          obtain ⟨j, ih⟩ := ih
          exact ⟨s j, congrArg up ih⟩
      obtain ⟨j, g⟩ := g m
      rw [g] at f
      cases f

/-- Every integer is the double of one, or one more than a double. By induction in both directions; a step back from a
double is one more than the double of the integer before. -/
theorem double_or (a : Z) : ∃ b, a = b + b ∨ a = up (b + b) := by
  induction a using induct with
  | base => exact ⟨zero, Or.inl rfl⟩
  | above a ih =>
    obtain ⟨b, h | h⟩ := ih
    · exact ⟨b, Or.inr (by rw [h])⟩
    · exact ⟨up b, Or.inl (by rw [h, up_add, add_up])⟩
  | below a ih =>
    obtain ⟨b, h | h⟩ := ih
    · exact ⟨down b, Or.inr (by rw [h, down_add, add_down, up_down])⟩
    · exact ⟨b, Or.inl (by rw [h, down_up])⟩

/-- No integer is both a double and one more than a double. Half the difference would be an integer whose double is one,
but a double is zero, or at least two, or negative. -/
theorem double_ne (a b : Z) : a + a ≠ up (b + b) := by
  have neg : ∀ n m : N, ∃ k, iter down n (negs m) = negs k := by
    intro n m
    induction n with
    | z => exact ⟨m, rfl⟩
    | s n ih =>
      obtain ⟨k, ih⟩ := ih
      exact ⟨s k, congrArg down ih⟩
  have one : ∀ d : Z, d + d ≠ up zero := by
    intro d h
    cases d with
    | pos n =>
      cases n with
      | z => cases h
      | s n =>
        have k := congrArg down h
        change down (up (pos (s n) + pos n)) = down (up zero) at k
        rw [down_up, down_up] at k
        cases n with
        | z => cases k
        | s n =>
          have sum : ∀ i j : N, pos i + pos j = pos (i + j) := by
            intro i j
            induction j with
            | z => rfl
            | s j ih => exact congrArg up ih
          rw [sum] at k
          cases k
    | negs n =>
      obtain ⟨k, e⟩ := neg n n
      change down (iter down n (negs n)) = _ at h
      rw [e] at h
      cases h
  intro h
  apply one (a + opp b)
  have e : a + opp b + (a + opp b) = a + a + (opp b + opp b) := by ac_rfl
  have f : b + b + (opp b + opp b) = b + opp b + (b + opp b) := by ac_rfl
  rw [e, h, up_add, f, add_opp]
  rfl

/-- The integers have no torsion: if a positive multiple of an integer is zero, the integer is. For a positive integer
the multiple is positive, and a negative one is the opposite of a positive one. -/
theorem eq_zero_of_times (n : N) (a : Z) (h : times (s n) a = zero) : a = zero := by
  have sum : ∀ i j : N, pos i + pos j = pos (i + j) := by
    intro i j
    induction j with
    | z => rfl
    | s j ih => exact congrArg up ih
  have nat : ∀ i j : N, ∃ k, times i (pos j) = pos k := by
    intro i j
    induction i with
    | z => exact ⟨z, rfl⟩
    | s i ih =>
      obtain ⟨k, ih⟩ := ih
      exact ⟨k + j, by rw [times_s, ih, sum]⟩
  have none : ∀ i j : N, times (s i) (pos (s j)) ≠ zero := by
    intro i j e
    obtain ⟨k, hk⟩ := nat i (s j)
    rw [times_s, hk, sum] at e
    cases e
  have back : ∀ (i : N) (x : Z), times i x + times i (opp x) = zero := by
    intro i x
    induction i with
    | z => rfl
    | s i ih =>
      have e : times i x + x + (times i (opp x) + opp x) = times i x + times i (opp x) + (x + opp x) := by ac_rfl
      rw [times_s, times_s, e, ih, add_opp]
      rfl
  cases a with
  | pos m =>
    cases m with
    | z => rfl
    | s m => exact absurd h (none n m)
  | negs m =>
    have k := back (s n) (negs m)
    rw [h, zero_add] at k
    exact absurd k (none n m)
