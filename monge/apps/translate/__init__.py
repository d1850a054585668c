"""Translation of vector sequences to sequences of other lengths: augmented OT flow matching on containers with void slots."""
