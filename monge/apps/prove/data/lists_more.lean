inductive N | z | s (n : N)
inductive Bit | no | yes
inductive Pair (A B : Type) | mk (a : A) (b : B)
inductive Row (A : Type) | nil | cons (x : A) (l : Row A)
namespace Row
open N Bit Pair

/-- The first of two things for yes, the second for no. -/
def pick {T : Type} : Bit → T → T → T
  | yes, a, _ => a
  | no, _, b => b

def not : Bit → Bit
  | yes => no
  | no => yes

def plus : N → N → N
  | a, z => a
  | a, s b => s (plus a b)

instance : Add N := ⟨plus⟩

def app {A : Type} : Row A → Row A → Row A
  | nil, m => m
  | cons x l, m => cons x (app l m)

instance {A : Type} : Append (Row A) := ⟨app⟩

def len {A : Type} : Row A → N
  | nil => z
  | cons _ l => s (len l)

def map {A B : Type} (f : A → B) : Row A → Row B
  | nil => nil
  | cons x l => cons (f x) (map f l)

def filter {A : Type} (p : A → Bit) : Row A → Row A
  | nil => nil
  | cons x l => pick (p x) (cons x (filter p l)) (filter p l)

def foldr {A B : Type} (f : A → B → B) (e : B) : Row A → B
  | nil => e
  | cons x l => f x (foldr f e l)

def foldl {A B : Type} (f : B → A → B) : B → Row A → B
  | e, nil => e
  | e, cons x l => foldl f (f e x) l

def take {A : Type} : N → Row A → Row A
  | z, _ => nil
  | s _, nil => nil
  | s n, cons x l => cons x (take n l)

def drop {A : Type} : N → Row A → Row A
  | z, l => l
  | s _, nil => nil
  | s n, cons _ l => drop n l

def zip {A B : Type} : Row A → Row B → Row (Pair A B)
  | nil, _ => nil
  | cons _ _, nil => nil
  | cons x l, cons y m => cons (mk x y) (zip l m)

def fst {A B : Type} : Pair A B → A
  | mk a _ => a

def snd {A B : Type} : Pair A B → B
  | mk _ b => b

/-- Puts an element before the first one that it is not above. -/
def insert {A : Type} (le : A → A → Bit) (x : A) : Row A → Row A
  | nil => cons x nil
  | cons y l => pick (le x y) (cons x (cons y l)) (cons y (insert le x l))

def sort {A : Type} (le : A → A → Bit) : Row A → Row A
  | nil => nil
  | cons x l => insert le x (sort le l)

inductive Sorted {A : Type} (le : A → A → Bit) : Row A → Prop
  | none : Sorted le nil
  | one (x : A) : Sorted le (cons x nil)
  | more {x y : A} {l : Row A} : le x y = yes → Sorted le (cons y l) → Sorted le (cons x (cons y l))

/-- The one list is the other with its elements in another order. -/
inductive Perm {A : Type} : Row A → Row A → Prop
  | none : Perm nil nil
  | skip (x : A) {l m : Row A} : Perm l m → Perm (cons x l) (cons x m)
  | swap (x y : A) (l : Row A) : Perm (cons x (cons y l)) (cons y (cons x l))
  | trans {l m k : Row A} : Perm l m → Perm m k → Perm l k

/-- The one list is the other with some elements left out. -/
inductive Sub {A : Type} : Row A → Row A → Prop
  | none : Sub nil nil
  | drop (x : A) {l m : Row A} : Sub l m → Sub l (cons x m)
  | keep (x : A) {l m : Row A} : Sub l m → Sub (cons x l) (cons x m)

inductive All {A : Type} (p : A → Prop) : Row A → Prop
  | none : All p nil
  | more {x : A} {l : Row A} : p x → All p l → All p (cons x l)

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
theorem cons_app {A : Type} (x : A) (l m : Row A) : cons x l ++ m = cons x (l ++ m) := rfl
theorem filter_cons {A : Type} (p : A → Bit) (x : A) (l : Row A) :
    filter p (cons x l) = pick (p x) (cons x (filter p l)) (filter p l) := rfl
