inductive Unary | o | s (n : Unary)
namespace Unary

def add : Unary → Unary → Unary
  | a, o => a
  | a, s b => s (add a b)

def mul : Unary → Unary → Unary
  | _, o => o
  | a, s b => add (mul a b) a

instance : Add Unary := ⟨add⟩
instance : Mul Unary := ⟨mul⟩

def two : Unary := s (s o)

/-- The first argument to the power of the second. -/
def pow : Unary → Unary → Unary
  | _, o => s o
  | a, s n => pow a n * a

/-- The sum of the first `n` powers of two. -/
def powers : Unary → Unary
  | o => o
  | s n => powers n + pow two n

def double : Unary → Unary
  | o => o
  | s n => s (s (double n))

/-- Half of a number, rounded down. -/
def half : Unary → Unary
  | o => o
  | s o => o
  | s (s n) => s (half n)

inductive Even : Unary → Prop
  | zero : Even o
  | ss {n : Unary} : Even n → Even (s (s n))

inductive Odd : Unary → Prop
  | one : Odd (s o)
  | ss {n : Unary} : Odd n → Odd (s (s n))

inductive Parity | even | odd

def Parity.flip : Parity → Parity
  | even => odd
  | odd => even

def Parity.plus : Parity → Parity → Parity
  | even, q => q
  | odd, q => flip q

def Parity.times : Parity → Parity → Parity
  | even, _ => even
  | odd, q => q

def parity : Unary → Parity
  | o => Parity.even
  | s n => (parity n).flip

theorem add_o (a : Unary) : a + o = a := rfl
theorem add_s (a b : Unary) : a + s b = s (a + b) := rfl
theorem mul_o (a : Unary) : a * o = o := rfl
theorem mul_s (a b : Unary) : a * s b = a * b + a := rfl
theorem pow_o (a : Unary) : pow a o = s o := rfl
theorem pow_s (a n : Unary) : pow a (s n) = pow a n * a := rfl
theorem double_s (n : Unary) : double (s n) = s (s (double n)) := rfl
theorem half_s_s (n : Unary) : half (s (s n)) = s (half n) := rfl
theorem o_add (a : Unary) : o + a = a := by
  induction a with
  | o => rfl
  | s n ih => rw [add_s, ih]
theorem s_add (a b : Unary) : s a + b = s (a + b) := by
  induction b with
  | o => rfl
  | s n ih => rw [add_s, ih, add_s]
theorem add_assoc (a b c : Unary) : a + b + c = a + (b + c) := by
  induction c with
  | o => rfl
  | s n ih => rw [add_s, ih, add_s, add_s]
theorem add_comm (a b : Unary) : a + b = b + a := by
  induction b with
  | o => rw [o_add]; rfl
  | s n ih => rw [add_s, ih, s_add]
instance : Std.Associative (α := Unary) (· + ·) := ⟨add_assoc⟩
instance : Std.Commutative (α := Unary) (· + ·) := ⟨add_comm⟩
theorem o_mul (a : Unary) : o * a = o := by
  induction a with
  | o => rfl
  | s n ih => rw [mul_s, ih]; rfl
theorem s_mul (a b : Unary) : s a * b = a * b + b := by
  induction b with
  | o => rfl
  | s n ih => rw [mul_s, ih, mul_s, add_s, add_s]; ac_rfl
theorem mul_comm (a b : Unary) : a * b = b * a := by
  induction b with
  | o => rw [o_mul]; rfl
  | s n ih => rw [mul_s, ih, s_mul]
theorem mul_add (a b c : Unary) : a * (b + c) = a * b + a * c := by
  induction c with
  | o => rfl
  | s n ih => rw [add_s, mul_s, ih, mul_s, add_assoc]
theorem mul_assoc (a b c : Unary) : a * b * c = a * (b * c) := by
  induction c with
  | o => rfl
  | s n ih => rw [mul_s, ih, mul_s, mul_add]
theorem mul_two (a : Unary) : a * two = a + a := by
  show o + a + a = a + a
  rw [o_add]

-- theorems

/-- The first power of a number is the number itself: one times it. -/
theorem pow_one (a : Unary) : pow a (s o) = a := by
  rw [pow_s, pow_o, s_mul, o_mul, o_add]

