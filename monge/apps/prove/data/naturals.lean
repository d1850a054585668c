inductive N | z | s (n : N)
namespace N

def add : N → N → N
  | a, z => a
  | a, s b => s (add a b)

def mul : N → N → N
  | _, z => z
  | a, s b => add (mul a b) a

instance : Add N := ⟨add⟩
instance : Mul N := ⟨mul⟩

theorem add_z (a : N) : a + z = a := rfl
theorem add_s (a b : N) : a + s b = s (a + b) := rfl
theorem mul_z (a : N) : a * z = z := rfl
theorem mul_s (a b : N) : a * s b = a * b + a := rfl

-- theorems

/-- Adding zero on the left changes nothing. By induction: both cases hold by definition. -/
theorem z_add (a : N) : z + a = a := by
  induction a with
  | z => rfl
  | s n ih => rw [add_s, ih]

/-- A successor on the left of a sum can be taken out. By induction on the other summand. -/
theorem s_add (a b : N) : s a + b = s (a + b) := by
  induction b with
  | z => rfl
  | s n ih => rw [add_s, ih, add_s]

/-- Addition is associative. By induction on the last summand. -/
theorem add_assoc (a b c : N) : a + b + c = a + (b + c) := by
  induction c with
  | z => rfl
  | s n ih => rw [add_s, ih, add_s, add_s]

/-- Addition is commutative. By induction, with zero and successors on the left taken out by inductions of their own. -/
theorem add_comm (a b : N) : a + b = b + a := by
  induction b with
  | z => rw [add_z]; induction a with
    | z => rfl
    | s n ih => rw [add_s, ← ih]
  | s n ih => rw [add_s, ih]; clear ih; induction a with
    | z => rfl
    | s m ih => rw [add_s, add_s, ih]

/-- Zero times anything is zero. By induction. -/
theorem z_mul (a : N) : z * a = z := by
  induction a with
  | z => rfl
  | s n ih => rw [mul_s, ih, add_z]

/-- Adding one, as a successor of zero, is taking the successor. By definition. -/
theorem add_one (a : N) : a + s z = s a := by
  rfl

/-- Successors of equals are equal, and only those. -/
theorem s_inj (a b : N) : s a = s b ↔ a = b := by
  constructor
  · intro h; injection h
  · intro h; rw [h]

/-- No successor is zero. -/
theorem s_ne_z (a : N) : s a ≠ z := by
  intro h; cases h

/-- What is added on the right can be cancelled. By induction on it. -/
theorem add_right_cancel (a b c : N) (h : a + c = b + c) : a = b := by
  induction c with
  | z => exact h
  | s n ih => rw [add_s, add_s] at h; injection h with h; exact ih h

/-- One is neutral for multiplication on the right: one addition to zero. -/
theorem mul_one (a : N) : a * s z = a := by
  rw [mul_s, mul_z]; induction a with
  | z => rfl
  | s n ih => rw [add_s, ih]

/-- Adding one on the left is taking the successor. By induction: the successor outside and the one inside change
places. -/
theorem one_add (a : N) : s z + a = s a := by
  induction a with
  | z => rfl
  | s n ih => rw [add_s, ih]

/-- In a sum of two, a successor may be moved from one summand to the other. By induction on the second summand. -/
theorem s_add_eq_add_s (a b : N) : s a + b = a + s b := by
  induction b with
  | z => rfl
  | s n ih => rw [add_s, ih]; rfl

/-- The sum of two successors is two more than the sum. One successor comes out by definition, the other by
induction. -/
theorem s_add_s (a b : N) : s a + s b = s (s (a + b)) := by
  induction b with
  | z => rfl
  | s n ih => rw [add_s, ih]; rfl

/-- Every number is zero or the successor of some number. By cases. -/
theorem z_or_s (a : N) : a = z ∨ ∃ b, a = s b := by
  cases a with
  | z => exact Or.inl rfl
  | s n => exact Or.inr ⟨n, rfl⟩

/-- No number is its own successor. By induction: taking one successor off both sides leaves the same claim one
lower. -/
theorem s_ne_self (a : N) : s a ≠ a := by
  induction a with
  | z => intro h; cases h
  | s n ih => intro h; injection h with h; exact ih h

