"""Puts our modules where torch has its own, as a program that was written for torch would find them."""

import importlib
import importlib.util
import sys
import types

import pytest

import unhang

TORCH = "torch.distributed.elastic"
MODULES = ["api", "local_timer", "file_based_local_timer", "debug_info_logging"]


@pytest.fixture(autouse=True, scope="session")
def torch_names():
    """`torch.distributed.elastic.timer` is unhang; the packages around it are torch's own where torch is installed."""
    if importlib.util.find_spec("torch") is not None:
        elastic = importlib.import_module(TORCH)
    else:
        for name in ("torch", "torch.distributed", TORCH):
            package = sys.modules[name] = types.ModuleType(name)
            package.__path__ = []
            parent, _, last = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], last, package)
        elastic = sys.modules[TORCH]
    elastic.timer = sys.modules[f"{TORCH}.timer"] = unhang
    for name in MODULES:
        sys.modules[f"{TORCH}.timer.{name}"] = importlib.import_module(f"unhang.{name}")
    yield
    for name in [f"{TORCH}.timer", *(f"{TORCH}.timer.{module}" for module in MODULES)]:
        del sys.modules[name]


@pytest.fixture
def timer(torch_names):
    """The module as a user of torch imports it."""
    from torch.distributed.elastic import timer

    return timer
