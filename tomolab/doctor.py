"""What is wrong with this machine for tomolab, in plain words (``tomolab doctor``).

`diagnose` turns the facts of `tomolab.machine` into findings and touches nothing; `report` writes both down.

>>> facts = machine.look()
>>> print(report(facts, diagnose(facts)))
"""

import math
import textwrap
from dataclasses import dataclass
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tomolab import __version__
from tomolab.machine import Facts

GIGABYTE = 1e9
CUDA_DRIVERS = {11: 450, 12: 525, 13: 580}
"""Oldest Linux driver for each major version of CUDA (CUDA Toolkit release notes, minor version compatibility)."""


@dataclass(frozen=True)
class Finding:
    """Something wrong: `broken` stops tomolab, `limited` leaves it usable."""

    severity: Literal["broken", "limited"]
    text: str


def diagnose(facts: Facts) -> list[Finding]:
    """Say what is wrong, the worst first."""
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
        "CPU": f"{facts.cores} cores",
        "memory": f"{_gigabytes(facts.memory_free)} of {_gigabytes(facts.memory)} free",
        "disk": f"{_gigabytes(facts.disk_free)} free in this folder",
        "display": f"{facts.display}, OpenGL by {facts.opengl}" if facts.opengl else facts.display or "none",
        "packages": ", ".join(f"{name} {version}" for name, version in names),
    }
    if facts.extras:
        said = [f"{extra} (lacks {', '.join(missing)})" if missing else extra for extra, missing in facts.extras.items()]
        lines["extras"] = ", ".join(said)
    text = [
        textwrap.fill(value, 100, initial_indent=f"{name:<10}", subsequent_indent=" " * 10) for name, value in lines.items()
    ]
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
    """Why the GPU that is there, or that was asked for, cannot be used; None if all is well."""
    asked = facts.visible_devices
    if not facts.gpus:
        if facts.cards:
            return "this machine has an NVIDIA card, but no working driver (nvidia-smi finds no GPU): install the driver."
        asked_in_vain = asked not in (None, "", "-1") and not facts.torch_gpus
        return f"CUDA_VISIBLE_DEVICES asks for GPU {asked}, but there is none." if asked_in_vain else None
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
