inductive N | z | s (n : N)
inductive Bit | no | yes
inductive Pair (A B : Type) | mk (a : A) (b : B)
inductive Row (A : Type) | nil | cons (x : A) (l : Row A)
/-- A value that may be missing. -/
inductive Maybe (A : Type) | nothing | just (x : A)
namespace Maybe
open N Bit Pair Row

def plus : N → N → N
  | a, z => a
  | a, s b => s (plus a b)

def app {A : Type} : Row A → Row A → Row A
  | nil, m => m
  | cons x l, m => cons x (app l m)

instance : Add N := ⟨plus⟩
instance {A : Type} : Append (Row A) := ⟨app⟩

def each {A B : Type} (f : A → B) : Row A → Row B
  | nil => nil
  | cons x l => cons (f x) (each f l)

inductive Mem {A : Type} (x : A) : Row A → Prop
  | head {l : Row A} : Mem x (cons x l)
  | tail {y : A} {l : Row A} : Mem x l → Mem x (cons y l)

def map {A B : Type} (f : A → B) : Maybe A → Maybe B
  | nothing => nothing
  | just x => just (f x)

def bind {A B : Type} : Maybe A → (A → Maybe B) → Maybe B
  | nothing, _ => nothing
  | just x, f => f x

def join {A : Type} : Maybe (Maybe A) → Maybe A
  | nothing => nothing
  | just m => m

/-- The first value if there is one, else the second. -/
def orElse {A : Type} : Maybe A → Maybe A → Maybe A
  | nothing, n => n
  | just x, _ => just x

/-- The value, or the given one if it is missing. -/
def getOr {A : Type} (d : A) : Maybe A → A
  | nothing => d
  | just x => x

/-- Applies a function that may be missing. -/
def ap {A B : Type} : Maybe (A → B) → Maybe A → Maybe B
  | nothing, _ => nothing
  | just f, m => map f m

def zip {A B : Type} : Maybe A → Maybe B → Maybe (Pair A B)
  | just x, just y => just (mk x y)
  | just _, nothing => nothing
  | nothing, _ => nothing

/-- A value if a test is passed. -/
def guard {A : Type} : Bit → A → Maybe A
  | yes, x => just x
  | no, _ => nothing

def filter {A : Type} (p : A → Bit) : Maybe A → Maybe A
  | nothing => nothing
  | just x => guard (p x) x

/-- The values that are there, in order. -/
def collect {A : Type} : Row (Maybe A) → Row A
  | nil => nil
  | cons nothing l => collect l
  | cons (just x) l => cons x (collect l)

/-- All values, if none is missing. -/
def all {A : Type} : Row (Maybe A) → Maybe (Row A)
  | nil => just nil
  | cons m l => bind m (fun x => map (cons x) (all l))

/-- The first value that is there. -/
def first {A : Type} : Row (Maybe A) → Maybe A
  | nil => nothing
  | cons m l => orElse m (first l)

/-- So many steps of a partial function. -/
def steps {A : Type} (f : A → Maybe A) : N → A → Maybe A
  | z, x => just x
  | s n, x => bind (f x) (steps f n)

/-- The value of the first pair with the key. -/
def lookup {K V : Type} (eq : K → K → Bit) (k : K) : Row (Pair K V) → Maybe V
  | nil => nothing
  | cons (mk j v) l => orElse (guard (eq k j) v) (lookup eq k l)

/-- Less defined: missing, or the same. -/
inductive Below {A : Type} : Maybe A → Maybe A → Prop
  | bottom (m : Maybe A) : Below nothing m
  | same (x : A) : Below (just x) (just x)

-- theorems

/-- Mapping the identity over a value that may be missing changes nothing. By cases. -/
theorem map_id {A : Type} (m : Maybe A) : map (fun x => x) m = m := by
  cases m <;> rfl

