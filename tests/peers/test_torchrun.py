"""The main job for real: `unhang run -- torchrun … train.py`, as the README has it."""

import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = Path(__file__).parents[2] / "examples" / "train.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]


@pytest.mark.budget(240)
def test_torchrun_trains_to_the_end_over_a_rank_that_hangs_with_the_gil():
    """The hung rank is killed at its deadline, torchrun starts both again, the model learns, status 0."""
    done = subprocess.run(
        [sys.executable, "-m", "unhang", "run", "--", *TORCHRUN, str(TRAIN)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reports = [line for line in done.stderr.splitlines() if line.startswith("unhang: rank")]
    assert len(reports) == 1, done.stderr
    assert reports[0].startswith("unhang: rank 1 "), reports
    assert all(fact in reports[0] for fact in ("in 'step'", "train.py:", "1 rank waits for it")), reports
    assert "trained 200 steps" in done.stdout
    assert float(done.stdout.rpartition("loss ")[2]) < 0.05
