inductive N | z | s (n : N)
inductive Bit | no | yes
inductive Row (A : Type) | nil | cons (x : A) (l : Row A)
/-- Binary trees with an element at each inner node. -/
inductive Tree (A : Type) | leaf | node (l : Tree A) (x : A) (r : Tree A)
namespace Tree
open N Bit Row

def plus : N → N → N
  | a, z => a
  | a, s b => s (plus a b)

def max : N → N → N
  | z, b => b
  | s a, z => s a
  | s a, s b => s (max a b)

instance : Add N := ⟨plus⟩

/-- Two to the power of a number. -/
def pow2 : N → N
  | z => s z
  | s n => pow2 n + pow2 n

def app {A : Type} : Row A → Row A → Row A
  | nil, m => m
  | cons x l, m => cons x (app l m)

instance {A : Type} : Append (Row A) := ⟨app⟩

def rev {A : Type} : Row A → Row A
  | nil => nil
  | cons x l => rev l ++ cons x nil

def len {A : Type} : Row A → N
  | nil => z
  | cons _ l => s (len l)

def each {A B : Type} (f : A → B) : Row A → Row B
  | nil => nil
  | cons x l => cons (f x) (each f l)

def mirror {A : Type} : Tree A → Tree A
  | leaf => leaf
  | node l x r => node (mirror r) x (mirror l)

/-- The number of inner nodes. -/
def size {A : Type} : Tree A → N
  | leaf => z
  | node l _ r => s (size l + size r)

def leaves {A : Type} : Tree A → N
  | leaf => s z
  | node l _ r => leaves l + leaves r

def depth {A : Type} : Tree A → N
  | leaf => z
  | node l _ r => s (max (depth l) (depth r))

def map {A B : Type} (f : A → B) : Tree A → Tree B
  | leaf => leaf
  | node l x r => node (map f l) (f x) (map f r)

def fold {A B : Type} (e : B) (f : B → A → B → B) : Tree A → B
  | leaf => e
  | node l x r => f (fold e f l) x (fold e f r)

/-- The elements from left to right. -/
def inorder {A : Type} : Tree A → Row A
  | leaf => nil
  | node l x r => inorder l ++ cons x (inorder r)

def preorder {A : Type} : Tree A → Row A
  | leaf => nil
  | node l x r => cons x (preorder l ++ preorder r)

def postorder {A : Type} : Tree A → Row A
  | leaf => nil
  | node l x r => postorder l ++ (postorder r ++ cons x nil)

/-- The elements from left to right, before those of a list. -/
def onto {A : Type} : Tree A → Row A → Row A
  | leaf, m => m
  | node l x r, m => onto l (cons x (onto r m))

/-- The complete tree of a depth, with the same element everywhere. -/
def full {A : Type} (x : A) : N → Tree A
  | z => leaf
  | s n => node (full x n) x (full x n)

/-- The first tree with the second in place of each leaf. -/
def graft {A : Type} : Tree A → Tree A → Tree A
  | leaf, u => u
  | node l x r, u => node (graft l u) x (graft r u)

/-- Puts an element where a search leads, to the left when it is not above. -/
def insert {A : Type} (le : A → A → Bit) (x : A) : Tree A → Tree A
  | leaf => node leaf x leaf
  | node l y r => match le x y with
    | yes => node (insert le x l) y r
    | no => node l y (insert le x r)

inductive Mem {A : Type} (x : A) : Tree A → Prop
  | root {l r : Tree A} : Mem x (node l x r)
  | left {l r : Tree A} {y : A} : Mem x l → Mem x (node l y r)
  | right {l r : Tree A} {y : A} : Mem x r → Mem x (node l y r)

inductive All {A : Type} (p : A → Prop) : Tree A → Prop
  | leaf : All p leaf
  | node {l r : Tree A} {x : A} : All p l → p x → All p r → All p (node l x r)

