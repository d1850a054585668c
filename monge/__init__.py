"""monge learns a flow that carries one set of vectors onto another, and uses it."""

__version__ = "0.1.0"
