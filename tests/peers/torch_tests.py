"""Runs torch's own tests of its timers over our modules: ``torch_tests.py DIRECTORY [options of pytest]``.

The directory is a copy of ``test/distributed/elastic/timer`` from a checkout of pytorch, which torch's wheel does not
have. Our modules stand under torch's names in this process, in those that it forks, and in those that it spawns, which
run this file again.
"""

import importlib
import importlib.util
import sys
import types
import unittest
from pathlib import Path

import pytest
import torch.distributed.elastic

import unhang

NAME = "torch.distributed.elastic.timer"
MODULES = ("api", "local_timer", "file_based_local_timer", "debug_info_logging")

torch.distributed.elastic.timer = sys.modules[NAME] = unhang
sys.modules |= {f"{NAME}.{module}": importlib.import_module(f"unhang.{module}") for module in MODULES}
if importlib.util.find_spec("expecttest") is None:
    # torch's helpers for tests derive from its class, and these tests use nothing of it.
    sys.modules["expecttest"] = types.ModuleType("expecttest")
    sys.modules["expecttest"].TestCase = unittest.TestCase

if __name__ == "__main__":
    directory, *options = sys.argv[1:]
    files = map(str, sorted(Path(directory).glob("*_test.py")))
    # Without the settings of this project, which make an error of each warning.
    settings = ["-c", "/dev/null", f"--rootdir={directory}", "-p", "no:cacheprovider"]
    sys.exit(pytest.main([*settings, *options, *files]))