/-- The first tree occurs in the second, with all that is below. -/
inductive Sub {A : Type} (t : Tree A) : Tree A → Prop
  | refl : Sub t t
  | left {l r : Tree A} {x : A} : Sub t l → Sub t (node l x r)
  | right {l r : Tree A} {x : A} : Sub t r → Sub t (node l x r)

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
theorem plus_assoc (a b c : N) : a + b + c = a + (b + c) := by
  induction c with
  | z => rfl
  | s n ih => rw [plus_s, ih, plus_s, plus_s]
theorem plus_comm (a b : N) : a + b = b + a := by
  induction b with
  | z => rw [z_plus]; rfl
  | s n ih => rw [plus_s, ih, s_plus]
instance : Std.Associative (α := N) (· + ·) := ⟨plus_assoc⟩
instance : Std.Commutative (α := N) (· + ·) := ⟨plus_comm⟩
theorem max_comm (a b : N) : max a b = max b a := by
  induction a generalizing b with
  | z => cases b <;> rfl
  | s n ih => cases b with
    | z => rfl
    | s m => exact congrArg s (ih m)
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
theorem len_app {A : Type} (l m : Row A) : len (l ++ m) = len l + len m := by
  induction l with
  | nil => exact (z_plus _).symm
  | cons x l ih => exact (congrArg s ih).trans (s_plus _ _).symm

-- theorems

/-- Mirroring a tree twice gives the tree back. By induction on both subtrees. -/
theorem mirror_mirror {A : Type} (t : Tree A) : mirror (mirror t) = t := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [mirror, mirror, ihl, ihr]

/-- Only the leaf has a leaf for its mirror image. By cases: the mirror image of a node is a node. -/
theorem eq_leaf_of_mirror {A : Type} (t : Tree A) (h : mirror t = leaf) : t = leaf := by
  cases t with
  | leaf => rfl
  | node l x r => cases h

/-- Mapping the identity over a tree gives the tree back. By induction on both subtrees. -/
theorem map_id {A : Type} (t : Tree A) : map (fun x => x) t = t := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [map, ihl, ihr]

/-- Mapping two functions over a tree in turn is mapping their composition. By induction. -/
theorem map_map {A B C : Type} (f : A → B) (g : B → C) (t : Tree A) : map g (map f t) = map (fun x => g (f x)) t := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [map, map, ihl, ihr, map]

/-- A tree has as many inner nodes after a function is mapped over it as before. By induction. -/
theorem size_map {A B : Type} (f : A → B) (t : Tree A) : size (map f t) = size t := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [map, size, ihl, ihr, size]

/-- Mapping a function over a tree does not change its depth. By induction. -/
theorem depth_map {A B : Type} (f : A → B) (t : Tree A) : depth (map f t) = depth t := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [map, depth, ihl, ihr, depth]

/-- Mirroring and mapping may be done in either order. By induction on both subtrees. -/
theorem map_mirror {A B : Type} (f : A → B) (t : Tree A) : map f (mirror t) = mirror (map f t) := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [mirror, map, ihl, ihr, map, mirror]

/-- A tree and its mirror image have equally many inner nodes. By induction; the two sizes that are added have changed
places. -/
theorem size_mirror {A : Type} (t : Tree A) : size (mirror t) = size t := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [mirror, size, ihl, ihr, plus_comm, size]

/-- A tree and its mirror image are equally deep. By induction, since the maximum does not depend on the order. -/
theorem depth_mirror {A : Type} (t : Tree A) : depth (mirror t) = depth t := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [mirror, depth, ihl, ihr, max_comm, depth]

/-- A binary tree has one leaf more than it has inner nodes. By induction: a node joins two trees, each with one leaf to
spare. -/
theorem leaves_eq {A : Type} (t : Tree A) : leaves t = s (size t) := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [leaves, ihl, ihr, plus_s, s_plus, size]

/-- Folding a tree with its own constructors rebuilds it. By induction. -/
theorem fold_leaf_node {A : Type} (t : Tree A) : fold leaf node t = t := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [fold, ihl, ihr]

