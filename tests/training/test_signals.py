"""Signals during training, and what ranks agree on."""

import pytest

from monge.training import signals
from monge.training.signals import Signals


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets; the other rank always reports what this one does."""
    now = [0.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(signals, "max_over_ranks", lambda value, world: value)
    return now


@pytest.mark.parametrize(("seconds", "every"), [(0.1, 50), (2.0, 2), (60.0, 1)])
def test_two_ranks_exchange_signals_about_every_five_seconds(clock: list[float], seconds: float, every: int) -> None:
    exchanged, one = [], Signals(2)
    for step in range(1, 301):
        clock[0] = seconds * step
        if one.due(step):
            exchanged.append(step)
            one.agreed(step)
    assert {b - a for a, b in zip(exchanged[3:], exchanged[4:], strict=False)} == {every}
    assert exchanged[0] == 1


def test_a_single_process_looks_at_every_step() -> None:
    one = Signals(1)
    assert all(one.due(step) for step in range(1, 100))
    one.number = 15
    assert one.agreed(3) == 15
