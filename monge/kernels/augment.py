"""Exact assignment from any column prices: a greedy claim, then shortest augmenting paths. Jonker & Volgenant 1987.

There may be more columns than rows. Columns that stay free keep their initial price: all of them must have the same
one, and no column may have a higher price. Infinite costs are never assigned, but every row must have a finite cost.

Costs are read as `scale * cost` in the precision of the prices; `columns[i]` is the column of row i and `rows[j]` the
row of column j, -1 if free. At every step an assigned row is at the minimum of its reduced costs, so that a complete
assignment is optimal.
"""

import numpy as np

from monge.kernels.compiled import compiled
from monge.kernels.rows import relax, two_smallest


@compiled
def claim(cost, scale, prices, columns, rows, vacant, free, limit):
    """Assign each row its best column if free, at the price where the second best is as good; return the number of free rows.

    The free rows are listed in `free`. The loop stops once they exceed `limit`. `vacant` becomes 0 at free columns, -inf
    elsewhere.
    """
    left = 0
    columns[:] = -1
    rows[:] = -1
    vacant[:] = prices
    for i in range(len(cost)):
        least, j, second = two_smallest(cost, i, prices, scale)
        if rows[j] >= 0 and second <= least:  # a tie: take any free column among the best
            least_vacant, candidate, _ = two_smallest(cost, i, vacant, scale)
            if least_vacant <= least:
                j = candidate
        if rows[j] >= 0:
            free[left] = i
            left += 1
            if left > limit:
                break
        else:
            if second < np.inf:
                prices[j] -= second - least
            columns[i], rows[j], vacant[j] = j, i, -np.inf
    for j in range(len(prices)):
        vacant[j] = 0 if rows[j] < 0 else -np.inf
    return left


@compiled
def extend(cost, scale, prices, columns, rows, vacant, free, reals, integers):
    """Assign the free rows one by one along shortest paths of reduced cost; each path scans a row of the matrix at most once.

    Return False if a row cannot be assigned because every path to a free column is infinite. `reals`, three rows in
    the precision of the prices, and `integers`, two rows of int32, are workspace, with an entry per column.
    """
    open_prices, depth, distance = reals[0], reals[1], reals[2:]
    parent, closed = integers[0], integers[1]
    one = prices.dtype.type(1)
    for start in free:
        open_prices[:] = prices
        distance[:] = np.inf
        row, count, offset, before = start, 0, 0 * one, -np.inf * one
        while True:
            least, j = relax(cost, row, open_prices, scale, offset, distance[0], parent)
            if least <= before and rows[j] >= 0:  # a tie: end the path at a free column that is as near
                nearest, candidate, _ = two_smallest(distance, 0, vacant, one)
                if nearest <= least:
                    j = candidate
            if not least < np.inf:
                return False
            before = least
            closed[count], depth[count] = j, least
            if rows[j] < 0:
                break
            count += 1
            row = rows[j]
            offset = (scale * cost[row, j] - prices[j]) - least
            distance[0, j], open_prices[j] = np.inf, -np.inf
        for k in range(count):
            prices[closed[k]] += depth[k] - least
        vacant[j] = -np.inf
        while True:
            i = parent[j]
            rows[j] = i
            columns[i], j = j, columns[i]
            if i == start:
                break
    return True


@compiled
def slack(cost, scale, prices, columns):
    """Return the sum over rows of the assigned reduced cost minus the minimum: primal minus dual of the assignment."""
    total = 0.0
    for i in range(len(columns)):
        least, _, _ = two_smallest(cost, i, prices, scale)
        total += (scale * cost[i, columns[i]] - prices[columns[i]]) - least
    return total