/-- Folding a mapped tree is folding the tree with a step that applies the function first. By induction. -/
theorem fold_map {A B C : Type} (e : C) (g : C → B → C → C) (f : A → B) (t : Tree A) :
    fold e g (map f t) = fold e (fun a x b => g a (f x) b) t := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [map, fold, ihl, ihr, fold]

/-- Folding the mirror image of a tree is folding the tree with a step that takes its two results in the other order. By
induction. -/
theorem fold_mirror {A B : Type} (e : B) (f : B → A → B → B) (t : Tree A) :
    fold e f (mirror t) = fold e (fun a x b => f b x a) t := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [mirror, fold, ihl, ihr, fold]

/-- Replacing each leaf by a leaf changes nothing. By induction. -/
theorem graft_leaf {A : Type} (t : Tree A) : graft t leaf = t := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [graft, ihl, ihr]

/-- Grafting trees is associative: what is grafted may already have something grafted to it. By induction on the first
tree. -/
theorem graft_assoc {A : Type} (t u v : Tree A) : graft (graft t u) v = graft t (graft u v) := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [graft, graft, ihl, ihr, graft]

/-- The mirror image of a tree with another grafted to its leaves is the mirror image of the one with that of the other
grafted to it. By induction. -/
theorem mirror_graft {A : Type} (t u : Tree A) : mirror (graft t u) = graft (mirror t) (mirror u) := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [graft, mirror, ihl, ihr, mirror, graft]

/-- The complete tree of depth n is indeed n deep. By induction: both subtrees are equally deep. -/
theorem depth_full {A : Type} (x : A) (n : N) : depth (full x n) = n := by
  have self : ∀ m, max m m = m := by
    intro m
    induction m with
    | z => rfl
    | s m ih => rw [max, ih]
  induction n with
  | z => rfl
  | s n ih => rw [full, depth, ih, self]

/-- A complete tree with the same element everywhere is its own mirror image. By induction on the depth. -/
theorem mirror_full {A : Type} (x : A) (n : N) : mirror (full x n) = full x n := by
  induction n with
  | z => rfl
  | s n ih => rw [full, mirror, ih]

/-- The complete tree of depth n has one inner node less than two to the power of n. By induction: the next tree has
twice as many and one more. -/
theorem size_full {A : Type} (x : A) (n : N) : s (size (full x n)) = pow2 n := by
  induction n with
  | z => rfl
  | s n ih => rw [full, size, pow2, ← ih, plus_s, s_plus]

/-- An element of a tree is an element of its mirror image. By induction on where it is found. -/
theorem mem_mirror {A : Type} (x : A) (t : Tree A) (h : Mem x t) : Mem x (mirror t) := by
  induction h with
  | root => exact Mem.root
  | left _ ih => exact Mem.right ih
  | right _ ih => exact Mem.left ih

/-- A property holds everywhere in a tree exactly if every element of the tree has it. One way by induction on where the
element is, the other by induction on the tree. -/
theorem all_iff {A : Type} (p : A → Prop) (t : Tree A) : All p t ↔ ∀ x, Mem x t → p x := by
  constructor
  · intro h x hx
    induction hx with
    | root => cases h with | node _ hx _ => exact hx
    | left _ ih => cases h with | node hl _ _ => exact ih hl
    | right _ ih => cases h with | node _ _ hr => exact ih hr
  · intro h
    induction t with
    | leaf => exact All.leaf
    | node l x r ihl ihr =>
      exact All.node (ihl fun y hy => h y (Mem.left hy)) (h x Mem.root) (ihr fun y hy => h y (Mem.right hy))

/-- If a first property implies a second, a tree that has the first everywhere has the second everywhere. By
induction. -/
theorem all_imp {A : Type} (p q : A → Prop) (h : ∀ x, p x → q x) (t : Tree A) (k : All p t) : All q t := by
  induction k with
  | leaf => exact All.leaf
  | node _ hx _ ihl ihr => exact All.node ihl (h _ hx) ihr

/-- The list of a tree's elements from left to right is as long as the tree has inner nodes. By induction, with the
length of appended lists. -/
theorem len_inorder {A : Type} (t : Tree A) : len (inorder t) = size t := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [inorder, len_app, len, ihl, ihr, plus_s, size]