theorem insert_cons {A : Type} (le : A → A → Bit) (x y : A) (l : Row A) :
    insert le x (cons y l) = pick (le x y) (cons x (cons y l)) (cons y (insert le x l)) := rfl

-- theorems

/-- Folding a list with the list constructors themselves gives the list back. By induction. -/
theorem foldr_cons_nil {A : Type} (l : Row A) : foldr cons nil l = l := by
  induction l with
  | nil => rfl
  | cons x l ih => exact congrArg (cons x) ih

/-- A filter that lets everything through changes nothing. By induction on the list. -/
theorem filter_yes {A : Type} (l : Row A) : filter (fun _ => yes) l = l := by
  induction l with
  | nil => rfl
  | cons x l ih => exact congrArg (cons x) ih

/-- A filter that lets nothing through leaves the empty list. By induction on the list. -/
theorem filter_no {A : Type} (l : Row A) : filter (fun _ => no) l = nil := by
  induction l with
  | nil => rfl
  | cons x l ih => exact ih

/-- There is nothing to drop from an empty list, however many elements one asks for. By cases on the number. -/
theorem drop_nil {A : Type} (n : N) : drop n (nil : Row A) = nil := by
  cases n with
  | z => rfl
  | s n => rfl

/-- Zipping any list with the empty list gives the empty list. By cases on the first. -/
theorem zip_nil {A B : Type} (l : Row A) : zip l (nil : Row B) = nil := by
  cases l with
  | nil => rfl
  | cons x l => rfl

/-- Every list is a permutation of itself. By induction, keeping each element in its place. -/
theorem perm_refl {A : Type} (l : Row A) : Perm l l := by
  induction l with
  | nil => exact Perm.none
  | cons x l ih => exact Perm.skip x ih

/-- The empty list is a sublist of every list. By induction on the list: all its elements are left out. -/
theorem nil_sub {A : Type} (l : Row A) : Sub nil l := by
  induction l with
  | nil => exact Sub.none
  | cons x l ih => exact Sub.drop x ih

/-- Being a permutation is symmetric. By induction on the derivation: a swap is undone by a swap, and a chain is walked
backwards. -/
theorem perm_symm {A : Type} (l m : Row A) (h : Perm l m) : Perm m l := by
  induction h with
  | none => exact Perm.none
  | skip x _ ih => exact Perm.skip x ih
  | swap x y l => exact Perm.swap y x l
  | trans _ _ ih1 ih2 => exact Perm.trans ih2 ih1

/-- Permutations of each other have the same length. By induction on the derivation. -/
theorem perm_len {A : Type} (l m : Row A) (h : Perm l m) : len l = len m := by
  induction h with
  | none => rfl
  | skip x _ ih => exact congrArg s ih
  | swap x y l => rfl
  | trans _ _ ih1 ih2 => exact ih1.trans ih2

/-- The images of a list and of its permutation under a function are permutations of each other. By induction on the
derivation. -/
theorem perm_map {A B : Type} (f : A → B) (l m : Row A) (h : Perm l m) : Perm (map f l) (map f m) := by
  induction h with
  | none => exact Perm.none
  | skip x _ ih => exact Perm.skip (f x) ih
  | swap x y l => exact Perm.swap (f x) (f y) (map f l)
  | trans _ _ ih1 ih2 => exact Perm.trans ih1 ih2

/-- The first n elements of a list, followed by what is left without them, are the list. By induction on the list for
any n. -/
theorem take_app_drop {A : Type} (n : N) (l : Row A) : take n l ++ drop n l = l := by
  induction l generalizing n with
  | nil => cases n <;> rfl
  | cons x l ih =>
    cases n with
    | z => rfl
    | s n => exact congrArg (cons x) (ih n)

/-- To take the first n elements twice is to take them once. By induction on n with cases on the list. -/
theorem take_take {A : Type} (n : N) (l : Row A) : take n (take n l) = take n l := by
  induction n generalizing l with
  | z => rfl
  | s n ih =>
    cases l with
    | nil => rfl
    | cons x l => exact congrArg (cons x) (ih l)