/-- Every power of one is one. By induction on the exponent: each step multiplies one by one. -/
theorem one_pow (n : Unary) : pow (s o) n = s o := by
  induction n with
  | o => rfl
  | s n ih => rw [pow_s, ih]; rfl

/-- Zero to a positive power is zero, since the last factor is zero. -/
theorem o_pow (n : Unary) : pow o (s n) = o := by
  rfl

/-- One is not even, because no even number has exactly one successor. -/
theorem not_even_one : ¬ Even (s o) := by
  intro h
  cases h

/-- The double of a number is the number plus itself. By induction: on both sides two successors come out. -/
theorem double_eq_add (a : Unary) : double a = a + a := by
  induction a with
  | o => rfl
  | s n ih => rw [double_s, ih, add_s, s_add]

/-- Half of the double of a number is the number. By induction. -/
theorem half_double (a : Unary) : half (double a) = a := by
  induction a with
  | o => rfl
  | s n ih => rw [double_s, half_s_s, ih]

/-- Half of one more than the double of a number is the number, since halves are rounded down. By induction. -/
theorem half_s_double (a : Unary) : half (s (double a)) = a := by
  induction a with
  | o => rfl
  | s n ih => rw [double_s, half_s_s, ih]

/-- The double of any number is even. By induction, two successors at a time. -/
theorem even_double (a : Unary) : Even (double a) := by
  induction a with
  | o => exact Even.zero
  | s n ih => exact Even.ss ih

/-- The successor of an even number is odd. By induction on how the number came to be even. -/
theorem odd_s_of_even (a : Unary) (h : Even a) : Odd (s a) := by
  induction h with
  | zero => exact Odd.one
  | ss _ ih => exact Odd.ss ih

/-- The sum of a number and its successor is odd. By induction: both summands grow by one. -/
theorem odd_add_next (a : Unary) : Odd (a + s a) := by
  induction a with
  | o => exact Odd.one
  | s n ih => rw [add_s, s_add]; exact Odd.ss ih

/-- Two to the power of n plus one is the double of two to the power of n. By the meaning of the power and of the
double. -/
theorem two_pow_s (n : Unary) : pow two (s n) = double (pow two n) := by
  rw [pow_s, mul_two]
  generalize pow two n = a
  induction a with
  | o => rfl
  | s m ih => rw [double_s, ← ih, add_s, s_add]

/-- Doubling is additive: the double of a sum is the sum of the doubles. By induction on the second summand. -/
theorem double_add (a b : Unary) : double (a + b) = double a + double b := by
  induction b with
  | o => rfl
  | s n ih => rw [add_s, double_s, ih, double_s, add_s, add_s]

/-- The double of a product is the first factor times the double of the second. By induction on the second factor. -/
theorem double_mul (a b : Unary) : double (a * b) = a * double b := by
  have twice : ∀ x, double x = x + x := by
    intro x
    induction x with
    | o => rfl
    | s n ih => rw [double_s, ih, add_s, s_add]
  rw [twice, twice, mul_add]

/-- A number in a sum with a doubled one leaves the half as one would expect: half of twice a plus b is a plus half of
b. By induction on a. -/
theorem half_double_add (a b : Unary) : half (double a + b) = a + half b := by
  induction a with
  | o => rw [o_add]; exact congrArg half (o_add b)
  | s n ih => rw [double_s, s_add, s_add, half_s_s, ih, s_add]

/-- The halves of a number and of its successor, each rounded down, add up to the number. By induction, with the
summands exchanged in the step. -/
theorem half_add_half (a : Unary) : half a + half (s a) = a := by
  induction a with
  | o => rfl
  | s n ih => rw [half_s_s, add_s, add_comm, ih]

/-- The sum of two even numbers is even. By induction on how the second came to be even. -/
theorem even_add (a b : Unary) (h : Even a) (k : Even b) : Even (a + b) := by
  induction k with
  | zero => exact h
  | ss _ ih => exact Even.ss ih

/-- The sum of two odd numbers is even. By induction on how the second came to be odd; at one, an odd number's successor
is even. -/
theorem odd_add_odd (a b : Unary) (h : Odd a) (k : Odd b) : Even (a + b) := by
  induction k with
  | one =>
    induction h with
    | one => exact Even.ss Even.zero
    | ss _ ih => exact Even.ss ih
  | ss _ ih => exact Even.ss ih

