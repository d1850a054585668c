"""Means over seeds with their intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t as student


def interval(values: Sequence[float]) -> dict[str, object]:
    """The mean, the half-width of its 95 % interval (Student's t; nan for a single value), and the values.

    Mean and half-width are nan if a value is nan.
    """
    n = len(values)
    half = float(student.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / n**0.5 if n > 1 else float("nan")
    return {"mean": float(np.mean(values)), "half": half, "values": list(values)}


def shown(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Rows for printing: intervals as text, without seeds and steps."""

    def text(value: object) -> object:
        return f"{value['mean']:.3g} +- {value['half']:.2g}" if isinstance(value, Mapping) else value

    return [{key: text(value) for key, value in row.items() if key not in ("seeds", "steps")} for row in rows]