/-- Folding from the right over two lists appended folds the second first and goes on with the first. By induction on
the first. -/
theorem foldr_app {A B : Type} (f : A → B → B) (e : B) (l m : Row A) :
    foldr f e (l ++ m) = foldr f (foldr f e m) l := by
  induction l with
  | nil => rfl
  | cons x l ih => exact congrArg (f x) ih

/-- Folding from the left over two lists appended folds the first and goes on with the second. By induction on the
first, for any start. -/
theorem foldl_app {A B : Type} (f : B → A → B) (e : B) (l m : Row A) :
    foldl f e (l ++ m) = foldl f (foldl f e l) m := by
  induction l generalizing e with
  | nil => rfl
  | cons x l ih => exact ih (f e x)

/-- Fusion: a function that turns one folding step into another turns the one fold into the other. By induction on the
list. -/
theorem foldr_fusion {A B C : Type} (f : A → B → B) (g : A → C → C) (h : B → C) (e : B)
    (step : ∀ x y, h (f x y) = g x (h y)) (l : Row A) : h (foldr f e l) = foldr g (h e) l := by
  induction l with
  | nil => rfl
  | cons x l ih => exact (step x _).trans (congrArg (g x) ih)

/-- A fold is the only function that obeys its equations: with the value e at the empty list and one step at each
element. By induction on the list. -/
theorem foldr_unique {A B : Type} (f : A → B → B) (e : B) (h : Row A → B) (hn : h nil = e)
    (hc : ∀ x l, h (cons x l) = f x (h l)) (l : Row A) : h l = foldr f e l := by
  induction l with
  | nil => exact hn
  | cons x l ih => rw [hc, ih]; rfl

/-- To exchange the components of all pairs of two zipped lists is to zip the lists in the other order. By induction on
one list with cases on the other. -/
theorem zip_swap {A B : Type} (l : Row A) (m : Row B) : map (fun p => mk (snd p) (fst p)) (zip l m) = zip m l := by
  induction l generalizing m with
  | nil => cases m <;> rfl
  | cons x l ih =>
    cases m with
    | nil => rfl
    | cons y m => exact congrArg (cons (mk y x)) (ih m)

/-- A list of pairs that is taken apart into first and second components is put together again by zipping. By
induction. -/
theorem zip_map_fst_snd {A B : Type} (l : Row (Pair A B)) : zip (map fst l) (map snd l) = l := by
  induction l with
  | nil => rfl
  | cons p l ih =>
    cases p with
    | mk a b => exact congrArg (cons (mk a b)) ih

/-- The first components of two zipped lists are the first list, if both are equally long. By induction on one with
cases on the other. -/
theorem map_fst_zip {A B : Type} (l : Row A) (m : Row B) (h : len l = len m) : map fst (zip l m) = l := by
  induction l generalizing m with
  | nil => rfl
  | cons x l ih =>
    cases m with
    | nil => cases h
    | cons y m => injection h with h; exact congrArg (cons x) (ih m h)

/-- The first n pairs of two zipped lists are the first n elements of each, zipped. By induction on n with cases on the
lists. -/
theorem take_zip {A B : Type} (n : N) (l : Row A) (m : Row B) : take n (zip l m) = zip (take n l) (take n m) := by
  induction n generalizing l m with
  | z => rfl
  | s n ih =>
    cases l with
    | nil => rfl
    | cons x l =>
      cases m with
      | nil => rfl
      | cons y m => exact congrArg (cons (mk x y)) (ih l m)

/-- Dropping m elements after n others is dropping n and m at once. By induction on the list for any n. -/
theorem drop_drop {A : Type} (m n : N) (l : Row A) : drop m (drop n l) = drop (n + m) l := by
  induction l generalizing n with
  | nil =>
    have none : ∀ k : N, drop k (nil : Row A) = nil := by
      intro k
      cases k <;> rfl
    rw [none, none, none]
  | cons x l ih =>
    cases n with
    | z => rw [z_plus]; rfl
    | s n => rw [s_plus]; exact ih n