/-- A tree's list in preorder, each element before those below it, is as long as the tree has inner nodes. By
induction. -/
theorem len_preorder {A : Type} (t : Tree A) : len (preorder t) = size t := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [preorder, len, len_app, ihl, ihr, size]

/-- Rotating a tree to the right does not change the order of its elements from left to right. By the associativity of
appending. -/
theorem inorder_rotate {A : Type} (a b c : Tree A) (x y : A) :
    inorder (node (node a x b) y c) = inorder (node a x (node b y c)) := by
  show inorder a ++ cons x (inorder b) ++ cons y (inorder c) = inorder a ++ cons x (inorder b ++ cons y (inorder c))
  rw [app_assoc, cons_app]

/-- Listing a mapped tree's elements from left to right is mapping over the list. By induction, with the image of
appended lists. -/
theorem inorder_map {A B : Type} (f : A → B) (t : Tree A) : inorder (map f t) = each f (inorder t) := by
  have each_app : ∀ l m : Row A, each f (l ++ m) = each f l ++ each f m := by
    intro l m
    induction l with
    | nil => rfl
    | cons x l ih => exact congrArg (cons (f x)) ih
  induction t with
  | leaf => rfl
  | node l x r ihl ihr => rw [map, inorder, ihl, ihr, inorder, each_app, each]

/-- Listing with an accumulator is listing and appending the accumulator. By induction on the tree for any
accumulator. -/
theorem onto_eq {A : Type} (t : Tree A) (m : Row A) : onto t m = inorder t ++ m := by
  induction t generalizing m with
  | leaf => rfl
  | node l x r ihl ihr => rw [onto, ihr, ihl, inorder, app_assoc, cons_app]

/-- The mirror image of a tree lists its elements in reverse. By induction: the reverse of appended lists is the
reverses appended the other way round. -/
theorem inorder_mirror {A : Type} (t : Tree A) : inorder (mirror t) = rev (inorder t) := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr =>
    rw [mirror, inorder, ihl, ihr, inorder, rev_app]
    show _ = rev (inorder r) ++ cons x nil ++ rev (inorder l)
    rw [app_assoc, cons_app]
    rfl

/-- The mirror image of a tree in preorder is the tree in postorder, reversed. By induction, reversing three lists
appended. -/
theorem preorder_mirror {A : Type} (t : Tree A) : preorder (mirror t) = rev (postorder t) := by
  induction t with
  | leaf => rfl
  | node l x r ihl ihr =>
    rw [mirror, preorder, ihl, ihr, postorder, rev_app, rev_app]
    rfl

/-- A tree is its own mirror image at the root exactly if its right subtree is the mirror image of the left. By
injectivity of the node, and by mirroring twice. -/
theorem mirror_eq_self_iff {A : Type} (l r : Tree A) (x : A) : mirror (node l x r) = node l x r ↔ mirror l = r := by
  have twice : ∀ t : Tree A, mirror (mirror t) = t := by
    intro t
    induction t with
    | leaf => rfl
    | node l x r ihl ihr => rw [mirror, mirror, ihl, ihr]
  constructor
  · intro h
    injection h
  · intro h
    rw [mirror, h, ← h, twice]

/-- No tree is its own left subtree. By induction: the left subtree would be its own left subtree as well. -/
theorem ne_node_left {A : Type} (t r : Tree A) (x : A) : t ≠ node t x r := by
  induction t generalizing r x with
  | leaf => intro h; cases h
  | node l y q ihl _ => intro h; injection h with h; exact ihl q y h

/-- Occurring as a subtree is transitive. By induction on the second occurrence. -/
theorem sub_trans {A : Type} (t u v : Tree A) (h : Sub t u) (k : Sub u v) : Sub t v := by
  induction k with
  | refl => exact h
  | left _ ih => exact Sub.left ih
  | right _ ih => exact Sub.right ih

