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
