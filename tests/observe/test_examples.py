"""The examples for service managers: they say what the commands understand, and do what they say."""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import capabilities
from unhang.cli.check import check
from unhang.cli.run import run
from unhang.cli.serve import serve

EXAMPLES = Path(__file__).parents[2] / "examples"
UNITS = sorted((EXAMPLES / "systemd").glob("*.service"))
MANIFESTS = sorted((EXAMPLES / "kubernetes").glob("*.yaml"))
COMMANDS = {"run": run, "serve": serve, "check": check}


def understood(line):
    """Parse a command line of ours; fails if there is no such option, or it does not take this value."""
    program, name, *arguments = line
    assert Path(program).name == "unhang"
    with COMMANDS[name].make_context(name, [*arguments]) as context:
        return context.params


@pytest.fixture(autouse=True)
def writable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def start_line(unit):
    text = unit.read_text().replace("\\\n", " ")
    return shlex.split(re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1])


def test_there_are_some():
    """What the next tests are about."""
    assert [unit.name for unit in UNITS] == ["train.service", "unhang.service"]
    assert [manifest.name for manifest in MANIFESTS] == ["entrypoint.yaml", "sidecar.yaml"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_sound(unit, tmp_path):
    """As systemd itself sees it, but for programs that are not installed here."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        capabilities.lacks("systemd-analyze", "to check units")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/unhang/bin/unhang", "/bin/true"))
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if str(copy) in line]) == (0, [])


def test_units_call_what_there_is():
    """Their options are ours; the job is behind them."""
    assert understood(start_line(UNITS[1]))["address"] == "/run/unhang/serve.sock"
    assert understood(start_line(UNITS[0]))["command"] == ("/opt/train/bin/python", "/opt/train/train.py")


def pods(manifest):
    document = yaml.safe_load(manifest.read_text())
    return document["spec"]["template"]["spec"]


def containers(pod):
    return [*pod.get("initContainers", []), *pod["containers"]]


def commands(container):
    """What it runs of ours: itself, and its probes."""
    yield [*container["command"], *container.get("args", [])]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        if "exec" in container.get(probe, {}):
            yield container[probe]["exec"]["command"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest.name)
def test_manifests_call_what_there_is(manifest):
    """Options, and addresses that both sides have in a volume."""
    pod = pods(manifest)
    ours = [line for container in containers(pod) for line in commands(container) if line[0] == "unhang"]
    assert len(ours) == 2
    given = [understood(line) for line in ours]
    addresses = {params["address"] for params in given if params.get("address")}
    for container in containers(pod):
        addresses |= {each["value"] for each in container.get("env", []) if each["name"] == "UNHANG_ADDRESS"}
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert all(any(Path(mount) in Path(address).parents for mount in mounts) for address in addresses)
    assert len(addresses) <= 1


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest.name)
def test_probes_ask_what_is_answered(manifest):
    """Ports by name, and paths that there are."""
    pod = pods(manifest)
    ports = {port["name"]: port["containerPort"] for container in containers(pod) for port in container["ports"]}
    http = {params["http"] for container in containers(pod) for line in commands(container) if line[0] == "unhang"
            and "http" in (params := understood(line))}  # fmt: skip
    assert http == {f"0.0.0.0:{ports['unhang']}"}
    for container in containers(pod):
        for name, probe in container.items():
            if name.endswith("Probe") and "httpGet" in probe:
                assert probe["httpGet"]["port"] in ports
                assert probe["httpGet"]["path"] in ("/livez", "/readyz")


HANGS = """
import os, time, unhang
with unhang.expires(0.3, "step"):
    time.sleep(600 if os.environ["ATTEMPT_HANGS"] == "1" else 0)
"""
STAND_INS = {
    "srun": '#!/bin/sh\nshift; SLURMD_NODENAME=node7 exec "$@"',
    "scontrol": '#!/bin/sh\n[ "$1" = show ] && echo node7 || echo "scontrol $*"',
    "sleep": "#!/bin/sh\n:",
    "torchrun": '#!/bin/sh\nfor last; do :; done; exec "$PYTHON" "$last"',
    "unhang": '#!/bin/sh\nexec "$PYTHON" -m unhang "$@"',
}


@pytest.mark.parametrize(
    ("hangs", "attempt", "status", "again"), [(0, 0, 0, False), (1, 0, 124, True), (1, 3, 124, False)]
)
def test_a_slurm_job_that_hangs_is_queued_again(tmp_path, hangs, attempt, status, again):
    """Three times at most; with reports and events of the node. Slurm and torchrun are stand-ins here."""
    (tmp_path / "bin").mkdir()
    for name, text in STAND_INS.items():
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "train.py").write_text(HANGS)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "ATTEMPT_HANGS": str(hangs),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_RESTART_COUNT": str(attempt),
    }
    job = ["/bin/bash", str(EXAMPLES / "slurm" / "job.sbatch")]
    done = subprocess.run(job, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == status, done.stderr
    assert ("scontrol requeue 7" in done.stdout) == again
    kept = sorted(path.name for path in (tmp_path / "hangs-7").iterdir())
    assert kept[0] == "events-node7.jsonl"
    assert len(kept) == 1 + hangs
