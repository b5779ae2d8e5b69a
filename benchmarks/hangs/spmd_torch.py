"""Rank 1 of a job of torchrun waits for its data; the others are in an all_reduce of torch (gloo)."""

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist

import unhang

rank = int(os.environ["RANK"])
with unhang.expires(after=120, scope="start-up"):
    dist.init_process_group("gloo")
    dist.barrier()


def load(step: int) -> torch.Tensor:
    """The next batch, once it has been downloaded."""
    while (rank, step) == (1, 3) and not Path("batch-3").exists():
        time.sleep(30)  # HANGS HERE
    return torch.ones(1000)


for step in range(10):
    with unhang.expires(after=3, scope="step"):
        batch = load(step)
        dist.all_reduce(batch)  # WAITS HERE
