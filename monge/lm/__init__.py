"""Language models as sources of vectors."""
