inductive Num | zero | succ (n : Num)
namespace Num

def add : Num → Num → Num
  | a, zero => a
  | a, succ b => succ (add a b)

def mul : Num → Num → Num
  | _, zero => zero
  | a, succ b => add (mul a b) a

instance : Add Num := ⟨add⟩
instance : Mul Num := ⟨mul⟩

theorem add_zero (a : Num) : a + zero = a := rfl
theorem add_succ (a b : Num) : a + succ b = succ (a + b) := rfl
theorem mul_zero (a : Num) : a * zero = zero := rfl
theorem mul_succ (a b : Num) : a * succ b = a * b + a := rfl
theorem zero_add (a : Num) : zero + a = a := by
  induction a with
  | zero => rfl
  | succ n ih => rw [add_succ, ih]
theorem succ_add (a b : Num) : succ a + b = succ (a + b) := by
  induction b with
  | zero => rfl
  | succ n ih => rw [add_succ, ih, add_succ]
theorem add_assoc (a b c : Num) : a + b + c = a + (b + c) := by
  induction c with
  | zero => rfl
  | succ n ih => rw [add_succ, ih, add_succ, add_succ]
theorem add_comm (a b : Num) : a + b = b + a := by
  induction b with
  | zero => rw [zero_add]; rfl
  | succ n ih => rw [add_succ, ih, succ_add]
instance : Std.Associative (α := Num) (· + ·) := ⟨add_assoc⟩
instance : Std.Commutative (α := Num) (· + ·) := ⟨add_comm⟩
theorem add_right_cancel (a b c : Num) (h : a + c = b + c) : a = b := by
  induction c with
  | zero => exact h
  | succ n ih => injection h with h; exact ih h
theorem zero_mul (a : Num) : zero * a = zero := by
  induction a with
  | zero => rfl
  | succ n ih => rw [mul_succ, ih]; rfl
theorem succ_mul (a b : Num) : succ a * b = a * b + b := by
  induction b with
  | zero => rfl
  | succ n ih => rw [mul_succ, ih, mul_succ, add_succ, add_succ]; ac_rfl
theorem mul_comm (a b : Num) : a * b = b * a := by
  induction b with
  | zero => rw [zero_mul]; rfl
  | succ n ih => rw [mul_succ, ih, succ_mul]
theorem mul_add (a b c : Num) : a * (b + c) = a * b + a * c := by
  induction c with
  | zero => rfl
  | succ n ih => rw [add_succ, mul_succ, ih, mul_succ, add_assoc]
theorem mul_assoc (a b c : Num) : a * b * c = a * (b * c) := by
  induction c with
  | zero => rfl
  | succ n ih => rw [mul_succ, ih, mul_succ, mul_add]
theorem mul_one (a : Num) : a * succ zero = a := by rw [mul_succ, mul_zero, zero_add]

def sq (a : Num) : Num := a * a

def Divides (a b : Num) : Prop := ∃ c, b = a * c

/-- The sum of the numbers from one to `n`. -/
def tri : Num → Num
  | zero => zero
  | succ n => tri n + succ n

def fact : Num → Num
  | zero => succ zero
  | succ n => fact n * succ n

/-- The sum of the values of `f` at the `n` numbers below `n`. -/
def sum (f : Num → Num) : Num → Num
  | zero => zero
  | succ n => sum f n + f n

theorem tri_succ (n : Num) : tri (succ n) = tri n + succ n := rfl
theorem fact_succ (n : Num) : fact (succ n) = fact n * succ n := rfl
theorem sum_succ (f : Num → Num) (n : Num) : sum f (succ n) = sum f n + f n := rfl

-- theorems

/-- The square of a product is the product of the squares. By exchanging the inner factors. -/
theorem sq_mul (a b : Num) : sq (a * b) = sq a * sq b := by
  show a * b * (a * b) = a * a * (b * b)
  rw [mul_assoc, ← mul_assoc b a b, mul_comm b a, mul_assoc a b b, ← mul_assoc]

/-- A number times a product of two is the same as the second of the three times the product of the other two. From
associativity and commutativity. -/
theorem mul_left_comm (a b c : Num) : a * (b * c) = b * (a * c) := by
  rw [← mul_assoc, mul_comm a b, mul_assoc]

/-- Multiplication distributes over addition in its left factor. By commutativity from the law for the right factor. -/
theorem add_mul (a b c : Num) : (a + b) * c = a * c + b * c := by
  rw [mul_comm, mul_add, mul_comm c a, mul_comm c b]

