"""Paths, couplings, solvers, densities and metrics on tensors. A network is any callable here.

Shapes in annotations: B batch, N n m tokens or points, D features, H hidden, K candidates, *s event, *b any batch.
"""
