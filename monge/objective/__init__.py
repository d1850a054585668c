"""Training objectives: each takes a model and a batch and returns a Loss, and works with any network."""
