"""Language models as policies: one prompt for all, and answers from a server or a local model."""