/-- Filtering two lists appended is appending what the filter leaves of them. By induction on the first, with cases on
whether its head stays. -/
theorem filter_app {A : Type} (p : A → Bit) (l m : Row A) : filter p (l ++ m) = filter p l ++ filter p m := by
  induction l with
  | nil => rfl
  | cons x l ih =>
    rw [cons_app, filter_cons, filter_cons, ih]
    cases p x <;> rfl

/-- Two filters may be applied in either order. By induction, with cases on what each says about the head. -/
theorem filter_comm {A : Type} (p q : A → Bit) (l : Row A) : filter p (filter q l) = filter q (filter p l) := by
  induction l with
  | nil => rfl
  | cons x l ih =>
    rw [filter_cons, filter_cons]
    cases hp : p x <;> cases hq : q x <;> simp only [pick, filter_cons, hp, hq, ih]

/-- Filtering the image of a list is taking the image of the list filtered by the composed test. By induction with cases
on the head. -/
theorem filter_map {A B : Type} (p : B → Bit) (f : A → B) (l : Row A) :
    filter p (map f l) = map f (filter (fun x => p (f x)) l) := by
  induction l with
  | nil => rfl
  | cons x l ih =>
    show pick (p (f x)) _ _ = map f (pick (p (f x)) _ _)
    rw [ih]
    cases p (f x) <;> rfl

/-- Everything that a filter leaves passes its test. By induction on the list with cases on the head. -/
theorem all_filter {A : Type} (p : A → Bit) (l : Row A) : All (fun x => p x = yes) (filter p l) := by
  induction l with
  | nil => exact All.none
  | cons x l ih =>
    rw [filter_cons]
    cases h : p x with
    | no => exact ih
    | yes => exact All.more h ih

/-- What a filter leaves of a list is a sublist of it. By induction with cases on the head. -/
theorem filter_sub {A : Type} (p : A → Bit) (l : Row A) : Sub (filter p l) l := by
  induction l with
  | nil => exact Sub.none
  | cons x l ih =>
    rw [filter_cons]
    cases p x with
    | no => exact Sub.drop x ih
    | yes => exact Sub.keep x ih

/-- What holds of all elements of a list holds of all elements of its sublists. By induction on the sublist relation. -/
theorem all_of_sub {A : Type} (p : A → Prop) (l m : Row A) (h : Sub l m) (k : All p m) : All p l := by
  induction h with
  | none => exact k
  | drop x _ ih =>
    cases k with
    | more _ k => exact ih k
  | keep x _ ih =>
    cases k with
    | more hx k => exact All.more hx (ih k)

/-- What a test accepts and what it refuses add up to the whole: the lengths of a list filtered by the test and by its
negation sum to the list's length. By induction with cases. -/
theorem len_filter_not {A : Type} (p : A → Bit) (l : Row A) :
    len (filter p l) + len (filter (fun x => not (p x)) l) = len l := by
  induction l with
  | nil => rfl
  | cons x l ih =>
    rw [filter_cons, filter_cons]
    cases p x with
    | no => exact congrArg s ih
    | yes => exact (s_plus _ _).trans (congrArg s ih)

/-- For an associative operation with a neutral element, folding from the left and from the right gives the same. By
induction on the list, for any start of the fold from the left. -/
theorem foldl_eq_foldr {A : Type} (f : A → A → A) (e : A) (assoc : ∀ x y w, f (f x y) w = f x (f y w))
    (left : ∀ x, f e x = x) (right : ∀ x, f x e = x) (l : Row A) : foldl f e l = foldr f e l := by
  have gen : ∀ (m : Row A) (a : A), foldl f a m = f a (foldr f e m) := by
    intro m
    induction m with
    | nil => intro a; exact (right a).symm
    | cons x m ih => intro a; exact (ih (f a x)).trans (assoc a x _)
  rw [gen, left]

