"""Takes a folder that RELION reads, gives an average: runs RELION's refinement where that is installed.

>>> folder = relion.write(subtomograms, "runs/tour/relion", ids=chosen.ids)
>>> theirs = relion.refine(folder, diameter=300, reference=average.volume)
>>> plots.two_averages({"tomolab": average, "RELION": theirs})

`tomolab.subtomograms.to_relion` describes the folder, `tomolab.averaging.relion.programs` has the commands,
`tomolab.averaging.relion.results` reads.
"""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from tomolab import io, rotations
from tomolab.averaging.half_maps import Average
from tomolab.averaging.relion.process import run
from tomolab.averaging.relion.programs import (
    MAX_ITERATIONS,
    REFERENCE,
    LogReader,
    RelionProgress,
    available,
    command,
    continue_command,
    environment,
    parse_options,
    required,
    to_words,
)
from tomolab.averaging.relion.results import OPTIONS, iterations, read
from tomolab.io import safe_load
from tomolab.io.lists.star import parsing
from tomolab.io.lists.star.columns import EULER, VERSIONS
from tomolab.io.volumes.mrc import TOLERANCE
from tomolab.subtomograms.to_relion import LIST, write
from tomolab.volumes import Volume

__all__ = ["RelionProgress", "available", "read", "reconstruct", "refine", "write"]

FINISHED = "run_data.star"
START = "start.star"
LOG = "run.log"


def refine(
    folder: str | Path,
    *,
    diameter: float,
    symmetry: str = "C1",
    reference: Volume | None = None,
    initial_low_pass: float = 60.0,
    max_shift: float | None = None,
    processes: int = 3,
    threads: int = 1,
    seed: int = 0,
    name: str = "run",
    progress: bool | Callable[[RelionProgress], Any] = True,
    stop: Callable[[], bool] | None = None,
    extra: Sequence[str] = (),
) -> Average:
    """Refine in two halves (`relion_refine_mpi --auto_refine --split_random_halves`) until RELION has converged.

    The same call continues an interrupted refinement after its last finished iteration, and only reads one that has
    converged.

    Parameters
    ----------
    folder
        What `write` made.
    diameter
        Å, of the spherical mask on particles and reference.
    symmetry
        Point group, such as "C1", "D2" or "O".
    reference
        Map to start from, in the box of the particles; RELION low-passes it to `initial_low_pass`. Without a map it starts
        from the average of all particles in the orientations of ``particles.star``, or in random ones if those are all the
        same. Such a start has no features, both halves share it, and RELION may end in a wrong structure; an average of
        `tomolab.averaging.gold_standard` is better.
    initial_low_pass
        Å.
    max_shift
        Largest shift of a particle from the centre of its box, in Å; a tenth of the box by default.
    processes
        MPI processes, at least 3: one leads, the others work on the two halves.
    threads
        Threads of each process.
    seed
        Of the random orientations, and of RELION's own choices.
    name
        Folder inside `folder` for RELION's output; other options need another one.
    progress
        True shows a bar; a function is called with each new `RelionProgress`.
    stop
        Called five times a second. When it returns True, RELION is ended and the last finished iteration is returned, with
        ``record["converged"]`` False. A KeyboardInterrupt ends RELION too.
    extra
        More options for RELION, which replace those of `programs.command`, such as ``["--healpix_order", "3"]``, or
        ``["--auto_iter_max", "5"]`` for at most five iterations.

    Returns
    -------
    Average
        As `read` gives it; ``record["seconds"]`` is the time of this call.

    Raises
    ------
    FileNotFoundError
        If RELION, MPI, or the folder is not there.
    ValueError
        If a parameter is out of range, the reference has another box or voxel size than the particles, or `name` holds
        another refinement.
    RuntimeError
        If RELION fails, with the end of its output, or was stopped before an iteration had finished.
    """
    began = time.perf_counter()
    folder, programs = Path(folder), required("refine_mpi", "mpirun", "reconstruct")
    images = _images(folder)
    lengths = {"diameter": diameter} | ({} if max_shift is None else {"max_shift": max_shift})
    _check(images, processes, threads, reference, **lengths)
    reach = float(images["rlnImageSize"]) / 10 if max_shift is None else max_shift / float(images["rlnImagePixelSize"])
    digest = None if reference is None else hashlib.sha256(reference.data.tobytes()).hexdigest()
    given: dict[str, Any] = {"diameter": diameter, "symmetry": symmetry, "reference": digest}
    given |= {"initial_low_pass": initial_low_pass, "reach": round(reach, 3), "seed": seed, "extra": list(extra)}
    numbers: dict[str, Any] = {"processes": processes, "threads": threads, "name": name}
    last, most = _last(folder, name, given), int(parse_options(extra).get(MAX_ITERATIONS, ["999"])[0])
    if not (folder / name / FINISHED).is_file() and last < most:
        if last:
            words = continue_command(last, most=most, **numbers)
        else:
            options = {key: value for key, value in given.items() if key != "reference"}
            words = command(**options, **numbers)
            _start(folder, name, reference, given)
        _follow(words, folder, name, progress=progress, stop=stop)
    average = read(folder, name)
    average.record.update(version=programs.version, seconds=round(time.perf_counter() - began, 2))
    return average