/-- A multiple of an even number is even. By induction on the other factor: each step adds the even number once more. -/
theorem even_mul (a b : Unary) (h : Even a) : Even (a * b) := by
  have sum : ∀ x y : Unary, Even x → Even y → Even (x + y) := by
    intro x y hx hy
    induction hy with
    | zero => exact hx
    | ss _ ih => exact Even.ss ih
  induction b with
  | o => exact Even.zero
  | s n ih => exact sum _ _ ih h

/-- The double of half an even number is that number: nothing is lost by rounding. By induction on how it came to be
even. -/
theorem double_half (a : Unary) (h : Even a) : double (half a) = a := by
  induction h with
  | zero => rfl
  | ss _ ih => rw [half_s_s, double_s, ih]

/-- A number is even exactly if it is the double of some number. One way by induction on evenness, the other by
induction on the number that is doubled. -/
theorem even_iff_double (a : Unary) : Even a ↔ ∃ k, a = double k := by
  constructor
  · intro h
    induction h with
    | zero => exact ⟨o, rfl⟩
    | ss _ ih =>
      obtain ⟨k, hk⟩ := ih
      exact ⟨s k, by rw [hk, double_s]⟩
  · intro ⟨k, hk⟩
    subst hk
    induction k with
    | o => exact Even.zero
    | s n ih => exact Even.ss ih

/-- Every number is even or odd. By induction: the successor of an even number is odd, and that of an odd one even. -/
theorem even_or_odd (a : Unary) : Even a ∨ Odd a := by
  have up : ∀ n, Even n → Odd (s n) := by
    intro n h
    induction h with
    | zero => exact Odd.one
    | ss _ ih => exact Odd.ss ih
  have down : ∀ n, Odd n → Even (s n) := by
    intro n h
    induction h with
    | one => exact Even.ss Even.zero
    | ss _ ih => exact Even.ss ih
  induction a with
  | o => exact Or.inl Even.zero
  | s n ih => exact ih.symm.imp (down n) (up n)

/-- No number is both even and odd. By induction on how it came to be even, taking two successors off the oddness at a
time. -/
theorem not_even_and_odd (a : Unary) (h : Even a) (k : Odd a) : False := by
  induction h with
  | zero => cases k
  | ss _ ih =>
    cases k with
    | ss k => exact ih k

/-- If a sum and its first summand are even, so is the second. By induction on the first summand's evenness. -/
theorem even_of_even_add (a b : Unary) (h : Even (a + b)) (k : Even a) : Even b := by
  induction k with
  | zero => rw [o_add] at h; exact h
  | ss _ ih =>
    rw [s_add, s_add] at h
    cases h with
    | ss h => exact ih h

/-- The parity of a sum is the sum of the parities. By induction on the second summand; each case is then a small
table. -/
theorem parity_add (a b : Unary) : parity (a + b) = (parity a).plus (parity b) := by
  induction b with
  | o =>
    show parity a = (parity a).plus Parity.even
    cases parity a <;> rfl
  | s n ih =>
    show (parity (a + n)).flip = (parity a).plus (parity n).flip
    rw [ih]
    cases parity a <;> cases parity n <;> rfl

/-- The parity function says even exactly for the even numbers. By induction two steps at a time, done for a number and
its successor at once. -/
theorem parity_eq_even_iff (a : Unary) : parity a = Parity.even ↔ Even a := by
  have twice : ∀ n, parity (s (s n)) = parity n := by
    intro n
    show (parity n).flip.flip = parity n
    cases parity n <;> rfl
  have both : (parity a = Parity.even ↔ Even a) ∧ (parity (s a) = Parity.even ↔ Even (s a)) := by
    induction a with
    | o =>
      constructor
      · exact ⟨fun _ => Even.zero, fun _ => rfl⟩
      · constructor
        · intro h; cases h
        · intro h; cases h
    | s n ih =>
      refine ⟨ih.2, ?_⟩
      rw [twice, ih.1]
      constructor
      · intro h; exact Even.ss h
      · intro h
        cases h with
        | ss h => exact h
  exact both.1

/-- A power with a sum as exponent is the product of the powers with the summands. By induction on the second
summand. -/
theorem pow_add (a m n : Unary) : pow a (m + n) = pow a m * pow a n := by
  induction n with
  | o => rw [add_o, pow_o, mul_s, mul_o, o_add]
  | s n ih => rw [add_s, pow_s, ih, pow_s, mul_assoc]