/-- Folding a permuted list gives the same result if the operation does not care in which order two elements come. By
induction on the permutation. -/
theorem perm_foldr {A B : Type} (f : A → B → B) (e : B) (hf : ∀ x y b, f x (f y b) = f y (f x b)) (l m : Row A)
    (h : Perm l m) : foldr f e l = foldr f e m := by
  induction h with
  | none => rfl
  | skip x _ ih => exact congrArg (f x) ih
  | swap x y l => exact hf x y _
  | trans _ _ ih1 ih2 => exact ih1.trans ih2

/-- What holds of all elements of a list holds of all elements of its permutations. By induction on the permutation. -/
theorem all_of_perm {A : Type} (p : A → Prop) (l m : Row A) (h : Perm l m) (k : All p l) : All p m := by
  induction h with
  | none => exact k
  | skip x _ ih =>
    cases k with
    | more hx k => exact All.more hx (ih k)
  | swap x y l =>
    cases k with
    | more hx k =>
      cases k with
      | more hy k => exact All.more hy (All.more hx k)
  | trans _ _ ih1 ih2 => exact ih2 (ih1 k)

/-- Filtering respects permutations. By induction on the permutation, with cases on the elements that are kept or
exchanged. -/
theorem perm_filter {A : Type} (p : A → Bit) (l m : Row A) (h : Perm l m) : Perm (filter p l) (filter p m) := by
  have refl : ∀ k : Row A, Perm k k := by
    intro k
    induction k with
    | nil => exact Perm.none
    | cons x k ih => exact Perm.skip x ih
  induction h with
  | none => exact Perm.none
  | skip x _ ih =>
    rw [filter_cons, filter_cons]
    cases p x with
    | no => exact ih
    | yes => exact Perm.skip x ih
  | swap x y l =>
    simp only [filter_cons]
    cases p x <;> cases p y
    · exact refl _
    · exact refl _
    · exact refl _
    · exact Perm.swap x y _
  | trans _ _ ih1 ih2 => exact Perm.trans ih1 ih2

/-- Only the empty list is a permutation of the empty list. By induction on the derivation, whose steps never start at
an empty list but to end there. -/
theorem eq_nil_of_perm_nil {A : Type} (l : Row A) (h : Perm nil l) : l = nil := by
  have gen : ∀ a b : Row A, Perm a b → a = nil → b = nil := by
    intro a b k
    induction k with
    | none => intro e; exact e
    | skip x _ _ => intro e; cases e
    | swap x y m => intro e; cases e
    | trans _ _ ih1 ih2 => intro e; exact ih2 (ih1 e)
  exact gen nil l h rfl

/-- An element may be moved from the front to any place in a list and the list stays a permutation. By induction on what
it is moved across, one swap a step. -/
theorem perm_middle {A : Type} (x : A) (l m : Row A) : Perm (cons x (l ++ m)) (l ++ cons x m) := by
  induction l with
  | nil =>
    show Perm (cons x m) (cons x m)
    apply Perm.skip
    induction m with
    | nil => exact Perm.none
    | cons y m ih => exact Perm.skip y ih
  | cons y l ih => exact Perm.trans (Perm.swap x y (l ++ m)) (Perm.skip y ih)

/-- Appending two lists in the one or the other order gives permutations. By induction on the first, whose head moves
across the second. -/
theorem perm_app_comm {A : Type} (l m : Row A) : Perm (l ++ m) (m ++ l) := by
  have refl : ∀ k : Row A, Perm k k := by
    intro k
    induction k with
    | nil => exact Perm.none
    | cons x k ih => exact Perm.skip x ih
  have middle : ∀ (x : A) (a b : Row A), Perm (cons x (a ++ b)) (a ++ cons x b) := by
    intro x a b
    induction a with
    | nil => exact refl _
    | cons y a ih => exact Perm.trans (Perm.swap x y (a ++ b)) (Perm.skip y ih)
  have app_nil : ∀ k : Row A, k ++ nil = k := by
    intro k
    induction k with
    | nil => rfl
    | cons x k ih => rw [cons_app, ih]
  induction l with
  | nil => rw [app_nil]; exact refl m
  | cons x l ih => exact Perm.trans (Perm.skip x ih) (middle x m l)