/-- Mapping one function after another is mapping their composition. By cases on whether there is a value. -/
theorem map_map {A B C : Type} (f : A → B) (g : B → C) (m : Maybe A) : map g (map f m) = map (fun x => g (f x)) m := by
  cases m <;> rfl

/-- To go on by just returning the value is to do nothing: the right unit law. By cases. -/
theorem bind_just {A : Type} (m : Maybe A) : bind m just = m := by
  cases m <;> rfl

/-- Going on in two steps may be bracketed either way: the associative law of the monad. By cases on the first value. -/
theorem bind_assoc {A B C : Type} (m : Maybe A) (f : A → Maybe B) (g : B → Maybe C) :
    bind (bind m f) g = bind m (fun x => bind (f x) g) := by
  cases m <;> rfl

/-- Mapping is going on with a function that always returns a value. By cases. -/
theorem map_eq_bind {A B : Type} (f : A → B) (m : Maybe A) : map f m = bind m (fun x => just (f x)) := by
  cases m <;> rfl

/-- Going on with a function is mapping it and joining the two layers. By cases. -/
theorem bind_eq_join {A B : Type} (f : A → Maybe B) (m : Maybe A) : bind m f = join (map f m) := by
  cases m <;> rfl

/-- Three layers of possible absence may be joined from the outside or from the inside. By cases. -/
theorem join_join {A : Type} (m : Maybe (Maybe (Maybe A))) : join (join m) = join (map join m) := by
  cases m <;> rfl

/-- Nothing is neutral as the alternative: a value or else nothing is that value. By cases. -/
theorem orElse_nothing {A : Type} (m : Maybe A) : orElse m nothing = m := by
  cases m <;> rfl

/-- The choice of the first value that is there is associative. By cases on the first. -/
theorem orElse_assoc {A : Type} (m n k : Maybe A) : orElse (orElse m n) k = orElse m (orElse n k) := by
  cases m <;> rfl

/-- The choice between a value and the same value is that value. By cases. -/
theorem orElse_self {A : Type} (m : Maybe A) : orElse m m = m := by
  cases m <;> rfl

/-- Mapping distributes over the choice of alternatives. By cases on the first alternative. -/
theorem map_orElse {A B : Type} (f : A → B) (m n : Maybe A) : map f (orElse m n) = orElse (map f m) (map f n) := by
  cases m <;> rfl

/-- Going on with a choice between two functions is the choice between going on with each. By cases on the value. -/
theorem bind_orElse {A B : Type} (m : Maybe A) (f g : A → Maybe B) :
    bind m (fun x => orElse (f x) (g x)) = orElse (bind m f) (bind m g) := by
  cases m <;> rfl

/-- Applying a function to the value or its default is the mapped value or the default's image. By cases. -/
theorem getOr_map {A B : Type} (f : A → B) (d : A) (m : Maybe A) : f (getOr d m) = getOr (f d) (map f m) := by
  cases m <;> rfl

/-- The default of a choice is the default of the second alternative, and this in turn that of the first. By cases. -/
theorem getOr_orElse {A : Type} (d : A) (m n : Maybe A) : getOr d (orElse m n) = getOr (getOr d n) m := by
  cases m <;> rfl

/-- Zipping two possible values is going on from the one to the other and pairing them. By cases on both. -/
theorem zip_eq_bind {A B : Type} (m : Maybe A) (n : Maybe B) :
    zip m n = bind m (fun x => bind n (fun y => just (mk x y))) := by
  cases m <;> cases n <;> rfl

/-- A value that is there is not missing. The constructors differ. -/
theorem just_ne_nothing {A : Type} (x : A) : just x ≠ nothing := by
  intro h
  cases h

/-- Values that are there are equal exactly if what they hold is equal. By injectivity of the constructor. -/
theorem just_inj {A : Type} (x y : A) : just x = just y ↔ x = y := by
  constructor
  · intro h; injection h
  · intro h; rw [h]