/-- If a sum is zero, both its summands are. The second cannot be a successor, since the sum would be one. -/
theorem eq_z_of_add_eq_z (a b : N) (h : a + b = z) : a = z ∧ b = z := by
  cases b with
  | z => exact ⟨h, rfl⟩
  | s n => cases h

/-- What is added on the left can be cancelled. By induction on it, with the successor on the left taken out first. -/
theorem add_left_cancel (a b c : N) (h : c + a = c + b) : a = b := by
  have s_add : ∀ x y : N, s x + y = s (x + y) := by
    intro x y
    induction y with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s]
  have z_add : ∀ x : N, z + x = x := by
    intro x
    induction x with
    | z => rfl
    | s n ih => rw [add_s, ih]
  induction c with
  | z => rw [z_add, z_add] at h; exact h
  | s n ih => rw [s_add, s_add] at h; injection h with h; exact ih h

/-- Only zero can be added on the right without changing a number. By induction on the number, after moving its
successor out of the sum. -/
theorem eq_z_of_add_eq_self (a b : N) (h : a + b = a) : b = z := by
  induction a with
  | z =>
    cases b with
    | z => rfl
    | s n => cases h
  | s n ih =>
    have s_add : ∀ y : N, s n + y = s (n + y) := by
      intro y
      induction y with
      | z => rfl
      | s m ihm => rw [add_s, ihm, add_s]
    rw [s_add] at h
    injection h with h
    exact ih h

/-- In a sum of three, the last two summands may change places. By induction on the last, with the successor in the
middle moved out by an induction of its own. -/
theorem add_right_comm (a b c : N) : a + b + c = a + c + b := by
  have s_add : ∀ x y : N, s x + y = s (x + y) := by
    intro x y
    induction y with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s]
  induction c with
  | z => rfl
  | s n ih => rw [add_s, ih, add_s, s_add]

/-- In a sum of three, bracketed to the right, the first two summands may change places. It follows from associativity
and from commutativity, which are both proved on the way. -/
theorem add_left_comm (a b c : N) : a + (b + c) = b + (a + c) := by
  have assoc : ∀ x y w : N, x + y + w = x + (y + w) := by
    intro x y w
    induction w with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s, add_s]
  induction c with
  | z =>
    rw [add_z, add_z]
    induction b with
    | z => rw [add_z]; induction a with
      | z => rfl
      | s n ih => rw [add_s, ← ih]
    | s n ih => rw [add_s, ih]; clear ih; induction a with
      | z => rfl
      | s m ih => rw [add_s, add_s, ih]
  | s n ih => rw [add_s, add_s, ih]; rfl

/-- If the sum of two numbers is one, then one of them is zero and the other is one. The second summand is zero, or it
takes the only successor that there is. -/
theorem add_eq_one (a b : N) (h : a + b = s z) : a = z ∧ b = s z ∨ a = s z ∧ b = z := by
  cases b with
  | z => exact Or.inr ⟨h, rfl⟩
  | s n =>
    rw [add_s] at h
    injection h with h
    cases n with
    | z => rw [add_z] at h; exact Or.inl ⟨h, rfl⟩
    | s m => cases h

/-- The only function of two arguments that obeys the defining equations of addition is addition. By induction on the
argument on which the equations recur. -/
theorem add_unique (f : N → N → N) (hz : ∀ a, f a z = a) (hs : ∀ a b, f a (s b) = s (f a b)) (a b : N) :
    f a b = a + b := by
  induction b with
  | z => exact hz a
  | s n ih => rw [hs, ih, add_s]

/-- A property that holds at zero and at one, and that passes from each number to the one after the next, holds
everywhere. By showing it for a number and its successor at once. -/
theorem two_step_induction (p : N → Prop) (h0 : p z) (h1 : p (s z)) (h : ∀ n, p n → p (s (s n))) (a : N) : p a := by
  have both : p a ∧ p (s a) := by
    induction a with
    | z => exact ⟨h0, h1⟩
    | s n ih => exact ⟨ih.2, h n ih.1⟩
  exact both.1