/-- Appending respects permutations on both sides. By induction on the permutation of the first lists, and at its end on
the permutation of the second. -/
theorem perm_app {A : Type} (a b c d : Row A) (h : Perm a b) (k : Perm c d) : Perm (a ++ c) (b ++ d) := by
  have refl : ∀ m : Row A, Perm m m := by
    intro m
    induction m with
    | nil => exact Perm.none
    | cons x m ih => exact Perm.skip x ih
  have front : Perm (a ++ c) (b ++ c) := by
    induction h with
    | none => exact refl c
    | skip x _ ih => exact Perm.skip x ih
    | swap x y l => exact Perm.swap x y (l ++ c)
    | trans _ _ ih1 ih2 => exact Perm.trans ih1 ih2
  have back : ∀ m : Row A, Perm (m ++ c) (m ++ d) := by
    intro m
    induction m with
    | nil => exact k
    | cons x m ih => exact Perm.skip x ih
  exact Perm.trans front (back b)

/-- Being a sublist is transitive. By induction on the second relation, with cases on the first where an element is
kept. -/
theorem sub_trans {A : Type} (a b c : Row A) (h : Sub a b) (k : Sub b c) : Sub a c := by
  induction k generalizing a with
  | none => exact h
  | drop x _ ih => exact Sub.drop x (ih a h)
  | keep x _ ih =>
    cases h with
    | drop _ h => exact Sub.drop x (ih _ h)
    | keep _ h => exact Sub.keep x (ih _ h)

/-- Two lists that are sublists of each other are equal. By induction on the one relation: if an element were left out,
a list would be longer than itself. -/
theorem sub_antisymm {A : Type} (l m : Row A) (h : Sub l m) (k : Sub m l) : l = m := by
  have longer : ∀ a b : Row A, Sub a b → ∃ d, len b = len a + d := by
    intro a b g
    induction g with
    | none => exact ⟨z, rfl⟩
    | drop x _ ih =>
      obtain ⟨d, e⟩ := ih
      exact ⟨s d, congrArg s e⟩
    | keep x _ ih =>
      obtain ⟨d, e⟩ := ih
      exact ⟨d, (congrArg s e).trans (s_plus _ _).symm⟩
  have grow : ∀ n c d : N, n ≠ s (n + c + d) := by
    intro n c d
    induction n with
    | z => intro e; cases e
    | s n ih => intro e; injection e with e; rw [s_plus, s_plus] at e; exact ih e
  have none : ∀ (a b : Row A) (x : A), Sub a b → Sub (cons x b) a → False := by
    intro a b x g1 g2
    obtain ⟨d, e1⟩ := longer a b g1
    obtain ⟨c, e2⟩ := longer _ a g2
    apply grow (len b) c d
    rw [← s_plus, ← s_plus]
    exact e1.trans (congrArg (fun n => n + d) e2)
  induction h with
  | none => rfl
  | drop x g _ => exact absurd k (none _ _ x g)
  | keep x g ih =>
    cases k with
    | drop _ k => exact absurd k (none _ _ x g)
    | keep _ k => rw [ih k]

/-- Sorting by insertion gives a permutation of the list. By induction: inserting moves the new element across some of
the others. -/
theorem sort_perm {A : Type} (le : A → A → Bit) (l : Row A) : Perm l (sort le l) := by
  have refl : ∀ k : Row A, Perm k k := by
    intro k
    induction k with
    | nil => exact Perm.none
    | cons x k ih => exact Perm.skip x ih
  have ins : ∀ (x : A) (k : Row A), Perm (cons x k) (insert le x k) := by
    intro x k
    induction k with
    | nil => exact refl _
    | cons y k ih =>
      rw [insert_cons]
      cases le x y with
      | yes => exact refl _
      | no => exact Perm.trans (Perm.swap x y k) (Perm.skip y ih)
  induction l with
  | nil => exact Perm.none
  | cons x l ih => exact Perm.trans (Perm.skip x ih) (ins x _)