/-- The image of a possible value is missing exactly if the value is. By cases. -/
theorem map_eq_nothing_iff {A B : Type} (f : A → B) (m : Maybe A) : map f m = nothing ↔ m = nothing := by
  cases m with
  | nothing => exact ⟨fun _ => rfl, fun _ => rfl⟩
  | just x =>
    constructor
    · intro h; cases h
    · intro h; cases h

/-- A choice of two is missing exactly if both alternatives are. By cases on the first. -/
theorem orElse_eq_nothing_iff {A : Type} (m n : Maybe A) : orElse m n = nothing ↔ m = nothing ∧ n = nothing := by
  cases m with
  | nothing => exact ⟨fun h => ⟨rfl, h⟩, fun h => h.2⟩
  | just x =>
    constructor
    · intro h; cases h
    · intro h; cases h.1

/-- Going on yields a value exactly if there is a first value and going on from it yields that value. By cases on the
first. -/
theorem bind_eq_just_iff {A B : Type} (m : Maybe A) (f : A → Maybe B) (y : B) :
    bind m f = just y ↔ ∃ x, m = just x ∧ f x = just y := by
  cases m with
  | nothing =>
    constructor
    · intro h; cases h
    · intro ⟨x, h, _⟩; cases h
  | just x =>
    constructor
    · intro h; exact ⟨x, rfl, h⟩
    · intro ⟨w, h, k⟩; injection h with h; subst h; exact k

/-- Mapping an injective function is injective. By cases on both values; the mixed cases are impossible. -/
theorem map_injective {A B : Type} (f : A → B) (hf : ∀ x y, f x = f y → x = y) (m n : Maybe A)
    (h : map f m = map f n) : m = n := by
  cases m with
  | nothing =>
    cases n with
    | nothing => rfl
    | just y => cases h
  | just x =>
    cases n with
    | nothing => cases h
    | just y => injection h with h; rw [hf x y h]

/-- Two independent possible values may be asked for in either order. By cases on both. -/
theorem bind_comm {A B C : Type} (m : Maybe A) (n : Maybe B) (f : A → B → Maybe C) :
    bind m (fun x => bind n (fun y => f x y)) = bind n (fun y => bind m (fun x => f x y)) := by
  cases m <;> cases n <;> rfl

/-- Applying a possible composition is applying the two possible functions one after the other. By cases on all
three. -/
theorem ap_comp {A B C : Type} (g : Maybe (B → C)) (f : Maybe (A → B)) (m : Maybe A) :
    ap (ap (map (fun v u x => v (u x)) g) f) m = ap g (ap f m) := by
  cases g <;> cases f <;> cases m <;> rfl

/-- Applying a possible function to a given argument is applying the evaluation at this argument to the possible
function. By cases. -/
theorem ap_just {A B : Type} (f : Maybe (A → B)) (x : A) : ap f (just x) = map (fun g => g x) f := by
  cases f <;> rfl

/-- A test leaves a given value exactly if that is the value and passes the test. By cases on the value and on the
test's answer. -/
theorem filter_eq_just_iff {A : Type} (p : A → Bit) (m : Maybe A) (x : A) :
    filter p m = just x ↔ m = just x ∧ p x = yes := by
  cases m with
  | nothing =>
    constructor
    · intro h; cases h
    · intro h; cases h.1
  | just y =>
    constructor
    · intro h
      cases e : p y with
      | no => rw [filter, e] at h; cases h
      | yes => rw [filter, e] at h; injection h with h; rw [← h]; exact ⟨rfl, e⟩
    · intro ⟨h, e⟩
      injection h with h
      rw [filter, h, e, guard]

/-- Testing twice leaves the same as testing once. By cases on the value and on the test's answer. -/
theorem filter_filter {A : Type} (p : A → Bit) (m : Maybe A) : filter p (filter p m) = filter p m := by
  cases m with
  | nothing => rfl
  | just x => cases e : p x <;> simp only [filter, guard, e]

