"""Real builds and installations: with a compiler, without one, and where there has to be one."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

# They build, with time for a compiler and pip.
pytestmark = pytest.mark.budget(240)

ROOT = Path(__file__).parents[2]
SOURCE = "src/unhang/_worker/_block.c"
EXTENSION = "_block" + sysconfig.get_config_var("EXT_SUFFIX")
NO_COMPILER = {"CC": "/nonexistent/cc"}
REQUIRED = {"UNHANG_REQUIRE_EXTENSION": "1"}
SAID = "unhang: its C extension is not built, plain Python is used: "
HOOK = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
WHY = "import unhang; from unhang._worker.implementation import WHY; print(WHY)"


def run(*command, cwd, **environment):
    """The status of a command and all that it prints, in the environment of a user who has set nothing."""
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(("UNHANG_", "MAKE"))}
    return subprocess.run(
        command,
        cwd=cwd,
        env=theirs | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )


def call_hook(name, source, out, **environment):
    """What a front end does, without a network: it calls this hook of the backend in the directory of the source."""
    done = run(sys.executable, "-c", HOOK, name, str(out), cwd=source, **environment)
    assert done.returncode == 0, done.stdout
    (built,) = out.iterdir()
    return built


def pip_wheel(source, out, **environment):
    """`pip wheel -v`, which has no network and needs none."""
    options = ["--verbose", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out)]
    return run(sys.executable, "-m", "pip", "wheel", *options, str(source), cwd=out.parent, **environment)


def install(built, directory):
    """The Python of a fresh venv that has this wheel and nothing else."""
    venv.create(directory, with_pip=False)
    python = str(directory / "bin" / "python")
    options = ["--no-index", "--no-deps", "--force-reinstall"]
    done = run(sys.executable, "-m", "pip", "--python", python, "install", *options, str(built), cwd=directory)
    assert done.returncode == 0, done.stdout
    return python


def why(python, **environment):
    """Which implementation is in use after `import unhang`, and why."""
    done = run(python, "-c", WHY, cwd=Path(python).parent, **environment)
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata_of(wheel):
    """The lines of its file WHEEL."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read("unhang-0.1.0.dist-info/WHEEL").decode().splitlines()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Built from a copy of the sources in which work has left compiled and generated files."""
    copy = tmp_path_factory.mktemp("copy") / "unhang"
    leftovers = (".*", "__pycache__", "build", "dist", "_build", "*.egg-info", "*.so")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*leftovers))
    for made in (f"src/unhang/_worker/{EXTENSION}", "src/unhang/api.pyc", "docs/_build/index.html", "build/lib/api.py"):
        path = copy / made
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return call_hook("build_sdist", copy, tmp_path_factory.mktemp("sdist"))


def unpack(sdist, directory):
    with tarfile.open(sdist) as archive:
        archive.extractall(directory, filter="data")
    (source,) = directory.iterdir()
    return source


@pytest.fixture
def source(sdist, tmp_path):
    """The sources as they are published, unpacked."""
    return unpack(sdist, tmp_path / "source")


@pytest.fixture(scope="module")
def compiled(sdist, tmp_path_factory):
    """The wheel that is built from the published sources where there is a compiler."""
    source = unpack(sdist, tmp_path_factory.mktemp("compiled") / "source")
    done = pip_wheel(source, source.parents[1] / "out", **REQUIRED)
    assert done.returncode == 0, done.stdout
    (wheel,) = (source.parents[1] / "out").iterdir()
    return wheel


@pytest.fixture(scope="module")
def plain(sdist, tmp_path_factory):
    """The wheel that is built from them where there is none, and what was printed."""
    source = unpack(sdist, tmp_path_factory.mktemp("plain") / "source")
    done = pip_wheel(source, source.parents[1] / "out", **NO_COMPILER)
    assert done.returncode == 0, done.stdout
    (wheel,) = (source.parents[1] / "out").iterdir()
    return wheel, done.stdout


def test_the_sdist_has_all_sources_and_nothing_that_was_made_from_them(sdist):
    """The C source, the tests and the documentation are in it; compiled files are not."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "setup.py", "conftest.py", SOURCE}
    wanted |= {"src/unhang/py.typed", "src/unhang/report/page.html.jinja", "docs/index.md", "tests/conftest.py"}
    assert wanted <= names
    assert not [name for name in names if re.search(r"\.so$|\.pyc$|\.o$|__pycache__|(^|/)_?build(/|$)", name)]


def test_a_wheel_with_the_extension_is_for_one_python_and_platform(compiled):
    """Its tags say which, and it goes where compiled code goes."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
    assert compiled.name == f"unhang-0.1.0-{python}-{python}-{platform}.whl"
    assert f"unhang/_worker/{EXTENSION}" in names_in(compiled)
    assert {"Root-Is-Purelib: false", f"Tag: {python}-{python}-{platform}"} <= set(metadata_of(compiled))


def test_a_wheel_without_the_extension_is_for_every_python(plain):
    """Its tags say so, and it goes where plain Python goes."""
    wheel, _ = plain
    assert wheel.name == "unhang-0.1.0-py3-none-any.whl"
    assert {"Root-Is-Purelib: true", "Tag: py3-none-any"} <= set(metadata_of(wheel))


def test_both_wheels_have_all_modules_and_data_and_no_c_source(compiled, plain):
    """They differ in the extension alone."""
    wheel, _ = plain
    modules = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "unhang").rglob("*.py")}
    wanted = modules | {"unhang/py.typed", "unhang/report/page.html.jinja"}
    names = names_in(wheel)
    assert {name for name in names if not name.startswith("unhang-0.1.0.dist-info/")} == wanted
    assert "unhang-0.1.0.dist-info/licenses/LICENSE" in names
    assert names_in(compiled) - names == {f"unhang/_worker/{EXTENSION}"}


