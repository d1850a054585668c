"""What to minimise: an objective takes a model and a batch and returns a Loss. Objectives know no network."""