/-- The definedness order is reflexive. By cases, with one constructor for each. -/
theorem below_refl {A : Type} (m : Maybe A) : Below m m := by
  cases m with
  | nothing => exact Below.bottom nothing
  | just x => exact Below.same x

/-- The definedness order is transitive. By cases on the first comparison. -/
theorem below_trans {A : Type} (m n k : Maybe A) (h : Below m n) (j : Below n k) : Below m k := by
  cases h with
  | bottom => exact Below.bottom k
  | same x => exact j

/-- The definedness order is antisymmetric. By cases on both comparisons. -/
theorem below_antisymm {A : Type} (m n : Maybe A) (h : Below m n) (j : Below n m) : m = n := by
  cases h with
  | bottom => cases j; rfl
  | same x => rfl

/-- A value is less defined than another exactly if the other agrees with it wherever it is there. By cases on the
first. -/
theorem below_iff {A : Type} (m n : Maybe A) : Below m n ↔ ∀ x, m = just x → n = just x := by
  constructor
  · intro h x e
    cases h with
    | bottom => cases e
    | same y => exact e
  · intro h
    cases m with
    | nothing => exact Below.bottom n
    | just x => rw [h x rfl]; exact Below.same x

/-- Going on is monotone: a more defined value and a function that is more defined everywhere yield a more defined
result. By cases on the comparison of the values. -/
theorem bind_below {A B : Type} (m n : Maybe A) (f g : A → Maybe B) (h : Below m n) (k : ∀ x, Below (f x) (g x)) :
    Below (bind m f) (bind n g) := by
  cases h with
  | bottom => exact Below.bottom _
  | same x => exact k x

/-- Collecting the values of two lists appended is appending the values of each. By induction on the first, with cases
on whether its head is there. -/
theorem collect_app {A : Type} (l m : Row (Maybe A)) : collect (l ++ m) = collect l ++ collect m := by
  induction l with
  | nil => rfl
  | cons x l ih =>
    cases x with
    | nothing => exact ih
    | just x => exact congrArg (cons x) ih

/-- Collecting after mapping over each possible value is mapping over the collected values. By induction with cases on
the head. -/
theorem collect_each {A B : Type} (f : A → B) (l : Row (Maybe A)) : collect (each (map f) l) = each f (collect l) := by
  induction l with
  | nil => rfl
  | cons x l ih =>
    cases x with
    | nothing => exact ih
    | just x => exact congrArg (cons (f x)) ih

/-- An element is among the collected values exactly if it stands somewhere in the list of possible values. By induction
on the list, with cases on its head. -/
theorem mem_collect_iff {A : Type} (x : A) (l : Row (Maybe A)) : Mem x (collect l) ↔ Mem (just x) l := by
  induction l with
  | nil =>
    constructor
    · intro h; cases h
    · intro h; cases h
  | cons m l ih =>
    cases m with
    | nothing =>
      constructor
      · intro h; exact Mem.tail (ih.1 h)
      · intro h
        cases h with
        | tail h => exact ih.2 h
    | just y =>
      constructor
      · intro h
        cases h with
        | head => exact Mem.head
        | tail h => exact Mem.tail (ih.1 h)
      · intro h
        cases h with
        | head => exact Mem.head
        | tail h => exact Mem.tail (ih.2 h)

/-- If every entry of a list is there, all of them together are the list that the entries were made of. By induction. -/
theorem all_each_just {A : Type} (l : Row A) : all (each just l) = just l := by
  induction l with
  | nil => rfl
  | cons x l ih =>
    show map (cons x) (all (each just l)) = just (cons x l)
    rw [ih]
    rfl

