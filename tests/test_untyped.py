"""Arguments of types that the annotations forbid, in a process that does not check annotations, as users run it."""

import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np
import torch
from monge import Pair, integrate

x = torch.zeros(2, 3)
for call in (
    lambda: Pair([[1.0]], x),
    lambda: Pair(x, x, cond={"label": np.zeros(2)}),
    lambda: integrate(lambda x, t: x, x, 4.0),
    lambda: integrate(lambda x, t: x, x, "4"),
    lambda: integrate(lambda x, t: x, x, steps=[0.0, 0.5, 1.0]),
    lambda: integrate(lambda x, t: x, x.sum(), 4),
):
    try:
        call()
    except ValueError as error:
        print(error)
"""
EXPECTED = """Pair: x_0 is a list; give a tensor, for example torch.as_tensor(...)
Pair: label is a ndarray; give a tensor, for example torch.as_tensor(...)
integrate: 4.0 is not a number of steps; give an integer, or the knots as a sequence
integrate: '4' is not a number of steps; give an integer, or the knots as a sequence
integrate: [0.0, 0.5, 1.0] is not a number of steps; give an integer, or the knots as a sequence
integrate: x is a single number; give a batch of states, (B, ...)
"""


@pytest.mark.slow
def test_arguments_of_a_wrong_type_are_rejected_in_one_sentence() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == (EXPECTED, "")
