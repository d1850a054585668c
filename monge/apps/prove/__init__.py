"""Search for Lean 4 proofs that the kernel has checked."""