def reconstruct(
    folder: str | Path, *, table: str = LIST, subset: int | None = None, symmetry: str = "C1", extra: Sequence[str] = ()
) -> Volume:
    """Average the particles of a list in the poses it has with `relion_reconstruct`; nothing is aligned.

    Parameters
    ----------
    folder
        What `write` made.
    table
        List inside the folder, such as ``"run/run_data.star"``.
    subset
        1 or 2 for one half set; all by default.
    symmetry
        Point group.
    extra
        More options, such as ``["--maxres", "40"]``.

    Raises
    ------
    FileNotFoundError
        If `relion_reconstruct`, the folder or the list is not there.
    RuntimeError
        If RELION fails, with the end of its output.
    """
    folder, programs = Path(folder), required("reconstruct")
    if not (folder / table).is_file():
        raise FileNotFoundError(f"no {table} in {folder}")
    with tempfile.TemporaryDirectory() as place:
        options = {"--i": [table], "--o": [str(Path(place, "map.mrc"))], "--sym": [symmetry], "--ctf": [], "--3d_rot": []}
        options |= {} if subset is None else {"--subset": [str(subset)]}
        code, last = run([str(programs.reconstruct), *to_words(options | parse_options(extra))], folder=folder)
        if code or not Path(place, "map.mrc").is_file():
            raise RuntimeError(_failure("relion_reconstruct", code, last))
        return io.read_volume(Path(place, "map.mrc"))


def _images(folder: Path) -> pd.Series:
    """What the first optics group says of the images: rlnImageSize, rlnImagePixelSize."""
    if not (folder / LIST).is_file():
        raise FileNotFoundError(f"no {LIST} in {folder}: make the folder with averaging.relion.write")
    return parsing.blocks(folder / LIST)["optics"].iloc[0]


def _check(images: pd.Series, processes: int, threads: int, reference: Volume | None, **lengths: float) -> None:
    box, voxel_size = int(images["rlnImageSize"]), float(images["rlnImagePixelSize"])
    for name, value in lengths.items():
        if not 0 < value <= box * voxel_size:
            raise ValueError(f"{name} must be over 0 and at most the box, {box * voxel_size:g} Å, got {value}")
    if processes < 3 or threads < 1:
        raise ValueError(f"at least 3 MPI processes and 1 thread are needed, got {processes} and {threads}")
    if reference is None:
        return
    if reference.shape != (box,) * 3 or abs(reference.voxel_size / voxel_size - 1) > TOLERANCE:
        raise ValueError(f"the particles have {box}³ voxels of {voxel_size:g} Å, but the reference is {reference}")


def _last(folder: Path, name: str, given: dict[str, Any]) -> int:
    """Number of the last iteration of a refinement with these options, 0 if there is none; another one is not touched."""
    place = io.inside(folder, name)
    if not place.exists():
        return 0
    if not (place / OPTIONS).is_file():
        raise ValueError(
            f"{place} holds files that tomolab did not start; read them with averaging.relion.read, or give another name="
        )
    recorded = safe_load.read_json(place / OPTIONS, "the options of a refinement").get("parameters")
    if not isinstance(recorded, dict):
        raise ValueError(f"{place / OPTIONS} names no parameters of a refinement")
    others = [f"{key} {recorded.get(key)!r} instead of {value!r}" for key, value in given.items() if recorded.get(key) != value]
    if others:
        raise ValueError(f"{place} holds a refinement with other options ({'; '.join(others)}); give another name=")
    return max(iterations(folder, name), default=0)


def _start(folder: Path, name: str, reference: Volume | None, given: dict[str, Any]) -> None:
    """Make the folder of the refinement, with options and reference; remove one that has no finished iteration."""
    place = io.inside(folder, name)
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    # First, so that an interrupted start does not look like a refinement that tomolab did not start.
    with io.atomic(place / OPTIONS) as temporary:
        temporary.write_text(json.dumps({"parameters": given}, indent=1))
    if reference is None:
        reference = _first_reference(folder, name, seed=given["seed"], symmetry=given["symmetry"])
    io.write_volume(reference, place / REFERENCE)


def _first_reference(folder: Path, name: str, *, seed: int, symmetry: str) -> Volume:
    """The average in the orientations of the list, or in random ones if these are all the same."""
    blocks = parsing.blocks(folder / LIST)
    angles = parsing.numbers(blocks["particles"], EULER)
    if len(angles) > 1 and (angles != angles[0]).any():
        return reconstruct(folder, symmetry=symmetry)
    turns = rotations.random(len(angles), torch.Generator().manual_seed(seed))
    blocks["particles"][EULER] = rotations.to_euler(turns.double().numpy()).round(6)
    (folder / name / START).write_text(parsing.text(blocks, version=VERSIONS["relion31"]))
    return reconstruct(folder, table=f"{name}/{START}", symmetry=symmetry)


def _follow(
    words: list[str],
    folder: Path,
    name: str,
    *,
    progress: bool | Callable[[RelionProgress], Any],
    stop: Callable[[], bool] | None,
) -> None:
    """Run a refinement to its end, or until it is stopped."""
    with tqdm(desc="RELION", unit="iteration", disable=progress is not True) as bar:

        def show(now: RelionProgress) -> None:
            if callable(progress):
                progress(now)
            bar.set_postfix_str(str(now), refresh=False)
            bar.update(max(0, now.iteration - bar.n))

        log = folder / name / LOG
        code, last = run(words, folder=folder, log=log, environment=environment(), on_line=LogReader(show), stop=stop)
    done = max(iterations(folder, name), default=0)
    if code is None and not done:
        raise RuntimeError("RELION was stopped before it had finished an iteration")
    # RELION may end well before it has converged, after `MAX_ITERATIONS`.
    if code or (code == 0 and not done):
        raise RuntimeError(_failure("relion_refine_mpi", code, last) + f"\nits whole output is in {log}")


def _failure(program: str, code: int | None, last: list[str]) -> str:
    # Each process warns of each column that RELION does not know, which may come after the error.
    shown = [line for line in last if "WARNING" not in line] or last
    return f"{program} failed with exit code {code}; the end of its output:\n" + "\n".join(line[:200] for line in shown[-15:])
