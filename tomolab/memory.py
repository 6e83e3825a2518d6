"""Gives the bytes of memory that this process may still take, and refuses work that needs more.

The machine has a limit, and so have the control groups of the process (SLURM, containers; version 1 and 2) with all groups
that they lie in, and the process itself (``ulimit``). The least of them counts.
"""

import resource
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

VERSIONS = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
"""Of each version of control groups: files of the limit and of the use, and what in ``memory.stat`` can be freed at once."""


@dataclass(frozen=True)
class Limit:
    """Bytes of memory that something allows, how many of them are free, and what sets this limit."""

    total: int
    free: int
    name: str


def limits(root: Path = Path("/")) -> list[Limit]:
    """All limits of memory of this process; `root` holds the folders proc and sys."""
    machine, own = psutil.virtual_memory(), psutil.Process().memory_info()
    found = [Limit(machine.total, machine.available, "of the machine"), *_groups(root)]
    for kind, used, name in (
        (resource.RLIMIT_AS, own.vms, "ulimit -v"),
        (resource.RLIMIT_DATA, getattr(own, "data", 0), "ulimit -d"),
    ):
        most = resource.getrlimit(kind)[0]
        if most != resource.RLIM_INFINITY:
            found.append(Limit(most, max(0, most - used), f"by the limit of this process, {name}"))
    return found


def least(root: Path = Path("/")) -> Limit:
    """The limit that leaves the least free."""
    return min(limits(root), key=lambda one: one.free)


def check(needed: int, what: str, *, instead: str = "") -> None:
    """Raise ValueError if there are less free bytes than needed; `instead` is what the user can do."""
    limit = least()
    if needed > limit.free:
        raise ValueError(
            f"{what} {needed:,} bytes of memory, but only {limit.free:,} are free ({limit.name}){'; ' * bool(instead)}{instead}"
        )


def _groups(root: Path) -> Iterator[Limit]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, group in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        version = 1 if "memory" in controllers.split(",") else 2
        if controllers and version == 2:
            continue
        base = root / "sys/fs/cgroup" / ("memory" if version == 1 else "")
        inner = PurePosixPath(group.lstrip("/"))
        # A container may see its own group as the root, and the path of it from outside.
        for folder in [base] if ".." in inner.parts else [base / one for one in (inner, *inner.parents)]:
            limit = _group(folder, version)
            if limit is not None:
                yield limit


def _group(folder: Path, version: int) -> Limit | None:
    limit, use, inactive = VERSIONS[version]
    try:
        most, used = int((folder / limit).read_text()), int((folder / use).read_text())
    except (OSError, ValueError):
        # No such group here, or no limit ("max").
        return None
    with suppress(OSError, ValueError, StopIteration):
        lines = (folder / "memory.stat").read_text().splitlines()
        used -= int(next(line.split()[1] for line in lines if line.startswith(f"{inactive} ")))
    return Limit(most, max(0, most - used), f"by the control group {folder}")
