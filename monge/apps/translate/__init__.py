"""Sequences of vectors to sequences of vectors, of other lengths: augmented OT flow matching through a container with voids."""
