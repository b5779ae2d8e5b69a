"""Two ranks fit a small model together; the first time round, one of them hangs in C code that keeps the GIL.

    unhang run -- torchrun --nproc-per-node 2 --max-restarts 1 examples/train.py

Both ranks are reported, the hung one as the culprit, and ended; torchrun starts them again, and they train to the end.
"""

from __future__ import annotations

import ctypes
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import unhang

STEPS = 200
HANGS_AT = 20


def data(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What this rank learns from: points on a noisy sine."""
    generator = torch.Generator().manual_seed(rank)
    x = torch.rand(512, 1, generator=generator) * 6 - 3
    return x, torch.sin(x) + 0.05 * torch.randn(512, 1, generator=generator)


def hang_with_the_gil() -> None:
    """What a bug in a C extension looks like: no Python code of this process runs any more."""
    ctypes.PyDLL(None).sleep(600)


def join(rank: int, attempt: str) -> None:
    """Find the other ranks.

    torchrun (2.13) keeps its store when it restarts the ranks, with the addresses of those that are dead: so every
    attempt uses names of its own.
    """
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    own = dist.PrefixStore(f"attempt {attempt}", store)
    dist.init_process_group("gloo", store=own, rank=rank, world_size=int(os.environ["WORLD_SIZE"]))


def main() -> None:
    """Train, and let rank 0 print the loss."""
    rank = int(os.environ["RANK"])
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
    torch.manual_seed(0)
    with unhang.expires(after=60, scope="start-up"):
        join(rank, attempt)
        net = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
        model = DistributedDataParallel(net)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    x, y = data(rank)
    for step in range(STEPS):
        with unhang.expires(after=5, scope="step"):
            if attempt == "0" and rank == 1 and step == HANGS_AT:
                hang_with_the_gil()
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
    if rank == 0:
        print(f"trained {STEPS} steps, loss {loss.item():.4f}", flush=True)
    with unhang.expires(after=60, scope="shut-down"):
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
