"""Language models as policies: one prompt, a server, or a model on this machine."""