/-- A power of a product is the product of the powers. By induction on the exponent, with the inner factors
exchanged. -/
theorem mul_pow (a b n : Unary) : pow (a * b) n = pow a n * pow b n := by
  induction n with
  | o => rfl
  | s n ih =>
    rw [pow_s, pow_s, pow_s, ih, mul_assoc, mul_assoc, ← mul_assoc (pow b n) a b, mul_comm (pow b n) a, mul_assoc a]

/-- A power with a product as exponent is a power of a power. By induction on the second factor, adding exponents in the
step. -/
theorem pow_mul (a m n : Unary) : pow a (m * n) = pow (pow a m) n := by
  have sum : ∀ x y, pow a (x + y) = pow a x * pow a y := by
    intro x y
    induction y with
    | o => rw [add_o, pow_o, mul_s, mul_o, o_add]
    | s n ih => rw [add_s, pow_s, ih, pow_s, mul_assoc]
  induction n with
  | o => rfl
  | s n ih => rw [mul_s, sum, ih, pow_s]

/-- A power with a doubled exponent is the same power of the square: this is what makes repeated squaring work. By
induction on the exponent. -/
theorem pow_double (a n : Unary) : pow a (double n) = pow (a * a) n := by
  induction n with
  | o => rfl
  | s n ih => rw [double_s, pow_s, pow_s, pow_s, ih, mul_assoc]

/-- One plus the sum of the first n powers of two is two to the power of n. By induction: the sum grows by a power, and
two equal powers make the next one. -/
theorem s_powers (n : Unary) : s (powers n) = pow two n := by
  induction n with
  | o => rfl
  | s n ih => rw [pow_s, mul_two, ← ih, s_add, ih]; rfl

/-- No power of a positive number is zero. By induction on the exponent: a product of two successors is a successor. -/
theorem pow_ne_o (a n : Unary) : pow (s a) n ≠ o := by
  induction n with
  | o => intro h; cases h
  | s n ih =>
    intro h
    rw [pow_s] at h
    cases e : pow (s a) n with
    | o => exact ih e
    | s m => rw [e] at h; cases h

/-- If a power with a positive exponent is one, its base is one. A base of zero makes it zero, and a base of two or more
makes it zero or leaves two successors. -/
theorem eq_one_of_pow_eq_one (a n : Unary) (h : pow a (s n) = s o) : a = s o := by
  rw [pow_s] at h
  generalize pow a n = p at h
  cases a with
  | o => cases h
  | s m =>
    cases m with
    | o => rfl
    | s k =>
      cases p with
      | o => rw [o_mul] at h; cases h
      | s q => rw [mul_s, mul_s, add_s, add_s, s_add] at h; injection h with h; cases h

/-- The product of two odd numbers is odd. By induction on the second: the product grows by twice the first, which is
even. -/
theorem odd_mul (a b : Unary) (h : Odd a) (k : Odd b) : Odd (a * b) := by
  have self : ∀ x : Unary, Even (x + x) := by
    intro x
    induction x with
    | o => exact Even.zero
    | s n ih => rw [add_s, s_add]; exact Even.ss ih
  have sum : ∀ x y : Unary, Odd x → Even y → Odd (x + y) := by
    intro x y hx hy
    induction hy with
    | zero => exact hx
    | ss _ ih => exact Odd.ss ih
  induction k with
  | one => rw [mul_s, mul_o, o_add]; exact h
  | ss _ ih => rw [mul_s, mul_s, add_assoc]; exact sum _ _ ih (self a)

/-- The parity of a product is the product of the parities, where only odd times odd is odd. By induction on the second
factor, with the parity of sums proved on the way. -/
theorem parity_mul (a b : Unary) : parity (a * b) = (parity a).times (parity b) := by
  have sum : ∀ x y : Unary, parity (x + y) = (parity x).plus (parity y) := by
    intro x y
    induction y with
    | o =>
      show parity x = (parity x).plus Parity.even
      cases parity x <;> rfl
    | s n ih =>
      show (parity (x + n)).flip = (parity x).plus (parity n).flip
      rw [ih]
      cases parity x <;> cases parity n <;> rfl
  induction b with
  | o =>
    show Parity.even = (parity a).times Parity.even
    cases parity a <;> rfl
  | s n ih =>
    rw [mul_s, sum, ih]
    show ((parity a).times (parity n)).plus (parity a) = (parity a).times (parity n).flip
    cases parity a <;> cases parity n <;> rfl

