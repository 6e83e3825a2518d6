"""Takes the facts of this machine, gives a report of what tomolab can use and what is wrong (``tomolab doctor``).

`look` gathers the facts, `diagnose` turns them into findings, and `report` turns both into text.

>>> facts = look()
>>> print(report(facts, diagnose(facts)))
"""

import csv
import math
import os
import platform
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tomolab import __version__, memory

OPENGL = """
from PySide6 import QtGui
app = QtGui.QGuiApplication([])
surface, context = QtGui.QOffscreenSurface(), QtGui.QOpenGLContext()
surface.create()
if not context.create() or not context.makeCurrent(surface):
    raise SystemExit("Qt cannot make an OpenGL context")
print(context.functions().glGetString(0x1F01))
"""


@dataclass(frozen=True)
class GPU:
    """One NVIDIA GPU as its driver describes it; memory in bytes."""

    name: str
    driver: str
    memory: float
    memory_free: float


@dataclass(frozen=True)
class Facts:
    """What was found on a machine; memory and disk in bytes, None for what is absent.

    `packages` maps a requirement (``"numpy>=2.0"``) to the installed version; `extras` maps an extra to its packages that are
    not installed; `cards` counts NVIDIA cards on the bus, with or without a driver; `opengl` names the renderer. `threads` are
    those of PyTorch, `cores_free` the cores that other processes leave free, `waiting` what OpenMP's threads do meanwhile.
    """

    python: str = "3.11.0"
    python_range: str = ">=3.11,<3.14"
    system: str = "Linux"
    cores: int = 2
    memory: float = 16e9
    memory_free: float = 12e9
    disk_free: float = 100e9
    torch: str | None = None
    torch_cuda: str | None = None
    torch_gpus: int = 0
    torch_error: str | None = None
    threads: int = 2
    cores_free: float = 2.0
    waiting: str = "PASSIVE"
    gpu_error: str | None = None
    gpus: tuple[GPU, ...] = ()
    cards: int = 0
    visible_devices: str | None = None
    display: str | None = None
    opengl: str | None = None
    opengl_error: str | None = None
    packages: Mapping[str, str | None] = field(default_factory=dict)
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def look() -> Facts:
    """Gather the facts of this machine; takes a few seconds, since it runs PyTorch and OpenGL."""
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    packages, extras = _packages(metadata.requires("tomolab") or [])
    # Only napari needs Qt.
    renderer, opengl_error = opengl() if display and not extras.get("napari") else (None, None)
    limits = memory.limits()
    return Facts(
        python=platform.python_version(),
        python_range=str(metadata.metadata("tomolab")["Requires-Python"]),
        system=platform.platform(terse=True),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=min(one.total for one in limits),
        memory_free=min(one.free for one in limits),
        disk_free=shutil.disk_usage(Path.cwd()).free,
        **_torch(),
        gpus=gpus(),
        cards=cards(Path("/sys/bus/pci/devices")),
        waiting=os.environ.get("OMP_WAIT_POLICY", "").upper(),
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        display=display,
        opengl=renderer,
        opengl_error=opengl_error,
        packages=packages,
        extras=extras,
    )


def _torch() -> dict[str, Any]:
    """Facts about PyTorch, which is imported and computes a little on each GPU; its warnings are kept, not printed."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"torch_error": str(error).splitlines()[0]}
    from tomolab import parallel

    found: dict[str, Any] = {"torch": str(torch.__version__), "torch_cuda": torch.version.cuda, "torch_gpus": 0}
    found |= {"threads": parallel.use_free_cores(), "cores_free": (os.cpu_count() or 1) - parallel.busy_elsewhere(1.0)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found["torch_gpus"] = torch.cuda.device_count() if torch.cuda.is_available() else 0
            for index in range(found["torch_gpus"]):
                torch.ones(8, device=f"cuda:{index}").sum().item()
        except RuntimeError as error:
            found["gpu_error"] = str(error).splitlines()[0]
    if caught and not found["torch_gpus"]:
        found["gpu_error"] = str(caught[0].message).splitlines()[0]
    return found


def gpus() -> tuple[GPU, ...]:
    """NVIDIA GPUs that ``nvidia-smi`` lists; none if it is absent or fails."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return ()
    rows = csv.reader(answer.splitlines(), skipinitialspace=True)
    return tuple(GPU(name, driver, _bytes(total), _bytes(free)) for name, driver, total, free in rows)


def _bytes(mebibytes: str) -> float:
    """Bytes, or NaN if the driver does not say (``[N/A]`` on GPUs that share the memory of the CPU)."""
    return float(mebibytes) * 2**20 if mebibytes.strip().isdigit() else float("nan")