/-- A function that takes every number to the next one's value, so never changes along successors, is constant. By
induction on the argument. -/
theorem constant_of_step (f : N → N) (h : ∀ n, f (s n) = f n) (a b : N) : f a = f b := by
  have base : ∀ n, f n = f z := by
    intro n
    induction n with
    | z => rfl
    | s m ih => rw [h, ih]
  rw [base a, base b]

/-- One is neutral for multiplication on the left. By induction: each step of the product adds one. -/
theorem one_mul (a : N) : s z * a = a := by
  induction a with
  | z => rfl
  | s n ih => rw [mul_s, ih]; rfl

/-- Twice a number, with the two on the right, is the number plus itself. The product is zero plus the number plus the
number, and the zero goes by induction. -/
theorem mul_two (a : N) : a * s (s z) = a + a := by
  have z_add : ∀ x : N, z + x = x := by
    intro x
    induction x with
    | z => rfl
    | s n ih => rw [add_s, ih]
  rw [mul_s, mul_s, mul_z, z_add]

/-- If a product is zero, one of its factors is. If both were successors, the product would be one as well. -/
theorem eq_z_of_mul_eq_z (a b : N) (h : a * b = z) : a = z ∨ b = z := by
  cases b with
  | z => exact Or.inr rfl
  | s n =>
    cases a with
    | z => exact Or.inl rfl
    | s m => cases h

/-- The product of two numbers is one only if both are one. A factor zero would make it zero, and a factor of two or
more would leave a second successor. -/
theorem mul_eq_one (a b : N) (h : a * b = s z) : a = s z ∧ b = s z := by
  cases b with
  | z => cases h
  | s n =>
    cases a with
    | z =>
      have none : ∀ k : N, z * k ≠ s z := by
        intro k
        induction k with
        | z => intro e; cases e
        | s k ih => exact ih
      exact absurd h (none (s n))
    | s m =>
      rw [mul_s, add_s] at h
      injection h with h
      cases m with
      | s k => cases h
      | z =>
        cases n with
        | z => exact ⟨rfl, rfl⟩
        | s k => cases h

/-- No number that is added to itself gives one more than another number added to itself: nothing is both even and odd.
By induction on the first number, with two successors taken off each side at a time. -/
theorem add_self_ne (a b : N) : a + a ≠ s (b + b) := by
  have s_add : ∀ x y : N, s x + y = s (x + y) := by
    intro x y
    induction y with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s]
  induction a generalizing b with
  | z => intro h; cases h
  | s n ih =>
    intro h
    rw [add_s, s_add] at h
    injection h with h
    cases b with
    | z => cases h
    | s m =>
      rw [add_s, s_add] at h
      injection h with h
      exact ih m h

/-- Numbers whose doubles are equal are equal. By induction on the first while the second varies: two successors come
off each side. -/
theorem add_self_inj (a b : N) (h : a + a = b + b) : a = b := by
  have s_add : ∀ x y : N, s x + y = s (x + y) := by
    intro x y
    induction y with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s]
  induction a generalizing b with
  | z =>
    cases b with
    | z => rfl
    | s m => cases h
  | s n ih =>
    cases b with
    | z => cases h
    | s m =>
      rw [add_s, add_s, s_add, s_add] at h
      injection h with h
      injection h with h
      rw [ih m h]

/-- Of two numbers, one is the other plus something. By induction on the first: when it grows by one, either what is
added shrinks by one, or the roles change. -/
theorem add_total (a b : N) : (∃ d, b = a + d) ∨ ∃ d, a = b + d := by
  have s_add : ∀ x y : N, s x + y = s (x + y) := by
    intro x y
    induction y with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s]
  induction a with
  | z =>
    refine Or.inl ⟨b, ?_⟩
    induction b with
    | z => rfl
    | s n ih => rw [add_s, ← ih]
  | s n ih =>
    rcases ih with ⟨d, hd⟩ | ⟨d, hd⟩
    · cases d with
      | z => exact Or.inr ⟨s z, by rw [hd]; rfl⟩
      | s e => exact Or.inl ⟨e, by rw [hd, s_add]; rfl⟩
    · exact Or.inr ⟨s d, by rw [hd]; rfl⟩