/-- Two times a number, with the two on the left, is the number plus itself. The two is taken apart successor by
successor. -/
theorem two_mul (a : Num) : succ (succ zero) * a = a + a := by
  rw [succ_mul, succ_mul, zero_mul, zero_add]

/-- Zero is divisible by every number, with zero as the quotient. -/
theorem divides_zero (a : Num) : Divides a zero := by
  exact ⟨zero, rfl⟩

/-- Every number divides itself, since one is neutral for multiplication. -/
theorem divides_refl (a : Num) : Divides a a := by
  exact ⟨succ zero, (mul_one a).symm⟩

/-- One divides every number: the number is its own quotient. -/
theorem one_divides (a : Num) : Divides (succ zero) a := by
  exact ⟨a, by rw [mul_comm, mul_one]⟩

/-- Zero divides no number but zero, because its only multiple is zero. -/
theorem eq_zero_of_zero_divides (a : Num) (h : Divides zero a) : a = zero := by
  obtain ⟨c, h⟩ := h
  rw [h, zero_mul]

/-- A divisor of a number divides its multiples too. The quotient is multiplied along. -/
theorem divides_mul_right (a b c : Num) (h : Divides a b) : Divides a (b * c) := by
  obtain ⟨d, h⟩ := h
  exact ⟨d * c, by rw [h, mul_assoc]⟩

/-- What is divisible by a product is divisible by its first factor. The second factor moves into the quotient. -/
theorem divides_of_mul_divides (a b c : Num) (h : Divides (a * b) c) : Divides a c := by
  obtain ⟨d, h⟩ := h
  exact ⟨b * d, by rw [h, mul_assoc]⟩

/-- Divisibility is transitive: the quotients are multiplied. -/
theorem divides_trans (a b c : Num) (h : Divides a b) (k : Divides b c) : Divides a c := by
  obtain ⟨d, h⟩ := h
  obtain ⟨e, k⟩ := k
  exact ⟨d * e, by rw [k, h, mul_assoc]⟩

/-- A common divisor of two numbers divides their sum. The quotients are added, by distributivity. -/
theorem divides_add (a b c : Num) (h : Divides a b) (k : Divides a c) : Divides a (b + c) := by
  obtain ⟨d, h⟩ := h
  obtain ⟨e, k⟩ := k
  exact ⟨d + e, by rw [h, k, mul_add]⟩

/-- Divisibility is compatible with products: if a divides b and c divides d, then a times c divides b times d. The
quotient is the product of the quotients. -/
theorem mul_divides_mul (a b c d : Num) (h : Divides a b) (k : Divides c d) : Divides (a * c) (b * d) := by
  obtain ⟨x, h⟩ := h
  obtain ⟨y, k⟩ := k
  exact ⟨x * y, by rw [h, k, mul_assoc, ← mul_assoc x c y, mul_comm x c, mul_assoc c x y, ← mul_assoc]⟩

/-- A factorial divides the next one. The quotient is the number by which it grows. -/
theorem fact_divides_next (n : Num) : Divides (fact n) (fact (succ n)) := by
  exact ⟨succ n, rfl⟩

/-- A number that is not zero divides its own factorial. It is the last factor, which commutativity brings to the
front. -/
theorem divides_fact (n : Num) : Divides (succ n) (fact (succ n)) := by
  exact ⟨fact n, by rw [fact_succ, mul_comm]⟩

/-- Functions with the same values everywhere have the same sums. By induction on the number of summands. -/
theorem sum_congr (f g : Num → Num) (n : Num) (h : ∀ k, f k = g k) : sum f n = sum g n := by
  induction n with
  | zero => rfl
  | succ n ih => rw [sum_succ, sum_succ, ih, h]

/-- A sum of equal summands is that summand times their number. By induction on the number. -/
theorem sum_const (c n : Num) : sum (fun _ => c) n = c * n := by
  induction n with
  | zero => rfl
  | succ n ih => rw [sum_succ, ih, mul_succ]

/-- The sum of two functions' values is the sum of their sums. By induction, regrouping four summands in the step. -/
theorem sum_add (f g : Num → Num) (n : Num) : sum (fun k => f k + g k) n = sum f n + sum g n := by
  induction n with
  | zero => rfl
  | succ n ih => rw [sum_succ, sum_succ, sum_succ, ih]; ac_rfl