def cards(devices: Path) -> int:
    """Count display controllers (class 03) by NVIDIA (vendor 10de) on the PCI bus."""
    classes = [path for path in devices.glob("*/class") if path.read_text().startswith("0x03")]
    return sum((path.parent / "vendor").read_text().strip() == "0x10de" for path in classes)


def opengl() -> tuple[str | None, str | None]:
    """Name of the OpenGL renderer, or why there is none; in a process of its own, since Qt aborts if it cannot start."""
    try:
        done = subprocess.run([sys.executable, "-c", OPENGL], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return None, "Qt did not answer within a minute"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode == 0 and lines:
        return lines[-1], None
    reasons = [line for line in lines if "could not connect" in line or "cannot open" in line] or lines[-1:]
    return None, reasons[0] if reasons else f"Qt stopped with code {done.returncode}"


def _packages(requirements: list[str]) -> tuple[dict[str, str | None], dict[str, tuple[str, ...]]]:
    """Installed versions by requirement, of extras only those that are installed; and the packages that each extra lacks."""
    found: dict[str, str | None] = {}
    lacking: dict[str, tuple[str, ...]] = {}
    for text in requirements:
        requirement = Requirement(text)
        extra = _extra(requirement)
        if requirement.name == "tomolab" or extra is None:
            continue
        version = _version(requirement.name)
        if extra:
            lacking[extra] = lacking.get(extra, ()) + (() if version else (requirement.name,))
        if version or not extra:
            found[f"{requirement.name}{requirement.specifier}"] = version
    return found, lacking


def _extra(requirement: Requirement) -> str | None:
    """Name of the extra with this requirement, empty if it is one of the package itself; None if it does not apply here."""
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        return ""
    # "all" is the others together.
    extras = set(metadata.metadata("tomolab").get_all("Provides-Extra") or []) - {"all"}
    return next((extra for extra in sorted(extras) if requirement.marker.evaluate({"extra": extra})), None)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


GIGABYTE = 1e9
CUDA_DRIVERS = {11: 450, 12: 525, 13: 580}
"""Oldest Linux driver for each major version of CUDA (CUDA Toolkit release notes, minor version compatibility)."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: with `broken` tomolab cannot run, with `limited` it can."""

    severity: Literal["broken", "limited"]
    text: str


def diagnose(facts: Facts) -> list[Finding]:
    """What is wrong, the worst first."""
    findings = _software(facts) + _gpu(facts) + _room(facts) + _screen(facts)
    return sorted(findings, key=lambda finding: finding.severity != "broken")


def report(facts: Facts, findings: list[Finding]) -> str:
    """Write facts and findings as text for a terminal."""
    gpus = [f"{gpu.name}, {_gigabytes(gpu.memory_free)} of {_gigabytes(gpu.memory)} free" for gpu in facts.gpus]
    build = f"built for CUDA {facts.torch_cuda}" if facts.torch_cuda else "CPU build"
    names = [(Requirement(text).name, version or "missing") for text, version in facts.packages.items()]
    lines = {
        "tomolab": f"{__version__} with Python {facts.python} on {facts.system}",
        "PyTorch": f"{facts.torch}, {build}" if facts.torch else "cannot be imported",
        "GPU": "; ".join(gpus) or "none; everything runs on the CPU",
        "driver": facts.gpus[0].driver if facts.gpus else "none",
        "CPU": f"{facts.cores} cores; PyTorch uses {facts.threads} thread{'s' * (facts.threads != 1)} now",
        "memory": f"{_gigabytes(facts.memory_free)} of {_gigabytes(facts.memory)} free",
        "disk": f"{_gigabytes(facts.disk_free)} free in this folder",
        "display": f"{facts.display}, OpenGL by {facts.opengl}" if facts.opengl else facts.display or "none",
        "packages": ", ".join(f"{name} {version}" for name, version in names),
    }
    if facts.extras:
        extras = (f"{extra} (lacks {', '.join(missing)})" if missing else extra for extra, missing in facts.extras.items())
        lines["extras"] = ", ".join(extras)
    indent = " " * 10
    text = [textwrap.fill(value, 100, initial_indent=f"{name:<10}", subsequent_indent=indent) for name, value in lines.items()]
    text += ["", "Nothing is wrong." if not findings else "What is wrong:"]
    words = {"broken": "tomolab cannot run", "limited": "tomolab runs, but"}
    text += [textwrap.fill(f"- {words[one.severity]}: {one.text}", 100, subsequent_indent="  ") for one in findings]
    return "\n".join(text)


def _software(facts: Facts) -> list[Finding]:
    findings = []
    if facts.python not in SpecifierSet(facts.python_range):
        findings.append(Finding("broken", f"Python {facts.python} does not fit: tomolab needs {facts.python_range}."))
    if facts.torch_error:
        findings.append(Finding("broken", f"PyTorch cannot be imported: {facts.torch_error}. Run `make lab` to install it."))
    for text, version in facts.packages.items():
        requirement, advice = Requirement(text), f"Run `make lab`, or `pip install '{text}'`."
        if version is None:
            findings.append(Finding("broken", f"{requirement.name} is not installed. {advice}"))
        elif not requirement.specifier.contains(version, prereleases=True):
            wanted = f"{requirement.name} {version} is installed, but tomolab asks for {text}."
            findings.append(Finding("limited", f"{wanted} {advice}"))
    return findings


def _gpu(facts: Facts) -> list[Finding]:
    text = _unused(facts)
    if text is not None:
        return [Finding("limited", f"{text} Everything runs on the CPU.")]
    full = [gpu for gpu in facts.gpus if gpu.memory_free < 2 * GIGABYTE]
    busy = "free: other programs are using it (nvidia-smi shows which)."
    return [Finding("limited", f"{gpu.name} has only {_gigabytes(gpu.memory_free)} {busy}") for gpu in full]


def _unused(facts: Facts) -> str | None:
    """Why a GPU of this machine, or the one that was asked for, cannot be used; None if it can."""
    asked = facts.visible_devices
    if not facts.gpus:
        if facts.cards:
            return "this machine has an NVIDIA card, but no working driver (nvidia-smi finds no GPU): install the driver."
        missing = asked not in (None, "", "-1") and not facts.torch_gpus
        return f"CUDA_VISIBLE_DEVICES asks for GPU {asked}, but there is none." if missing else None
    if facts.torch is None:
        return None
    unused = f"the GPU ({', '.join(gpu.name for gpu in facts.gpus)}) is not used"
    if facts.torch_cuda is None:
        advice = f"`pip install --force-reinstall torch=={facts.torch.split('+')[0]}` usually brings a CUDA build"
        return f"{unused}, because PyTorch {facts.torch} is a CPU build; {advice}."
    driver, needed = facts.gpus[0].driver, CUDA_DRIVERS.get(int(facts.torch_cuda.split(".")[0]), 0)
    if int(driver.split(".")[0]) < needed:
        asks = f"PyTorch built for CUDA {facts.torch_cuda} needs {needed} or newer"
        return f"{unused}: driver {driver} is too old, {asks}. Update it, or install a PyTorch for an older CUDA."
    if asked in ("", "-1"):
        return f"{unused}, since it is hidden by CUDA_VISIBLE_DEVICES={asked!r}."
    if facts.gpu_error or not facts.torch_gpus:
        return f"{unused}: PyTorch says: {facts.gpu_error or 'no GPU found'}."
    return None


def _room(facts: Facts) -> list[Finding]:
    findings = []
    if facts.cores_free < 0.5:
        text = f"other programs keep all but {max(facts.cores_free, 0):.1f} of the cores busy, so all work takes longer."
        findings.append(Finding("limited", text))
    if facts.waiting == "ACTIVE":
        text = (
            "OMP_WAIT_POLICY=ACTIVE lets waiting threads keep the cores busy: beside other programs an average takes many times"
        )
        findings.append(Finding("limited", f"{text} as long. Unset it; tomolab then sets PASSIVE."))
    memory, disk = _gigabytes(facts.memory_free), _gigabytes(facts.disk_free)
    if facts.memory_free < 4 * GIGABYTE:
        text = f"only {memory} of memory is free; the notebooks want 4 GB. Close other programs or kernels."
        findings.append(Finding("limited", text))
    if facts.disk_free < 5 * GIGABYTE:
        findings.append(Finding("limited", f"only {disk} of disk is free in this folder; run folders want 5 GB or more."))
    return findings


def _screen(facts: Facts) -> list[Finding]:
    if facts.extras.get("napari"):
        return []
    if facts.display is None:
        text = "there is no display, so napari windows cannot open. Figures, scatter plots and all else work in the browser."
        return [Finding("limited", text)]
    if facts.opengl is None:
        text = f"napari cannot draw on display {facts.display}: {facts.opengl_error}."
        advice = "On Debian or Ubuntu, `scripts/libraries.sh lab` installs what it needs. All else works in the browser."
        return [Finding("limited", f"{text} {advice}")]
    return []


def _gigabytes(size: float) -> str:
    return "unknown" if math.isnan(size) else f"{size / GIGABYTE:.1f} GB"