/-- If all values of a list are there and make up a list, then collecting gives that list. By induction, taking apart
how the list of values came about. -/
theorem collect_of_all {A : Type} (l : Row (Maybe A)) (k : Row A) (h : all l = just k) : collect l = k := by
  induction l generalizing k with
  | nil => injection h
  | cons m l ih =>
    cases m with
    | nothing => cases h
    | just x =>
      change map (cons x) (all l) = just k at h
      cases e : all l with
      | nothing => rw [e] at h; cases h
      | just j =>
        rw [e] at h
        injection h with h
        rw [← h, ← ih j e]
        rfl

/-- The values of a list together are missing exactly if one of its entries is. By induction on the list, with cases on
its head. -/
theorem all_eq_nothing_iff {A : Type} (l : Row (Maybe A)) : all l = nothing ↔ Mem nothing l := by
  induction l with
  | nil =>
    constructor
    · intro h; cases h
    · intro h; cases h
  | cons m l ih =>
    cases m with
    | nothing => exact ⟨fun _ => Mem.head, fun _ => rfl⟩
    | just x =>
      constructor
      · intro h
        change map (cons x) (all l) = nothing at h
        cases e : all l with
        | nothing => exact Mem.tail (ih.1 e)
        | just k => rw [e] at h; cases h
      · intro h
        cases h with
        | tail h =>
          show map (cons x) (all l) = nothing
          rw [ih.2 h]
          rfl

/-- All values of two lists appended are all values of the first followed by all of the second, if none is missing. By
induction on the first list. -/
theorem all_app {A : Type} (l m : Row (Maybe A)) :
    all (l ++ m) = bind (all l) (fun a => map (fun b => a ++ b) (all m)) := by
  induction l with
  | nil =>
    show all m = map (fun b => nil ++ b) (all m)
    cases all m <;> rfl
  | cons x l ih =>
    cases x with
    | nothing => rfl
    | just x =>
      show map (cons x) (all (l ++ m)) = bind (map (cons x) (all l)) _
      rw [ih]
      cases all l with
      | nothing => rfl
      | just a => cases all m <;> rfl

/-- The first value in two lists appended is the first in the one or else the first in the other. By induction on the
first list. -/
theorem first_app {A : Type} (l m : Row (Maybe A)) : first (l ++ m) = orElse (first l) (first m) := by
  induction l with
  | nil => rfl
  | cons x l ih =>
    cases x with
    | nothing => exact ih
    | just x => rfl

/-- There is no first value in a list exactly if all its entries are missing. By induction on the list. -/
theorem first_eq_nothing_iff {A : Type} (l : Row (Maybe A)) : first l = nothing ↔ ∀ m, Mem m l → m = nothing := by
  induction l with
  | nil =>
    constructor
    · intro _ m h; cases h
    · intro _; rfl
  | cons x l ih =>
    cases x with
    | nothing =>
      constructor
      · intro h m hm
        cases hm with
        | head => rfl
        | tail hm => exact ih.1 h m hm
      · intro h
        exact ih.2 (fun m hm => h m (Mem.tail hm))
    | just x =>
      constructor
      · intro h; cases h
      · intro h; cases h _ Mem.head

/-- Taking m plus n steps of a partial function is taking m steps and then n. By induction on m, for any start; the sum
grows on the left. -/
theorem steps_plus {A : Type} (f : A → Maybe A) (m n : N) (x : A) :
    steps f (m + n) x = bind (steps f m x) (steps f n) := by
  have s_plus : ∀ a b : N, s a + b = s (a + b) := by
    intro a b
    induction b with
    | z => rfl
    | s b ih => exact congrArg s ih
  have z_plus : ∀ a : N, z + a = a := by
    intro a
    induction a with
    | z => rfl
    | s a ih => exact congrArg s ih
  induction m generalizing x with
  | z => rw [z_plus]; rfl
  | s m ih =>
    rw [s_plus, steps, steps]
    cases f x with
    | nothing => rfl
    | just y => exact ih y

