"""Overheads of monge: memory of a coupling at B = 4096, and the time to import the command line.

python benchmarks/footprint.py        # half a minute
"""

import side_by_side as side  # sets the number of threads to one

# isort: split

import statistics
import subprocess
import sys
import time

COUPLING = """
import resource, sys, torch
from monge.math.coupling import MinibatchOT
from monge.math.types import Pair
torch.set_num_threads(1)
dtype, d = getattr(torch, sys.argv[1]), int(sys.argv[2])
draw = lambda n: Pair(torch.randn(n, d, dtype=dtype), torch.randn(n, d, dtype=dtype))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
pair = draw(4096)
MinibatchOT()(draw(300))  # allocates compiled code and lasting buffers
before = peak()
MinibatchOT()(pair)
print(peak() - before)
"""


def python(code: str, *words: str) -> str:
    """The output of a fresh interpreter that runs `code` with `words` as arguments."""
    return subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True).stdout


def seconds(code: str) -> float:
    """Seconds that a fresh interpreter takes to run `code`."""
    begin = time.perf_counter()
    python(code)
    return time.perf_counter() - begin


def main() -> None:
    memory = []
    for dtype, size in (("float32", 4), ("float64", 8)):
        for d in (2, 784):
            grown, matrix = int(python(COUPLING, dtype, str(d))), size * 4096**2
            memory.append(
                {"B": 4096, "d": d, "dtype": dtype, "MiB above the data": grown / 2**20, "matrices": grown / matrix}
            )
    side.print_table("Peak memory of an exact coupling, in cost matrices", memory)
    rounds = [(seconds("pass"), seconds("import monge.cli"), seconds("import torch")) for _ in range(11)]
    bare, ours, torch = (statistics.median(times) for times in zip(*rounds, strict=True))
    imports = [{"import monge.cli s": ours - bare, "import torch s": torch - bare, "rounds": len(rounds)}]
    side.print_table("Import time, minus that of a bare interpreter", imports)
    side.write_result("footprint", memory + imports)


if __name__ == "__main__":
    main()