/-- Sorting a list that is sorted already changes nothing. By induction on sortedness: each element is inserted just
where it was. -/
theorem sort_of_sorted {A : Type} (le : A → A → Bit) (l : Row A) (h : Sorted le l) : sort le l = l := by
  induction h with
  | none => rfl
  | one x => rfl
  | @more x y l hxy _ ih =>
    show insert le x (sort le (cons y l)) = cons x (cons y l)
    rw [ih, insert_cons, hxy]
    rfl

/-- If of two elements one is always below the other, sorting by insertion gives a sorted list. By induction: inserting
into a sorted list keeps it sorted, whether the element comes first, second or later. -/
theorem sort_sorted {A : Type} (le : A → A → Bit) (total : ∀ x y, le x y = yes ∨ le y x = yes) (l : Row A) :
    Sorted le (sort le l) := by
  have above : ∀ x y, le x y = no → le y x = yes := by
    intro x y e
    rcases total x y with h | h
    · rw [e] at h; cases h
    · exact h
  have ins : ∀ (x : A) (k : Row A), Sorted le k → Sorted le (insert le x k) := by
    intro x k h
    induction h with
    | none => exact Sorted.one x
    | one y =>
      rw [insert_cons]
      cases e : le x y with
      | yes => exact Sorted.more e (Sorted.one y)
      | no => exact Sorted.more (above x y e) (Sorted.one x)
    | @more y w k hyw hk ih =>
      rw [insert_cons]
      cases e : le x y with
      | yes => exact Sorted.more e (Sorted.more hyw hk)
      | no =>
        show Sorted le (cons y (insert le x (cons w k)))
        rw [insert_cons] at ih ⊢
        cases f : le x w with
        | yes => rw [f] at ih; exact Sorted.more (above x y e) ih
        | no => rw [f] at ih; exact Sorted.more hyw ih
  induction l with
  | nil => exact Sorted.none
  | cons x l ih => exact ins x _ ih

/-- For a total order, permutations of each other are sorted to the same list. Inserting two elements in either order
gives the same, which takes antisymmetry and transitivity; then induction on the permutation. -/
theorem sort_eq_of_perm {A : Type} (le : A → A → Bit) (total : ∀ x y, le x y = yes ∨ le y x = yes)
    (anti : ∀ x y, le x y = yes → le y x = yes → x = y)
    (trans : ∀ x y w, le x y = yes → le y w = yes → le x w = yes) (l m : Row A) (h : Perm l m) :
    sort le l = sort le m := by
  have above : ∀ x y, le x y = no → le y x = yes := by
    intro x y e
    rcases total x y with h | h
    · rw [e] at h; cases h
    · exact h
  have clash : ∀ x y w, le x y = yes → le y w = yes → le x w = no → False := by
    intro x y w hxy hyw e
    rw [trans x y w hxy hyw] at e
    cases e
  have comm : ∀ (x y : A) (k : Row A), insert le x (insert le y k) = insert le y (insert le x k) := by
    intro x y k
    cases hxy : le x y with
    | no =>
      have hyx := above x y hxy
      induction k with
      | nil => simp only [insert, hxy, hyx, pick]
      | cons w k ih =>
        cases hxw : le x w <;> cases hyw : le y w <;> simp only [insert, hxy, hyx, hxw, hyw, pick, ih]
        exact (clash y x w hyx hxw hyw).elim
    | yes =>
      cases hyx : le y x with
      | yes => rw [anti x y hxy hyx]
      | no =>
        induction k with
        | nil => simp only [insert, hxy, hyx, pick]
        | cons w k ih =>
          cases hxw : le x w <;> cases hyw : le y w <;> simp only [insert, hxy, hyx, hxw, hyw, pick, ih]
          exact (clash x y w hxy hyw hxw).elim
  induction h with
  | none => rfl
  | skip x _ ih => exact congrArg (insert le x) ih
  | swap x y l => exact comm x y _
  | trans _ _ ih1 ih2 => exact ih1.trans ih2