/-- A constant factor may be drawn out of a sum. By induction, with distributivity in the step. -/
theorem mul_sum (c : Num) (f : Num → Num) (n : Num) : c * sum f n = sum (fun k => c * f k) n := by
  induction n with
  | zero => rfl
  | succ n ih => rw [sum_succ, sum_succ, mul_add, ih]

/-- A sum of a plus b values is the sum of the first a and of the b after them. By induction on b. -/
theorem sum_split (f : Num → Num) (a b : Num) : sum f (a + b) = sum f a + sum (fun k => f (a + k)) b := by
  induction b with
  | zero => rfl
  | succ n ih => rw [add_succ, sum_succ, sum_succ, ih, add_assoc]

/-- A number that divides every value of a function divides the sums of its values. By induction: the quotients are
added. -/
theorem divides_sum (a : Num) (f : Num → Num) (n : Num) (h : ∀ k, Divides a (f k)) : Divides a (sum f n) := by
  induction n with
  | zero => exact ⟨zero, rfl⟩
  | succ n ih =>
    obtain ⟨c, hc⟩ := ih
    obtain ⟨d, hd⟩ := h n
    exact ⟨c + d, by rw [sum_succ, hc, hd, mul_add]⟩

/-- Added up, the numbers up to n give the n-th triangular number. By induction: both grow by the same summand. -/
theorem sum_id (n : Num) : sum (fun k => k) (succ n) = tri n := by
  induction n with
  | zero => rfl
  | succ n ih => rw [sum_succ, ih, tri_succ]

/-- A sum of two numbers times a sum of two others is the sum of the four products. By distributivity on both sides. -/
theorem add_mul_add (a b c d : Num) : (a + b) * (c + d) = a * c + a * d + (b * c + b * d) := by
  rw [mul_comm, mul_add, mul_comm (c + d) a, mul_comm (c + d) b, mul_add, mul_add]

/-- The square of a number's successor is the square of the number plus twice the number plus one. One factor after the
other is taken apart. -/
theorem sq_succ (a : Num) : sq (succ a) = succ (sq a + (a + a)) := by
  show succ a * succ a = succ (a * a + (a + a))
  rw [mul_succ, succ_mul, add_succ, add_assoc]

/-- The square of a sum is the sum of the squares and twice the product. By distributivity, with the mixed products made
equal by commutativity. -/
theorem sq_add (a b : Num) : sq (a + b) = sq a + (a * b + a * b) + sq b := by
  show (a + b) * (a + b) = a * a + (a * b + a * b) + b * b
  rw [mul_add, mul_comm (a + b) a, mul_add, mul_comm (a + b) b, mul_add, mul_comm b a]
  ac_rfl

/-- The sum of the first n odd numbers is the square of n. By induction: the next odd number is what one square lacks to
the next. -/
theorem sum_odd (n : Num) : sum (fun k => succ (k + k)) n = sq n := by
  induction n with
  | zero => rfl
  | succ n ih =>
    rw [sum_succ, ih]
    show n * n + succ (n + n) = succ n * succ n
    rw [mul_succ, succ_mul, add_succ, add_succ, add_assoc]

/-- Twice the n-th triangular number is n times n plus one. By induction; both sides grow by twice the next number. -/
theorem tri_add_tri (n : Num) : tri n + tri n = n * succ n := by
  induction n with
  | zero => rfl
  | succ n ih =>
    have e : tri n + succ n + (tri n + succ n) = tri n + tri n + (succ n + succ n) := by ac_rfl
    rw [tri_succ, e, ih, mul_succ (succ n), succ_mul n, add_assoc]

/-- Two triangular numbers in a row add up to a square, that of the greater one's index. By induction, with four
summands regrouped in the step. -/
theorem tri_add_next (n : Num) : tri n + tri (succ n) = sq (succ n) := by
  induction n with
  | zero => rfl
  | succ n ih =>
    have e : tri n + succ n + (tri (succ n) + succ (succ n)) = tri n + tri (succ n) + (succ n + succ (succ n)) := by
      ac_rfl
    rw [tri_succ (succ n)]
    show tri n + succ n + (tri (succ n) + succ (succ n)) = succ (succ n) * succ (succ n)
    rw [e, ih, mul_succ (succ (succ n)), succ_mul (succ n) (succ n), add_assoc]
    rfl