/-- If a property holds of a number whenever it holds of all smaller ones, it holds of every number; here smaller means
that something with a successor has to be added. By induction on a bound below which it holds. -/
theorem strong_induction (p : N → Prop) (h : ∀ n, (∀ m d, n = s (m + d) → p m) → p n) (a : N) : p a := by
  have below : ∀ b m d, b = m + d → p m := by
    intro b
    induction b with
    | z =>
      intro m d e
      apply h
      intro k f hk
      subst hk
      cases d with
      | z => cases e
      | s d => cases e
    | s n ih =>
      intro m d e
      cases d with
      | z =>
        rw [add_z] at e
        subst e
        apply h
        intro k f hk
        injection hk with hk
        exact ih k f hk
      | s d => injection e with e; exact ih m d e
  exact below a a z rfl

/-- Four summands may be paired in two ways, crosswise: the inner two change places. By induction on the last two, after
the successors have been led out of the sums. -/
theorem add_add_add_comm (a b c d : N) : a + b + (c + d) = a + c + (b + d) := by
  have s_add : ∀ x y : N, s x + y = s (x + y) := by
    intro x y
    induction y with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s]
  induction d with
  | z =>
    rw [add_z, add_z]
    induction c with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s, s_add]
  | s n ih => rw [add_s, add_s, ih, add_s, add_s]

/-- Multiplication distributes over addition in its right factor. By induction on the second summand; the step is the
associativity of addition. -/
theorem mul_add (a b c : N) : a * (b + c) = a * b + a * c := by
  have assoc : ∀ x y w : N, x + y + w = x + (y + w) := by
    intro x y w
    induction w with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s, add_s]
  induction c with
  | z => rfl
  | s n ih => rw [add_s, mul_s, ih, mul_s, assoc]

/-- A product whose left factor is a successor is the smaller product plus the right factor. By induction on the right
factor; the step exchanges two summands. -/
theorem s_mul (a b : N) : s a * b = a * b + b := by
  have s_add : ∀ x y : N, s x + y = s (x + y) := by
    intro x y
    induction y with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s]
  have swap : ∀ x y w : N, x + y + w = x + w + y := by
    intro x y w
    induction w with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s, s_add]
  induction b with
  | z => rfl
  | s n ih => rw [mul_s, mul_s, ih, add_s, add_s, swap]

/-- Multiplication is commutative. By induction on the right factor: zero and successors on the left are taken out of
products by inductions of their own, the latter with an exchange of summands. -/
theorem mul_comm (a b : N) : a * b = b * a := by
  have s_add : ∀ x y : N, s x + y = s (x + y) := by
    intro x y
    induction y with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s]
  have swap : ∀ x y w : N, x + y + w = x + w + y := by
    intro x y w
    induction w with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s, s_add]
  have z_mul : ∀ x : N, z * x = z := by
    intro x
    induction x with
    | z => rfl
    | s n ih => rw [mul_s, ih, add_z]
  have s_mul : ∀ x y : N, s x * y = x * y + y := by
    intro x y
    induction y with
    | z => rfl
    | s n ih => rw [mul_s, mul_s, ih, add_s, add_s, swap]
  induction b with
  | z => rw [mul_z, z_mul]
  | s n ih => rw [mul_s, s_mul, ih]

/-- Multiplication is associative. By induction on the last factor; the step distributes a product over a sum, which
needs the associativity of addition. -/
theorem mul_assoc (a b c : N) : a * b * c = a * (b * c) := by
  have assoc : ∀ x y w : N, x + y + w = x + (y + w) := by
    intro x y w
    induction w with
    | z => rfl
    | s n ih => rw [add_s, ih, add_s, add_s]
  have distr : ∀ x y w : N, x * (y + w) = x * y + x * w := by
    intro x y w
    induction w with
    | z => rfl
    | s n ih => rw [add_s, mul_s, ih, mul_s, assoc]
  induction c with
  | z => rfl
  | s n ih => rw [mul_s, ih, mul_s, distr]
