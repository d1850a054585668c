"""CPU kernels in numba, numpy in and numpy out: exact assignment and entropic transport."""
