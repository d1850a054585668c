"""Lean 4: setup, server processes, proof sessions, and the judge that checks proofs."""
