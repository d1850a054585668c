"""On a GPU: times of Sinkhorn and of a DiT training step in float32, bf16 and compiled, and agreement of CPU and GPU.

Without a GPU it reports that and measures nothing.

    python benchmarks/gpu.py
"""

import gc
import statistics
import time
from collections.abc import Callable

import torch
from side_by_side import print_table, write_result

from monge.math.cost import squared_euclidean
from monge.math.coupling import MinibatchOT
from monge.math.ot import assignment, sinkhorn
from monge.math.solve import integrate, time_grid
from monge.math.types import Pair
from monge.nets.blocks import BlockShape
from monge.nets.dit import DiTShape, Patches
from monge.objective.flow_matching import FlowMatching


def milliseconds(call: Callable[[], object], rounds: int = 20) -> float:
    """Median time of synchronised calls, after three untimed ones."""
    times = []
    for count in range(rounds + 3):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if count >= 3:
            times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


def ot_rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for n in (256, 1024, 4096):
        x_0, x_1 = torch.randn(n, 64), torch.randn(n, 64) + 0.5
        cost, cost_gpu = squared_euclidean(x_0, x_1), squared_euclidean(x_0.cuda(), x_1.cuda())
        epsilon = 0.05 * float(cost.mean())
        cpu, gpu = sinkhorn(cost, epsilon), sinkhorn(cost_gpu, epsilon)
        rows.append(
            {
                "n": n,
                "sinkhorn ms": milliseconds(lambda c=cost_gpu, e=epsilon: sinkhorn(c, e)),
                "marginal error": float(gpu.marginal_error),
                "plan, max |CPU - GPU| * n": float((cpu.matrix - gpu.matrix.cpu()).abs().max()) * n,
                "same assignment cost": bool(
                    torch.isclose(
                        cost.gather(1, assignment(cost)[:, None]).mean(),
                        cost_gpu.gather(1, assignment(cost_gpu)[:, None]).mean().cpu(),
                        rtol=1e-5,
                    )
                ),
            }
        )
    return rows


def dit_rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    batch = Pair(torch.randn(256, 4, 32, 32), torch.randn(256, 4, 32, 32)).to("cuda")
    for compiled in (False, True):
        for bf16 in (False, True):
            torch.manual_seed(0)
            net = Patches((4, 32, 32), 2, DiTShape(BlockShape(384, 6), 12)).cuda()
            objective = FlowMatching(coupling=MinibatchOT())
            optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
            if compiled:
                net.compile()

            def step(net=net, objective=objective, optimizer=optimizer, bf16=bf16) -> None:
                optimizer.zero_grad()
                with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
                    loss = objective(net, batch).value
                loss.backward()
                optimizer.step()

            gc.collect()  # frees the networks of earlier rows
            torch.cuda.reset_peak_memory_stats()
            rows.append(
                {
                    "DiT-S/2 step, 256 x 4 x 32 x 32": f"{'bf16' if bf16 else 'float32'}{', compiled' if compiled else ''}",
                    "ms": milliseconds(step),
                    "peak GiB": torch.cuda.max_memory_allocated() / 2**30,
                }
            )
    return rows


def agreement() -> list[dict[str, object]]:
    """Difference of samples from the same weights and noise, integrated on both devices."""
    torch.manual_seed(0)
    net = Patches((1, 8, 8), 2, DiTShape(BlockShape(128, 2), 4))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    x_0 = torch.randn(64, 1, 8, 8)
    with torch.no_grad():
        on_cpu = integrate(net, x_0, time_grid(20, x_0))
        on_gpu = integrate(net.cuda(), x_0.cuda(), time_grid(20, x_0.cuda())).cpu()
    return [{"samples, max |CPU - GPU| / max |x|": float((on_cpu - on_gpu).abs().max() / on_cpu.abs().max())}]


def main() -> None:
    if not torch.cuda.is_available():
        print("No GPU found; nothing was measured.")
        return
    rows = [{"device": torch.cuda.get_device_name()}, *ot_rows(), *dit_rows(), *agreement()]
    print_table(f"On {torch.cuda.get_device_name()}", rows)
    write_result("gpu", rows)


if __name__ == "__main__":
    main()