/-- Every number is the double of its half, or one more than that. By induction two steps at a time, done for a number
and its successor at once. -/
theorem double_half_or (a : Unary) : a = double (half a) ∨ a = s (double (half a)) := by
  have both : (a = double (half a) ∨ a = s (double (half a))) ∧
      (s a = double (half (s a)) ∨ s a = s (double (half (s a)))) := by
    induction a with
    | o => exact ⟨Or.inl rfl, Or.inr rfl⟩
    | s n ih =>
      refine ⟨ih.2, ?_⟩
      rw [half_s_s, double_s]
      rcases ih.1 with h | h
      · exact Or.inl (by rw [← h])
      · exact Or.inr (by rw [← h])
  exact both.1

/-- Two to the power of n is greater than n: it is the successor of n plus something. By induction: doubling adds at
least one. -/
theorem two_pow_gt (n : Unary) : ∃ d, pow two n = s (n + d) := by
  induction n with
  | o => exact ⟨o, rfl⟩
  | s n ih =>
    obtain ⟨d, h⟩ := ih
    refine ⟨d + (n + d), ?_⟩
    rw [pow_s, mul_two, h, add_s, s_add, s_add]
    ac_rfl

/-- A number whose square is even is even itself. For an odd number the square would be odd, and no number is both. -/
theorem even_of_even_sq (a : Unary) (h : Even (a * a)) : Even a := by
  have self : ∀ x : Unary, Even (x + x) := by
    intro x
    induction x with
    | o => exact Even.zero
    | s n ih => rw [add_s, s_add]; exact Even.ss ih
  have cancel : ∀ x y : Unary, Even (y + x) → Even x → Even y := by
    intro x y hxy hx
    induction hx with
    | zero => exact hxy
    | ss _ ih =>
      cases hxy with
      | ss hxy => exact ih hxy
  have both : (Even (a * a) → Even a) ∧ (Even (s a * s a) → Even (s a)) := by
    clear h
    induction a with
    | o => exact ⟨fun _ => Even.zero, fun h => by cases h⟩
    | s n ih =>
      refine ⟨ih.2, fun h => Even.ss (ih.1 ?_)⟩
      rw [mul_s, mul_s, s_mul, s_mul] at h
      apply cancel _ _ _ (self n)
      rw [← add_assoc]
      apply cancel _ _ _ (self (s (s n)))
      rw [← add_assoc]
      exact h
  exact both.1 h

/-- The square of an odd number leaves remainder one on division by four. By induction: the next odd number's square is
greater by a multiple of four. -/
theorem odd_sq (a : Unary) (h : Odd a) : ∃ k, a * a = s (double (double k)) := by
  have twice : ∀ x, double x = x + x := by
    intro x
    induction x with
    | o => rfl
    | s n ih => rw [double_s, ih, add_s, s_add]
  induction h with
  | one => exact ⟨o, rfl⟩
  | @ss n _ ih =>
    obtain ⟨k, hk⟩ := ih
    refine ⟨k + s n, ?_⟩
    rw [mul_s, mul_s, s_mul, s_mul, hk]
    simp only [twice, add_s, s_add]
    congr 5
    ac_rfl

