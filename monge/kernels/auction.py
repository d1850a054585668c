"""Column prices near the dual optimum of an assignment, by an auction with epsilon scaling. Bertsekas 1988."""

import numpy as np

from monge.kernels.compiled import compiled
from monge.kernels.rows import two_smallest


def _extremes(cost, least, greatest):
    check = cost.dtype.type(0)
    for j in range(cost.shape[1]):
        least[j] = greatest[j] = cost[0, j]
    for i in range(cost.shape[0]):
        row = cost[i]
        for j in range(cost.shape[1]):
            c = row[j]
            least[j] = c if c < least[j] else least[j]
            greatest[j] = c if c > greatest[j] else greatest[j]
            check += c * 0
    return check == 0


extremes = compiled(_extremes, fastmath={"reassoc"})
"""Fill the minimum and the maximum of each column; return True if every cost is finite."""


@compiled
def spread(cost, scale, prices):
    """Return the typical excess cost of a wrong column: mean minus minimum of a row's reduced costs, median over rows."""
    n = len(prices)
    stride, sample = max(n // 32, 1), min(n, 32)
    above = np.empty(sample)
    for k in range(sample):
        row, least, total, count = cost[k * stride], np.inf, 0.0, 0
        for j in range(0, n, max(n // 64, 1)):
            reduced = scale * row[j] - prices[j]
            total += reduced
            least = min(least, reduced)
            count += 1
        above[k] = total / count - least
    above.sort()
    return above[sample // 2]


@compiled
def bid(cost, scale, prices, columns, rows, free, stop, epsilon, bids):
    """Run one phase of the auction until at most `stop` rows are free or the bids are exhausted; return the bids left."""
    n = len(prices)
    columns[:] = -1
    rows[:] = -1
    for i in range(n):
        free[i] = i
    left = n
    while left > stop and bids > 0:
        left -= 1
        bids -= 1
        i = free[left]
        least, j, second = two_smallest(cost, i, prices, scale)
        prices[j] -= (second - least) + epsilon
        displaced = rows[j]
        rows[j], columns[i] = i, j
        if displaced >= 0:
            columns[displaced] = -1
            free[left] = displaced
            left += 1
    return bids


@compiled
def auction(cost, scale, prices, columns, rows, free):
    """Lower the prices until almost all rows hold a column within epsilon of their best, for decreasing epsilons."""
    unit, smallest = spread(cost, scale, prices), 2.0**-20  # a smaller step may vanish in float32
    epsilon, final, bids = max(0.1 * unit, smallest), max(0.001 * unit, smallest), 100 * len(prices)
    while bids > 0:
        bids = bid(cost, scale, prices, columns, rows, free, len(prices) // 50, prices.dtype.type(epsilon), bids)
        if epsilon <= final:
            break
        epsilon = max(epsilon / 5, final)