def test_without_a_compiler_one_line_says_so(plain):
    """It names what is missing and what to do, and it is said once in all the steps of pip."""
    _, printed = plain
    (line,) = [line.strip() for line in printed.splitlines() if SAID in line]
    assert line.startswith(f"{SAID}there is no C compiler (/nonexistent/cc). Install one, then install unhang again")
    assert "_block" not in printed


def test_a_compiler_that_is_not_in_the_path_is_missing(source, tmp_path):
    """The same line, without a word about the compiler in the environment."""
    done = pip_wheel(source, tmp_path / "out", PATH=str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(SAID + "there is no C compiler (") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["unhang-0.1.0-py3-none-any.whl"]


def test_without_headers_one_line_says_so(source, tmp_path):
    """A Python that was installed without Python.h is one to install them for."""
    (source / SOURCE).write_text('#include "no/Python.h"\n')
    done = pip_wheel(source, tmp_path / "out")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(SAID + "Python's headers are missing (Python.h). Install them") == 1


def test_what_does_not_compile_is_left_out_with_the_first_error(source, tmp_path):
    """One line has the place and the message; the other messages of the compiler are not shown."""
    (source / SOURCE).write_text("#error it is broken\n#error in two places\n")
    done = pip_wheel(source, tmp_path / "out")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(f"{SAID}the C compiler fails: {SOURCE}:1:2: error: #error it is broken. ") == 1
    assert "in two places" not in done.stdout


def test_a_required_extension_that_does_not_compile_is_an_error(source, tmp_path):
    """The compiler's own messages are shown, and there is no wheel."""
    (source / SOURCE).write_text("#error it is broken\n#error in two places\n")
    done = pip_wheel(source, tmp_path / "out", **REQUIRED)
    assert done.returncode != 0
    assert "in two places" in done.stdout
    assert SAID not in done.stdout
    assert not list(tmp_path.glob("out/*.whl"))


def test_a_required_extension_needs_a_compiler_and_a_source(source, tmp_path):
    """Each is an error that names what is missing."""
    done = pip_wheel(source, tmp_path / "out", **REQUIRED, **NO_COMPILER)
    assert done.returncode != 0
    assert "/nonexistent/cc" in done.stdout
    (source / SOURCE).unlink()
    done = pip_wheel(source, tmp_path / "out", **REQUIRED)
    assert done.returncode != 0
    assert f"UNHANG_REQUIRE_EXTENSION is set, and the C extension cannot be built: {SOURCE} is missing" in done.stdout


def test_the_compiled_wheel_is_used_compiled_unless_the_user_wants_it_pure(compiled, tmp_path):
    """`import unhang` needs nothing else to be installed."""
    python = install(compiled, tmp_path)
    assert why(python) == "compiled"
    assert why(python, UNHANG_PURE="1") == "plain Python: UNHANG_PURE is set"


def test_the_plain_wheel_is_used_in_plain_python(plain, tmp_path):
    """It says that there is no extension."""
    wheel, _ = plain
    assert why(install(wheel, tmp_path)) == "plain Python: the extension is not built"


def test_the_extension_is_compiled_for_the_layout_of_the_page(source, tmp_path):
    """The module that describes the page is where the constants come from."""
    page = source / "src/unhang/_core/page.py"
    page.write_text(re.sub(r"^VERSION = .*$", "VERSION = 7777", page.read_text(), flags=re.MULTILINE))
    done = pip_wheel(source, tmp_path / "out", **REQUIRED)
    assert done.returncode == 0, done.stdout
    (wheel,) = (tmp_path / "out").iterdir()
    python = install(wheel, tmp_path / "venv")
    assert why(python) == "compiled"
    layout = "from unhang._worker import _block; print(_block.LAYOUT['VERSION'])"
    assert run(python, "-c", layout, cwd=tmp_path).stdout.strip() == "7777"


def test_an_editable_installation_never_uses_an_extension_of_before(source, tmp_path):
    """The extension lies beside its source, and goes when it cannot be built again."""
    with_compiler, without = tmp_path / "with", tmp_path / "without"
    with_compiler.mkdir()
    without.mkdir()
    python = install(call_hook("build_editable", source, with_compiler), tmp_path / "venv")
    assert why(python) == "compiled"
    assert (source / SOURCE).with_name(EXTENSION).exists()
    built = call_hook("build_editable", source, without, **NO_COMPILER)
    assert built.name.endswith("-py3-none-any.whl")
    install(built, tmp_path / "venv")
    assert why(python) == "plain Python: the extension is not built"


@pytest.mark.parametrize("changed", ["setup.py", "pyproject.toml", SOURCE, "src/unhang/_core/page.py"])
def test_make_installs_again_when_what_is_compiled_has_changed(source, changed):
    """The extension, what builds it and the layout of the page are what an installation in place depends on."""
    stamp = source / ".venv-test" / ".base"
    stamp.parent.mkdir()
    stamp.touch()
    is_up_to_date = ["make", "--question", "VENV=.venv-test", ".venv-test/.base"]
    assert run(*is_up_to_date, cwd=source).returncode == 0
    later = stamp.stat().st_mtime + 1
    os.utime(source / changed, (later, later))
    assert run(*is_up_to_date, cwd=source).returncode == 1