/-- The product of two consecutive numbers is even. By induction: the next product is greater by twice a number. -/
theorem two_divides_mul_succ (n : Num) : Divides (succ (succ zero)) (n * succ n) := by
  induction n with
  | zero => exact ⟨zero, by rw [zero_mul]; rfl⟩
  | succ n ih =>
    obtain ⟨c, h⟩ := ih
    refine ⟨c + succ n, ?_⟩
    rw [mul_succ, succ_mul, h, mul_add, succ_mul (succ zero) (succ n), succ_mul zero, zero_mul, zero_add, add_assoc]

/-- No factorial is zero. By induction: a product of two numbers that are not zero is a successor. -/
theorem fact_ne_zero (n : Num) : fact n ≠ zero := by
  induction n with
  | zero => intro h; cases h
  | succ n ih =>
    intro h
    rw [fact_succ, mul_succ] at h
    cases e : fact n with
    | zero => exact ih e
    | succ m => rw [e, add_comm, succ_add] at h; cases h

/-- The factorial of a sum is divisible by the factorial of the first summand. By induction on the second summand: each
step multiplies by one more number. -/
theorem fact_divides_fact_add (a b : Num) : Divides (fact a) (fact (a + b)) := by
  induction b with
  | zero => exact ⟨succ zero, (mul_one _).symm⟩
  | succ n ih =>
    obtain ⟨c, h⟩ := ih
    exact ⟨c * succ (a + n), by rw [add_succ, fact_succ, h, mul_assoc]⟩

/-- A number from one on divides the factorial of every number that is not smaller. By induction on how much greater
that number is. -/
theorem divides_fact_add (a b : Num) : Divides (succ a) (fact (succ a + b)) := by
  induction b with
  | zero => exact ⟨fact a, by rw [add_zero, fact_succ, mul_comm]⟩
  | succ n ih =>
    obtain ⟨c, h⟩ := ih
    exact ⟨c * succ (succ a + n), by rw [add_succ, fact_succ, h, mul_assoc]⟩

/-- One plus the sum of k times k factorial, over k from zero to n, is the factorial of n plus one. By induction: the
sum grows by as much as the factorial does. -/
theorem sum_mul_fact (n : Num) : succ (sum (fun k => k * fact k) (succ n)) = fact (succ n) := by
  induction n with
  | zero => rfl
  | succ n ih => rw [sum_succ, ← succ_add, ih, fact_succ (succ n), mul_succ, mul_comm (succ n), add_comm]

/-- A factor other than zero can be cancelled from the left of a product. By induction on one of the other factors while
the remaining one varies. -/
theorem mul_left_cancel (a b c : Num) (h : succ c * a = succ c * b) : a = b := by
  induction a generalizing b with
  | zero =>
    cases b with
    | zero => rfl
    | succ m => cases h
  | succ n ih =>
    cases b with
    | zero => cases h
    | succ m => rw [mul_succ, mul_succ] at h; rw [ih m (add_right_cancel _ _ _ h)]

/-- The only numbers that are their own squares are zero and one. For two or more the square exceeds the number by a
product that is not zero. -/
theorem sq_eq_self (a : Num) (h : sq a = a) : a = zero ∨ a = succ zero := by
  cases a with
  | zero => exact Or.inl rfl
  | succ n =>
    cases n with
    | zero => exact Or.inr rfl
    | succ m =>
      have k : succ (succ m) * succ m + succ (succ m) = zero + succ (succ m) := by rw [zero_add]; exact h
      have e := add_right_cancel _ _ _ k
      cases e

/-- One is the only divisor of one. If the quotient and the divisor were not both one, their product would be zero or
have a second successor. -/
theorem eq_one_of_divides_one (a : Num) (h : Divides a (succ zero)) : a = succ zero := by
  obtain ⟨c, h⟩ := h
  cases c with
  | zero => cases h
  | succ c =>
    cases a with
    | zero => rw [zero_mul] at h; cases h
    | succ a =>
      cases a with
      | zero => rfl
      | succ b => rw [mul_succ, add_succ, add_succ] at h; injection h with h; cases h

/-- If a number divides a sum and its first summand, then it divides the second. By induction on the quotient of the
first summand: one divisor at a time is taken off both sides. -/
theorem divides_of_divides_add (a b c : Num) (h : Divides a b) (k : Divides a (b + c)) : Divides a c := by
  obtain ⟨d, h⟩ := h
  obtain ⟨e, k⟩ := k
  subst h
  induction d generalizing e with
  | zero => rw [mul_zero, zero_add] at k; exact ⟨e, k⟩
  | succ d ih =>
    cases e with
    | zero =>
      cases c with
      | zero => exact ⟨zero, rfl⟩
      | succ c => cases k
    | succ e =>
      apply ih e
      apply add_right_cancel _ _ a
      rw [← mul_succ a e, ← k, mul_succ]
      ac_rfl

