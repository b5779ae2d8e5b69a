"""Events on standard error, which is what its user has made it."""

import json
import subprocess
import sys


def test_a_full_disk_leaves_no_half_line(tmp_path):
    """Standard error is a file there: the line that was cut is whole as soon as there is room, and losses are told."""
    code = """
import logging, os, resource, sys
from unhang.observe.json_lines import JsonLines
from unhang.report.live import Event
logging.getLogger("unhang").addHandler(logging.NullHandler())  # Python would log to the same file
event = Event(time="t", event="connect", at=1.0, detail="x" * 100)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
sink = JsonLines("-")
for _ in range(10):
    sink(event)
while sink._lost != 6:
    os.sched_yield()
assert not open(sys.argv[1]).read().endswith("\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sink(event)
sink.close(30)
"""
    path = tmp_path / "stderr"
    with open(path, "wb") as file:
        subprocess.run([sys.executable, "-c", code, str(path)], stderr=file, check=True, timeout=30)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["connect"] * 4 + ["lost events", "connect"]
    assert (lines[4]["count"], lines[4]["detail"]) == (6, "File too large")
