"""Takes settings, gives commands for RELION's programs; takes lines of their output, gives progress."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tomolab.subtomograms.to_relion import LIST

INSTALL = "on Debian or Ubuntu: apt-get install --no-install-recommends relion openmpi-bin"
REFERENCE = "reference.mrc"
MAX_ITERATIONS = "--auto_iter_max"
SECONDS = {"sec": 1.0, "min": 60.0, "hrs": 3600.0}
STAGES = {
    "Estimating initial noise": "noise",
    "Estimating accuracies": "accuracy",
    "Expectation iteration": "expectation",
    "Maximization": "maximization",
}
"""What RELION prints when a stage of an iteration begins."""


@dataclass(frozen=True)
class Programs:
    """Version of RELION, and paths of its programs; None for one that is missing."""

    version: str
    refine: str
    refine_mpi: str | None
    mpirun: str | None
    reconstruct: str | None


@dataclass(frozen=True)
class RelionProgress:
    """State of a refinement: `iteration`, its `stage`, `resolution` in Å, seconds so far, and seconds left in this stage."""

    iteration: int = 0
    stage: str = "start"
    resolution: float = np.inf
    seconds: float = 0.0
    left: float | None = None

    def __str__(self) -> str:
        resolution = f", {self.resolution:.0f} Å" if np.isfinite(self.resolution) else ""
        left = "" if self.left is None else f", {self.left:.0f} s left"
        return f"iteration {self.iteration}, {self.stage}{resolution}{left}"


def available() -> Programs | None:
    """Find RELION's programs on the search path; None where there is no `relion_refine`."""
    refine = shutil.which("relion_refine")
    if refine is None:
        return None
    output = subprocess.run([refine, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"version:?\s*(\S+)", output)
    mpi, mpirun, reconstruct = (shutil.which(name) for name in ("relion_refine_mpi", "mpirun", "relion_reconstruct"))
    return Programs(version[1] if version else "unknown", refine, mpi, mpirun, reconstruct)


def required(*names: str) -> Programs:
    """RELION with these programs; FileNotFoundError, which says how to install them, if one is missing."""
    found = available()
    if found is None:
        raise FileNotFoundError(f"RELION is not installed, or not on the search path; {INSTALL}")
    missing = [name for name in names if getattr(found, name) is None]
    if missing:
        raise FileNotFoundError(f"RELION {found.version} is there, but not {', '.join(missing)}; {INSTALL}")
    return found


def command(
    *,
    diameter: float,
    symmetry: str = "C1",
    initial_low_pass: float = 60.0,
    processes: int = 3,
    threads: int = 1,
    seed: int = 0,
    name: str = "run",
    reach: float = 5.0,
    extra: Sequence[str] = (),
) -> list[str]:
    """The command of a gold-standard refinement, to be run in the folder that `relion.write` made.

    Parameters
    ----------
    diameter, symmetry, initial_low_pass, processes, threads, seed, name, extra
        As in `relion.refine`. The reference is ``reference.mrc`` in the folder `name`.
    reach
        Voxels from the centre of its box to which a particle may be shifted.
    """
    options: dict[str, list[str]] = {
        "--i": [LIST],
        "--o": [f"{name}/run"],
        "--ref": [f"{name}/{REFERENCE}"],
        "--auto_refine": [],
        "--split_random_halves": [],
        "--firstiter_cc": [],
        "--ini_high": [f"{initial_low_pass:g}"],
        "--sym": [symmetry],
        "--particle_diameter": [f"{diameter:g}"],
        "--flatten_solvent": [],
        "--zero_mask": [],
        "--ctf": [],
        "--norm": [],
        "--scale": [],
        "--healpix_order": ["2"],
        "--auto_local_healpix_order": ["4"],
        "--offset_range": [f"{reach:g}"],
        "--offset_step": ["2"],
        "--oversampling": ["1"],
        "--low_resol_join_halves": ["40"],
        "--pad": ["2"],
        # RELION would check the voxels outside of `diameter`, and not those by which `write` normalised.
        "--dont_check_norm": [],
        "--random_seed": [str(seed)],
    }
    return [*_mpirun(processes), *to_words(options | _computation(threads) | parse_options(extra))]


def continue_command(iteration: int, *, most: int = 999, processes: int = 3, threads: int = 1, name: str = "run") -> list[str]:
    """The command that continues a refinement after a finished `iteration`, up to iteration `most`.

    The other parameters are those of `relion.refine`; RELION has recorded all else itself.
    """
    options = {"--continue": [f"{name}/run_it{iteration:03d}_optimiser.star"], "--o": [f"{name}/run"]}
    options[MAX_ITERATIONS] = [str(most)]
    return [*_mpirun(processes), *to_words(options | _computation(threads))]


def parse_options(words: Sequence[str]) -> dict[str, list[str]]:
    """Options of a command line with their values; ValueError if the first word is no option."""
    options: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            options[word] = []
        elif not options:
            raise ValueError(f"options for RELION start with --, got {word!r}")
        else:
            options[list(options)[-1]].append(word)
    return options


def to_words(options: dict[str, list[str]]) -> list[str]:
    """The words of a command line."""
    return [word for option, values in options.items() for word in (option, *values)]


def environment() -> dict[str, str]:
    """Variables that let MPI run as root, and with more processes than cores; those that the user has set stay."""
    wanted = {"OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    # The leader waits for the others most of the time; it must not keep a core busy meanwhile.
    wanted["OMPI_MCA_mpi_yield_when_idle"] = "1"
    if os.geteuid() == 0:
        wanted |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return {name: value for name, value in wanted.items() if name not in os.environ}


class LogReader:
    """Reads the output of a refinement line by line, and calls `on_progress` after a line that changes the progress."""

    def __init__(self, on_progress: Callable[[RelionProgress], Any]) -> None:
        self.on_progress, self.now, self.began = on_progress, RelionProgress(), time.perf_counter()

    def __call__(self, line: str) -> None:
        """Take one line."""
        new = _after(line, self.now)
        if new != self.now:
            self.now = replace(new, seconds=round(time.perf_counter() - self.began, 1))
            self.on_progress(self.now)


def _after(line: str, now: RelionProgress) -> RelionProgress:
    if found := re.match(r"\s*([\d.]+)/\s*([\d.]+) (sec|min|hrs)", line):
        return replace(now, left=max(0.0, float(found[2]) - float(found[1])) * SECONDS[found[3]])
    if found := re.search(r"Auto-refine: Resolution=\s*([\d.]+)", line):
        return replace(now, resolution=float(found[1]))
    if found := re.search(r"Auto-refine: Iteration=\s*(\d+)", line):
        return replace(now, iteration=int(found[1]), stage="start", left=None)
    for text, stage in STAGES.items():
        if text in line:
            return replace(now, stage=stage, left=None)
    return now


def _mpirun(processes: int) -> list[str]:
    return ["mpirun", "-n", str(processes), "relion_refine_mpi"]


def _computation(threads: int) -> dict[str, list[str]]:
    """Options that change how, not what, is computed."""
    return {"--j": [str(threads)], "--pool": ["4"], "--dont_combine_weights_via_disc": []}
