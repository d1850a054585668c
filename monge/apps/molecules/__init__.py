"""Molecules in three dimensions: heavy atoms with their hydrogens, and the bonds between them."""