/-- An element of a subtree is an element of the whole tree. By induction on the occurrence. -/
theorem mem_of_sub {A : Type} (x : A) (t u : Tree A) (h : Sub t u) (k : Mem x t) : Mem x u := by
  induction h with
  | refl => exact k
  | left _ ih => exact Mem.left ih
  | right _ ih => exact Mem.right ih

/-- An element is in a tree exactly if the tree has a subtree with this element at its root. One way by induction on
where the element is, the other on where the subtree is. -/
theorem mem_iff_sub {A : Type} (x : A) (t : Tree A) : Mem x t ↔ ∃ l r, Sub (node l x r) t := by
  constructor
  · intro h
    induction h with
    | @root l r => exact ⟨l, r, Sub.refl⟩
    | left _ ih =>
      obtain ⟨l, r, h⟩ := ih
      exact ⟨l, r, Sub.left h⟩
    | right _ ih =>
      obtain ⟨l, r, h⟩ := ih
      exact ⟨l, r, Sub.right h⟩
  · intro ⟨l, r, h⟩
    induction h with
    | refl => exact Mem.root
    | left _ ih => exact Mem.left ih
    | right _ ih => exact Mem.right ih

/-- Inserting an element into a search tree makes the tree larger by one inner node. By induction, along either branch
of the comparison. -/
theorem size_insert {A : Type} (le : A → A → Bit) (x : A) (t : Tree A) : size (insert le x t) = s (size t) := by
  induction t with
  | leaf => rfl
  | node l y r ihl ihr =>
    rw [insert]
    cases le x y with
    | yes => show s (size (insert le x l) + size r) = _; rw [ihl, s_plus, size]
    | no => show s (size l + size (insert le x r)) = _; rw [ihr, plus_s, size]

/-- After an insertion a tree has the inserted element and those that it had, and no others. By induction, with cases on
the comparison and on where an element is. -/
theorem mem_insert_iff {A : Type} (le : A → A → Bit) (x y : A) (t : Tree A) :
    Mem y (insert le x t) ↔ y = x ∨ Mem y t := by
  induction t with
  | leaf =>
    constructor
    · intro h
      cases h with
      | root => exact Or.inl rfl
      | left h => cases h
      | right h => cases h
    · intro h
      rcases h with h | h
      · subst h; exact Mem.root
      · cases h
  | node l w r ihl ihr =>
    rw [insert]
    cases le x w with
    | yes =>
      constructor
      · intro h
        cases h with
        | root => exact Or.inr Mem.root
        | left h => exact (ihl.1 h).imp id Mem.left
        | right h => exact Or.inr (Mem.right h)
      · intro h
        rcases h with h | h
        · exact Mem.left (ihl.2 (Or.inl h))
        · cases h with
          | root => exact Mem.root
          | left h => exact Mem.left (ihl.2 (Or.inr h))
          | right h => exact Mem.right h
    | no =>
      constructor
      · intro h
        cases h with
        | root => exact Or.inr Mem.root
        | left h => exact Or.inr (Mem.left h)
        | right h => exact (ihr.1 h).imp id Mem.right
      · intro h
        rcases h with h | h
        · exact Mem.right (ihr.2 (Or.inl h))
        · cases h with
          | root => exact Mem.root
          | left h => exact Mem.left h
          | right h => exact Mem.right (ihr.2 (Or.inr h))

/-- The depth of a tree with another grafted to each of its leaves is the sum of their depths. By induction: adding the
same to both sides commutes with the maximum. -/
theorem depth_graft {A : Type} (t u : Tree A) : depth (graft t u) = depth t + depth u := by
  have max_plus : ∀ a b c : N, max (a + c) (b + c) = max a b + c := by
    intro a b c
    induction c with
    | z => rfl
    | s n ih => rw [plus_s, plus_s, max, ih, plus_s]
  induction t with
  | leaf => exact (z_plus _).symm
  | node l x r ihl ihr => rw [graft, depth, ihl, ihr, max_plus, depth, s_plus]