/-- A computation that has got stuck stays stuck: if n steps are impossible, so are n plus k steps. By induction on n,
for any start. -/
theorem steps_stuck {A : Type} (f : A → Maybe A) (n k : N) (x : A) (h : steps f n x = nothing) :
    steps f (n + k) x = nothing := by
  have s_plus : ∀ a b : N, s a + b = s (a + b) := by
    intro a b
    induction b with
    | z => rfl
    | s b ih => exact congrArg s ih
  induction n generalizing x with
  | z => cases h
  | s n ih =>
    rw [s_plus, steps]
    rw [steps] at h
    cases e : f x with
    | nothing => rfl
    | just y => rw [e] at h; exact ih y h

/-- The last of n plus one steps may be taken first or last: one step and then n is n steps and then one. By induction
on n. -/
theorem steps_comm {A : Type} (f : A → Maybe A) (n : N) (x : A) : steps f (s n) x = bind (steps f n x) f := by
  induction n generalizing x with
  | z =>
    show bind (f x) just = f x
    cases f x <;> rfl
  | s n ih =>
    rw [steps, steps]
    cases f x with
    | nothing => rfl
    | just y => exact ih y

/-- Looking a key up in two tables appended finds it in the first or else in the second. By induction on the first, with
the associativity of the choice. -/
theorem lookup_app {K V : Type} (eq : K → K → Bit) (k : K) (l m : Row (Pair K V)) :
    lookup eq k (l ++ m) = orElse (lookup eq k l) (lookup eq k m) := by
  induction l with
  | nil => rfl
  | cons p l ih =>
    cases p with
    | mk j v =>
      show orElse (guard (eq k j) v) (lookup eq k (l ++ m)) = orElse (orElse (guard (eq k j) v) (lookup eq k l)) _
      rw [ih]
      cases eq k j <;> rfl

/-- What is found under a key stands in the table as a pair with that key, provided that the test for equal keys is
right. By induction on the table, with cases on the test. -/
theorem mem_of_lookup {K V : Type} (eq : K → K → Bit) (he : ∀ a b, eq a b = yes → a = b) (k : K) (v : V)
    (l : Row (Pair K V)) (h : lookup eq k l = just v) : Mem (mk k v) l := by
  induction l with
  | nil => cases h
  | cons p l ih =>
    cases p with
    | mk j w =>
      rw [lookup] at h
      cases e : eq k j with
      | no => rw [e] at h; exact Mem.tail (ih h)
      | yes =>
        rw [e] at h
        injection h with h
        rw [he k j e, h]
        exact Mem.head

/-- If a key stands in a table with some value, then looking it up finds a value, though maybe another. By induction on
where it stands. -/
theorem lookup_of_mem {K V : Type} (eq : K → K → Bit) (he : ∀ a, eq a a = yes) (k : K) (v : V) (l : Row (Pair K V))
    (h : Mem (mk k v) l) : ∃ w, lookup eq k l = just w := by
  induction h with
  | head => exact ⟨v, by rw [lookup, he]; rfl⟩
  | @tail p l _ ih =>
    obtain ⟨w, ih⟩ := ih
    cases p with
    | mk j u =>
      rw [lookup, ih]
      cases eq k j with
      | no => exact ⟨w, rfl⟩
      | yes => exact ⟨u, rfl⟩

/-- If one partial function is everywhere less defined than another, then so is what any number of its steps gives. By
induction on the number of steps, comparing the first steps. -/
theorem steps_below {A : Type} (f g : A → Maybe A) (h : ∀ x, Below (f x) (g x)) (n : N) (x : A) :
    Below (steps f n x) (steps g n x) := by
  induction n generalizing x with
  | z => exact Below.same x
  | s n ih =>
    rw [steps, steps]
    have k := h x
    cases e : f x with
    | nothing => exact Below.bottom _
    | just y =>
      rw [e] at k
      generalize g x = m at k
      cases k with
      | same => exact ih y
