"""Processes of ours find this unhang and what it needs, and nothing of the program that started them."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipapp
from importlib.metadata import requires
from pathlib import Path

import pytest

import unhang
from unhang._platform.own_process import DEPENDENCIES, set_path

SOURCE = Path(unhang.__file__).parent
HANG = "import time, unhang\nunhang.configure({})\nwith unhang.expires(0.3, 'stuck'): time.sleep(600)\n"
LEARNS = "learn='learned.json'"
# Of what only processes of ours import, and of the standard library what workers do not import.
NAMES = [*DEPENDENCIES, "queue", "http", "json"]


@pytest.fixture
def shadowed(tmp_path):
    """A directory with modules that raise when they are imported, named as what processes of ours need."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the {name} of the program was imported')\n")
    (tmp_path / "program.py").write_text(HANG.format(LEARNS))
    return tmp_path


def hangs_and_is_reported(command, directory, **environment):
    """Run a program in a directory; it has to be killed for its block, and the report to be seen."""
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "hangs in 'stuck'" in done.stderr, done.stderr
    assert "of the program was imported" not in done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    "arguments", [["program.py"], ["-m", "program"], ["-c", HANG.format(LEARNS)]], ids=["script", "module", "code"]
)
def test_the_watchdog_imports_nothing_from_the_scripts_directory(shadowed, arguments):
    """Neither it nor its observer, whichever way the program was started; also with the directory in PYTHONPATH."""
    for environment in ({}, {"PYTHONPATH": str(shadowed)}):
        hangs_and_is_reported([sys.executable, *arguments], shadowed, **environment)


def test_python_m_unhang_imports_nothing_from_the_current_directory(shadowed):
    """`unhang run` is the watchdog itself."""
    (shadowed / "program.py").write_text("import time, unhang\nwith unhang.expires(0.3, 'stuck'): time.sleep(600)\n")
    command = [sys.executable, "-m", "unhang", "run", "--learn", "learned.json", "--", sys.executable, "program.py"]
    assert hangs_and_is_reported(command, shadowed).returncode == 124


def test_a_program_that_finds_all_by_its_own_path_has_a_watchdog(tmp_path):
    """In an interpreter without site, which knows of no installed package, only the program knows where they are."""
    sites = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(SOURCE.parent)]
    (tmp_path / "program.py").write_text(f"import sys\nsys.path += {sites!r}\n{HANG.format('')}")
    hangs_and_is_reported([sys.executable, "-S", "program.py"], tmp_path)


def test_a_zipapp_has_a_watchdog(tmp_path):
    """With unhang inside, which is the one that its watchdog runs."""
    inside = tmp_path / "inside"
    ignored = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    shutil.copytree(SOURCE, inside / "unhang", ignore=ignored)
    (inside / "__main__.py").write_text(f"import unhang\nassert 'app.pyz' in unhang.__file__\n{HANG.format('')}")
    zipapp.create_archive(inside, tmp_path / "app.pyz")
    hangs_and_is_reported([sys.executable, "app.pyz"], tmp_path)


def test_what_is_installed_beside_unhang_comes_before_other_sites(tmp_path):
    """As `pip install --target` does it, for PYTHONPATH; a directory that only has the package is not looked in."""
    path = ["/usr/lib/python3.11", "/usr/lib/python3/dist-packages"]
    set_path(path, str(tmp_path), [])
    assert path[:2] == ["/usr/lib/python3.11", "/usr/lib/python3/dist-packages"]
    (tmp_path / "unhang-1.0.dist-info").mkdir()
    set_path(path, str(tmp_path), [])
    assert path[:3] == ["/usr/lib/python3.11", str(tmp_path), "/usr/lib/python3/dist-packages"]


def test_only_what_is_missing_is_taken_from_the_program(tmp_path):
    """From the first place that has it, and after all else."""
    first, second = tmp_path / "first", tmp_path / "second"
    for directory, names in ((first, DEPENDENCIES[:2]), (second, DEPENDENCIES)):
        for name in names:
            (directory / name).mkdir(parents=True)
            (directory / name / "__init__.py").touch()
    path = [str(tmp_path)]
    set_path(path, "nowhere", [str(first), str(second)])
    assert path == [str(tmp_path), str(first), str(second)]


def test_the_dependencies_are_those_of_the_package():
    """All but py-spy, which is a program."""
    required = [each for each in requires("unhang") if "extra ==" not in each]
    names = {each.split(">")[0].replace("-", "_") for each in required}
    assert set(DEPENDENCIES) == names - {"py_spy"}
