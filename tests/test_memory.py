"""The memory that a process may take, in control groups of both versions and under limits of its own."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tomolab import memory

GB = 10**9


def group(folder: Path, names: tuple[str, str, str], most: object, used: int, *, inactive: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{most}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {inactive}\nfile 7\n")


def member(root: Path, *lines: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("version", [1, 2])
def test_the_tightest_group_counts(tmp_path: Path, version: int) -> None:
    """A step in a job of SLURM has no limit of its own; that of the job counts."""
    base = tmp_path / "sys/fs/cgroup" / ("memory" if version == 1 else "")
    lines = ["9:cpu,cpuacct:/other", "3:memory:/slurm/job_7/step_0"] if version == 1 else ["0::/slurm/job_7/step_0"]
    member(tmp_path, *lines)
    none = 9223372036854771712 if version == 1 else "max"
    names = memory.VERSIONS[version]
    group(base, names, none, 9 * GB)
    group(base / "slurm", names, 3 * GB, GB)
    group(base / "slurm/job_7", names, 2 * GB, int(1.9 * GB), inactive=int(0.4 * GB))
    group(base / "slurm/job_7/step_0", names, none, GB)
    found = memory.least(tmp_path)
    assert (found.total, found.free) == (2 * GB, int(0.5 * GB))
    assert found.name == f"by the control group {base / 'slurm/job_7'}"
    # A limit counts also where nothing says what could be freed.
    for text in ("", "odd\n"):
        (base / "slurm/job_7/memory.stat").write_text(text)
        assert memory.least(tmp_path).free == int(0.1 * GB)
    (base / "slurm/job_7/memory.stat").unlink()
    assert memory.least(tmp_path).free == int(0.1 * GB)


@pytest.mark.parametrize("line", ["0::/", "0::/docker/1234", "0::/../../job", "4:memory:/docker/1234"])
def test_a_container_sees_its_group_as_the_root(tmp_path: Path, line: str) -> None:
    version = 1 if "memory" in line else 2
    member(tmp_path, line)
    group(tmp_path / "sys/fs/cgroup" / ("memory" if version == 1 else ""), memory.VERSIONS[version], GB, 2 * GB)
    found = memory.least(tmp_path)
    assert (found.total, found.free) == (GB, 0)


@pytest.mark.parametrize("lines", [[], ["nonsense"], ["0::/none"], ["1:name=systemd:/x", "2::"]])
def test_without_groups_the_machine_counts(tmp_path: Path, lines: list[str]) -> None:
    if lines:
        member(tmp_path, *lines)
    found = memory.least(tmp_path)
    assert found.total == psutil.virtual_memory().total
    assert found.name == "of the machine"


@pytest.mark.parametrize(("limit", "flag"), [("RLIMIT_AS", "-v"), ("RLIMIT_DATA", "-d")])
def test_a_limit_of_the_process_counts(limit: str, flag: str) -> None:
    script = f"""
import resource, psutil
from tomolab import memory
own = psutil.Process().memory_info()
used = own.vms if {flag!r} == "-v" else own.data
resource.setrlimit(resource.{limit}, (used + 3 * 10**8,) * 2)
print(memory.least().free, memory.least().name)
try:
    memory.check(10**9, "this needs", instead="take less")
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert 2 * 10**8 < int(first.split()[0]) <= 3 * 10**8
    assert first.endswith(f"ulimit {flag}")
    assert second.startswith("this needs 1,000,000,000 bytes of memory, but only ")
    assert second.endswith(f"are free (by the limit of this process, ulimit {flag}); take less")
