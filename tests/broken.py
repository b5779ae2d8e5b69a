# ruff: noqa: T201 - a script that prints a table
"""Breaks tests on purpose: the first assertion of each fails, and then each must fail, in time, and leave nothing.

::

    $ python tests/broken.py                # 150 test functions, chosen at random
    $ python tests/broken.py --seed 7       # those that this seed chooses
    $ python tests/broken.py --sample 0     # all

They run in a copy of the project. Exit status: 0, or 1 if one passed, was killed for its budget, or left a process.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import reaper
from budgets import BUDGET
from processes import children, descendants
from support import LONG

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
APART = {"peers", "sanitize"}
# What holds statements that may not be reached.
MAYBE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.For, ast.While, ast.ExceptHandler)
MARK = "broken on purpose"
# Seconds for all of it.
LIMIT = 3600
SLOWEST = 8


@dataclass(frozen=True)
class Breakable:
    """A test function and where its first assertion is: lines from 1 on, columns in bytes, as `ast` has them."""

    path: Path
    function: str
    assertion: ast.Assert

    @property
    def node_id(self):
        return f"{self.path}::{self.function}"


def breakable(root):
    """All test functions with an assertion of their own."""
    for path in sorted(root.glob("tests/**/test_*.py")):
        if APART.isdisjoint(path.parts):
            for node in ast.parse(path.read_text()).body:
                is_test = isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
                assertion = first_assertion(node) if is_test else None
                if assertion is not None:
                    yield Breakable(path.relative_to(root), node.name, assertion)


def first_assertion(node):
    """The first one that is always reached: in no branch or loop, and in no function that is only defined."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, MAYBE):
            continue
        found = child if isinstance(child, ast.Assert) else first_assertion(child)
        if found is not None:
            return found
    return None


def break_all(root, chosen):
    """Let these assertions fail, after all that they do."""
    for path in {each.path for each in chosen}:
        lines = (root / path).read_bytes().splitlines(keepends=True)
        mine = (each.assertion for each in chosen if each.path == path)
        for assertion in sorted(mine, key=lambda each: each.lineno, reverse=True):
            test, message = assertion.test, assertion.msg
            if message is None:
                insert(lines, assertion.end_lineno, assertion.end_col_offset, f", {MARK!r}")
            else:
                insert(lines, message.end_lineno, message.end_col_offset, f", {MARK!r})")
                insert(lines, message.lineno, message.col_offset, "(")
            insert(lines, test.end_lineno, test.end_col_offset, "]")
            insert(lines, test.lineno, test.col_offset, "not [")
        (root / path).write_bytes(b"".join(lines))


def insert(lines, line, column, text):
    at = lines[line - 1]
    lines[line - 1] = at[:column] + text.encode() + at[column:]


def run(root, chosen):
    """Run them, and return what JUnit's XML says: pairs of the test function and its case."""
    results = root / "results.xml"
    command = [sys.executable, "-m", "pytest", "-n", "3", "-p", "no:cacheprovider", "--tb=line", "--no-summary"]
    command += ["--max-worker-restart=1000", f"--junitxml={results}", *(each.node_id for each in chosen)]
    with (root / "output").open("w") as output:
        subprocess.run(command, cwd=root, stdout=output, timeout=LIMIT, check=False)
    for case in ET.parse(results).getroot().iter("testcase"):  # noqa: S314 - pytest wrote it
        yield case.get("classname").replace(".", "/") + ".py::" + case.get("name").partition("[")[0], case


def verdict(case):
    """How a case ended: what it should, or what is wrong."""
    text = said_by(case)
    if "crashed while running" in text:
        return "killed for its budget, or crashed"
    if MARK in text:
        return "failed as it should" if case.find("error") is None else "failed as it should, and then in a fixture"
    return "skipped" if case.find("skipped") is not None else "passed" if not text else "failed otherwise"


def said_by(case):
    return " ".join(f"{each.get('message', '')} {each.text or ''}" for each in case).strip()


WRONG = {"killed for its budget, or crashed", "passed", "failed otherwise"}


def processes_left():
    """What still runs below this process, half a minute later at most."""
    give_up = time.monotonic() + LONG
    while descendants(os.getpid()) and time.monotonic() < give_up:
        for pid in children(os.getpid()):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.05)
    return descendants(os.getpid())


def report(cases):
    """Print what came of them; returns whether all is well."""
    by_verdict = {}
    for function, case in cases:
        by_verdict.setdefault(verdict(case), []).append(f"{function} ({case.get('time')} s): {said_by(case)[:200]}")
    for words, found in sorted(by_verdict.items()):
        print(f"{len(found):5} {words}")
        for line in found if words in WRONG else []:
            print(f"      {line}")
    times = sorted(((float(case.get("time")), function) for function, case in cases), reverse=True)
    print(f"slowest of the budget of {BUDGET:.0f} s:")
    for seconds, function in times[:SLOWEST]:
        print(f"{seconds:7.1f} s {function}")
    return not WRONG & by_verdict.keys()


def main():
    parser = argparse.ArgumentParser(description="Break tests on purpose.")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))  # noqa: S311 - a sample
    parser.add_argument("--sample", type=int, default=150, help="how many test functions; 0: all")
    options = parser.parse_args()
    reaper.adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="broken-") as directory:
        root = Path(directory, "project")
        shutil.copytree(ROOT, root, ignore=LEFT_OUT, symlinks=True)
        every = list(breakable(root))
        chosen = random.Random(options.seed).sample(every, options.sample or len(every))  # noqa: S311 - a sample
        print(f"{len(chosen)} of {len(every)} test functions broken, seed {options.seed}", flush=True)
        break_all(root, chosen)
        cases = list(run(root, chosen))
    is_well = report(cases)
    left = processes_left()
    print(f"{len(left)} processes left {left or ''}")
    return 0 if is_well and cases and not left else 1


if __name__ == "__main__":
    sys.exit(main())