/-- Every positive number is a power of two times an odd number. By induction on a bound: an odd number is its own odd
part, and for an even one the half is smaller. -/
theorem two_pow_mul_odd (n : Unary) : ∃ k m, Odd m ∧ s n = pow two k * m := by
  have cases_of : ∀ x : Unary, Odd (s x) ∨ ∃ c, s x = s c + s c := by
    intro x
    induction x with
    | o => exact Or.inl Odd.one
    | s x ih =>
      rcases ih with h | ⟨c, h⟩
      · refine Or.inr ?_
        generalize s x = y at h
        clear x
        induction h with
        | one => exact ⟨o, rfl⟩
        | ss _ ih =>
          obtain ⟨c, h⟩ := ih
          exact ⟨s c, by rw [h]; simp only [add_s, s_add]⟩
      · refine Or.inl ?_
        rw [h]
        clear h x
        induction c with
        | o => exact Odd.ss Odd.one
        | s c ih => rw [add_s, s_add]; exact Odd.ss ih
  have upto : ∀ b n d : Unary, b = n + d → ∃ k m, Odd m ∧ s n = pow two k * m := by
    intro b
    induction b with
    | o =>
      intro n d h
      cases d with
      | o => rw [add_o] at h; subst h; exact ⟨o, s o, Odd.one, rfl⟩
      | s d => cases h
    | s b ih =>
      intro n d h
      rcases cases_of n with hn | ⟨c, hc⟩
      · exact ⟨o, s n, hn, by rw [pow_o, s_mul, o_mul, o_add]⟩
      · have hn : n = s (c + c) := by
          rw [add_s, s_add] at hc
          injection hc
        subst hn
        rw [s_add] at h
        injection h with h
        obtain ⟨k, m, hm, e⟩ := ih c (c + d) (by rw [h, add_assoc])
        refine ⟨s k, m, hm, ?_⟩
        rw [hc, e, pow_s, mul_assoc, mul_comm two, mul_two, mul_add]
  exact upto n n o rfl

/-- The square root of two is irrational: no square is twice a square, but for zero. By infinite descent: both numbers
would be even, and their halves in the same relation. -/
theorem sqrt_two_irrational (a b : Unary) (h : double (a * a) = b * b) : a = o := by
  have twice : ∀ x, double x = x + x := by
    intro x
    induction x with
    | o => rfl
    | s n ih => rw [double_s, ih, add_s, s_add]
  have inj : ∀ x y, double x = double y → x = y := by
    intro x
    induction x with
    | o =>
      intro y e
      cases y with
      | o => rfl
      | s y => cases e
    | s x ih =>
      intro y e
      cases y with
      | o => cases e
      | s y => injection e with e; injection e with e; rw [ih y e]
  have split : ∀ x, (∃ c, x = double c) ∨ ∃ c, x = s (double c) := by
    intro x
    induction x with
    | o => exact Or.inl ⟨o, rfl⟩
    | s x ih =>
      rcases ih with ⟨c, e⟩ | ⟨c, e⟩
      · exact Or.inr ⟨c, by rw [e]⟩
      · exact Or.inl ⟨s c, by rw [e, double_s]⟩
  have differ : ∀ x y, double x ≠ s (double y) := by
    intro x
    induction x with
    | o => intro y e; cases e
    | s x ih =>
      intro y e
      cases y with
      | o => cases e
      | s y => injection e with e; injection e with e; exact ih y e
  have even : ∀ x y, double y = x * x → ∃ c, x = double c := by
    intro x y e
    rcases split x with k | ⟨c, hc⟩
    · exact k
    · refine absurd ?_ (differ y (double c * c + double c))
      rw [e, hc, mul_s, s_mul, add_s, twice (double c * c + double c)]
      have f : double c * double c = double c * c + double c * c := by rw [← mul_add, ← twice c]
      rw [f]
      ac_rfl
  have quad : ∀ x, double x * double x = double (double (x * x)) := by
    intro x
    have d : ∀ u v, u * double v = double (u * v) := by
      intro u v
      rw [twice, twice, mul_add]
    rw [d, mul_comm (double x), d]
  have descend : ∀ n a b d : Unary, n = b + d → double (a * a) = b * b → a = o := by
    intro n
    induction n with
    | o =>
      intro a b d e h
      cases d with
      | s d => cases e
      | o =>
        rw [add_o] at e
        subst e
        cases a with
        | o => rfl
        | s a => rw [mul_s, add_s] at h; cases h
    | s n ih =>
      intro a b d e h
      obtain ⟨c, hc⟩ := even b _ h
      rw [hc, quad] at h
      have ha := inj _ _ h
      obtain ⟨f, hf⟩ := even a _ ha.symm
      rw [hf, quad] at ha
      have hfc := inj _ _ ha
      cases c with
      | o =>
        rw [mul_o] at hfc
        rw [hf]
        cases f with
        | o => rfl
        | s f => rw [mul_s, add_s] at hfc; cases hfc
      | s c =>
        rw [hc, double_s, s_add, s_add] at e
        injection e with e
        have k := ih f (s c) (c + d) (by rw [e, twice, s_add, add_assoc]) hfc
        rw [hf, k]
        rfl
  exact descend b a b o rfl h
