"""Start the ranks of a job: ``python launch.py RANKS PROGRAM...``; wait for all, and end as the first that failed."""

import os
import socket
import subprocess
import sys

size = int(sys.argv[1])
with socket.create_server(("127.0.0.1", 0)) as probe:
    port = probe.getsockname()[1]
name = f"job-{os.getpid()}"
job = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "UNHANG_JOB": name}
ranks = [
    subprocess.Popen(
        [sys.executable, *sys.argv[2:]],
        env={**os.environ, **job, "RANK": str(rank), "LOCAL_RANK": str(rank)},
    )
    for rank in range(size)
]
statuses = [rank.wait() for rank in ranks]
sys.exit(next((abs(status) for status in statuses if status != 0), 0))