/-- Two numbers that divide each other are equal. Unless they are zero, the product of the quotients can only be one, so
that both quotients are one. -/
theorem divides_antisymm (a b : Num) (h : Divides a b) (k : Divides b a) : a = b := by
  obtain ⟨c, h⟩ := h
  obtain ⟨d, k⟩ := k
  subst h
  cases c with
  | zero => rw [mul_zero, zero_mul] at k; rw [k]; rfl
  | succ c =>
    cases d with
    | zero => rw [mul_zero] at k; rw [k, zero_mul]
    | succ d =>
      have e : zero + a = a * c + a * succ c * d + a := by
        rw [zero_add]
        refine k.trans ?_
        rw [mul_succ (a * succ c), mul_succ]
        ac_rfl
      have f := add_right_cancel _ _ _ e
      have g : a * c = zero := by
        cases u : a * c with
        | zero => rfl
        | succ v => rw [u, succ_add] at f; cases f
      rw [mul_succ, g, zero_add]

/-- No number but one divides two consecutive numbers. By induction on the quotient of the smaller of them, until what
is left is a divisor of one. -/
theorem eq_one_of_divides_succ (a n : Num) (h : Divides a n) (k : Divides a (succ n)) : a = succ zero := by
  obtain ⟨c, h⟩ := h
  obtain ⟨d, k⟩ := k
  subst h
  induction c generalizing d with
  | zero =>
    cases d with
    | zero => cases k
    | succ d =>
      cases a with
      | zero => rw [mul_zero, zero_mul] at k; cases k
      | succ a =>
        cases a with
        | zero => rfl
        | succ b => rw [mul_zero, mul_succ, add_succ, add_succ] at k; injection k with k; cases k
  | succ c ih =>
    cases d with
    | zero => cases k
    | succ d =>
      apply ih d
      apply add_right_cancel _ _ a
      rw [succ_add]
      exact k

/-- The order of a double sum over a rectangle does not matter. By induction on one side; the step adds two sums over
the other side term by term. -/
theorem sum_swap (f : Num → Num → Num) (a b : Num) :
    sum (fun i => sum (fun j => f i j) b) a = sum (fun j => sum (fun i => f i j) a) b := by
  have sum_add : ∀ (g h : Num → Num) (n : Num), sum (fun k => g k + h k) n = sum g n + sum h n := by
    intro g h n
    induction n with
    | zero => rfl
    | succ n ih => rw [sum_succ, sum_succ, sum_succ, ih]; ac_rfl
  induction a with
  | zero =>
    induction b with
    | zero => rfl
    | succ n ih => exact ih
  | succ n ih =>
    rw [sum_succ, ih]
    exact (sum_add (fun j => sum (fun i => f i j) n) (fun j => f n j) b).symm

/-- The sum of the cubes of the numbers up to n is the square of the n-th triangular number. By induction: twice the
triangular number is a product, which turns the mixed term of the square into the missing part of a cube. -/
theorem sum_cubes (n : Num) : sum (fun k => k * k * k) (succ n) = sq (tri n) := by
  have double : ∀ m, tri m + tri m = m * succ m := by
    intro m
    induction m with
    | zero => rfl
    | succ m ih =>
      have e : tri m + succ m + (tri m + succ m) = tri m + tri m + (succ m + succ m) := by ac_rfl
      rw [tri_succ, e, ih, mul_succ (succ m), succ_mul m, add_assoc]
  have add_mul : ∀ x y w : Num, (x + y) * w = x * w + y * w := by
    intro x y w
    rw [mul_comm, mul_add, mul_comm w x, mul_comm w y]
  have key : ∀ t m k : Num, t + t = k * m → succ k = m → t * t + m * m * m = (t + m) * (t + m) := by
    intro t m k h e
    have f : m * m = k * m + m := by
      have g := succ_mul k m
      rw [e] at g
      exact g
    have cube : m * m * m = (t + t) * m + m * m := by rw [h, ← add_mul, ← f]
    have square : (t + m) * (t + m) = t * t + m * t + (t * m + m * m) := by rw [mul_add, add_mul, add_mul]
    rw [cube, square, add_mul t t m, mul_comm m t]
    ac_rfl
  induction n with
  | zero => rfl
  | succ n ih => rw [sum_succ, ih]; exact key (tri n) (succ n) n (double n) rfl
