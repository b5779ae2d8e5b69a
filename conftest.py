"""Runs the Python examples of README.md and docs/, each as a script under `unhang run`, as a reader would.

Tests and examples have a budget each: see `tests/budgets.py`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

sys.path.insert(0, str(Path(__file__).parent / "tests"))
pytest_plugins = ["budgets"]


def run_as_script(example: Example) -> str | None:
    """Run one example; a script that fails is reported with what it printed."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "example.py"
        script.write_text(example.parsed)
        done = subprocess.run(
            [sys.executable, "-m", "unhang", "run", "--", sys.executable, str(script)],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
    return None if done.returncode == 0 else f"exit status {done.returncode}:\n{done.stdout}"


pytest_collect_file = Sybil(
    parsers=[CodeBlockParser(language="python", evaluator=run_as_script)],
    patterns=["README.md", "docs/*.md", "docs/**/*.md"],
).pytest()