/-- Two trees that are subtrees of each other are equal. By way of their sizes: a subtree that is not the whole tree is
smaller. -/
theorem sub_antisymm {A : Type} (t u : Tree A) (h : Sub t u) (k : Sub u t) : t = u := by
  have grow : ∀ a b : Tree A, Sub a b → ∃ d, size b = size a + d := by
    intro a b g
    induction g with
    | refl => exact ⟨z, rfl⟩
    | @left l r x _ ih =>
      obtain ⟨d, e⟩ := ih
      exact ⟨s (d + size r), by rw [size, e, plus_s, plus_assoc]⟩
    | @right l r x _ ih =>
      obtain ⟨d, e⟩ := ih
      exact ⟨s (d + size l), by rw [size, e, plus_s, plus_comm (size l), plus_assoc]⟩
  have irrefl : ∀ n c : N, n ≠ s (n + c) := by
    intro n c
    induction n with
    | z => intro e; cases e
    | s n ih => intro e; injection e with e; rw [s_plus] at e; exact ih e
  have proper : ∀ n m c d e : N, n = m + d → m = s (n + c) + e → False := by
    intro n m c d e h1 h2
    rw [h2, s_plus, s_plus, plus_assoc, plus_assoc] at h1
    exact irrefl _ _ h1
  obtain ⟨e, he⟩ := grow u t k
  cases h with
  | refl => rfl
  | @left l r x h =>
    obtain ⟨d, hd⟩ := grow t l h
    exact (proper _ _ _ _ _ hd he).elim
  | @right l r x h =>
    obtain ⟨d, hd⟩ := grow t r h
    rw [size, plus_comm (size l)] at he
    exact (proper _ _ _ _ _ hd he).elim

/-- A tree of depth n has fewer than two to the power of n inner nodes. By induction: both subtrees are at most as deep
as the deeper one, and powers of two grow with their exponent. -/
theorem size_lt_pow2_depth {A : Type} (t : Tree A) : ∃ d, pow2 (depth t) = s (size t) + d := by
  have total : ∀ a b : N, (∃ d, max a b = a + d) ∧ ∃ d, max a b = b + d := by
    intro a
    induction a with
    | z => exact fun b => ⟨⟨b, (z_plus b).symm⟩, ⟨z, rfl⟩⟩
    | s a ih =>
      intro b
      cases b with
      | z => exact ⟨⟨z, rfl⟩, ⟨s a, (z_plus _).symm⟩⟩
      | s b =>
        obtain ⟨⟨d, hd⟩, e, he⟩ := ih b
        exact ⟨⟨d, by rw [max, hd, s_plus]⟩, ⟨e, by rw [max, he, s_plus]⟩⟩
  have grow : ∀ a b : N, ∃ d, pow2 (a + b) = pow2 a + d := by
    intro a b
    induction b with
    | z => exact ⟨z, rfl⟩
    | s b ih =>
      obtain ⟨d, hd⟩ := ih
      exact ⟨d + pow2 (a + b), by rw [plus_s, pow2, ← plus_assoc, ← hd]⟩
  induction t with
  | leaf => exact ⟨z, rfl⟩
  | node l x r ihl ihr =>
    obtain ⟨d, hd⟩ := ihl
    obtain ⟨e, he⟩ := ihr
    obtain ⟨⟨a, ha⟩, b, hb⟩ := total (depth l) (depth r)
    obtain ⟨f, hf⟩ := grow (depth l) a
    obtain ⟨g, hg⟩ := grow (depth r) b
    refine ⟨d + f + (e + g), ?_⟩
    have h1 : pow2 (max (depth l) (depth r)) = s (size l) + d + f := by rw [ha, hf, hd]
    have h2 : pow2 (max (depth l) (depth r)) = s (size r) + e + g := by rw [hb, hg, he]
    have h3 : pow2 (max (depth l) (depth r)) + pow2 (max (depth l) (depth r))
        = s (size l) + d + f + (s (size r) + e + g) := by rw [← h1, ← h2]
    rw [depth, pow2, h3, size]
    simp only [s_plus, plus_s]
    congr 2
    ac_rfl
