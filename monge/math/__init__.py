"""Tensors in, tensors out: paths, couplings, solvers, densities, metrics. A network is a callable here.

Shapes in annotations: B batch, N n m tokens or points, D features, H hidden, K candidates, *s event, *b any batch.
"""
