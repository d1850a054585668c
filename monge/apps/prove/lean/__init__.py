"""Real Lean 4: how it is set up, run, and asked; who has the last word."""
