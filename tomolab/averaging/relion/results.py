"""The folder of a refinement by RELION in, an average out.

>>> theirs = read("runs/tour/relion")
>>> theirs.record["converged"], theirs.resolution
"""

from pathlib import Path
from typing import Any

import pandas as pd

from tomolab import io
from tomolab.averaging.fsc import correlate
from tomolab.averaging.half_maps import Average
from tomolab.io import safe_load
from tomolab.io.lists import star
from tomolab.subtomograms.to_relion import particles
from tomolab.volumes import Volume

OPTIONS = "options.json"
"""What `relion.refine` notes beside what RELION writes."""


def read(folder: str | Path, name: str = "run") -> Average:
    """Read the result of a refinement in two halves in a folder that `relion.write` made, also of one started by hand.

    Parameters
    ----------
    folder
        Of `relion.write`.
    name
        Folder in it where the files ``run_*`` are, such as ``"Refine3D/job001"``.

    Returns
    -------
    Average
        RELION's final map and its two unfiltered half maps, and their Fourier shell correlation inside the mask of the
        refinement, as `averaging.correlate` gives it for every average, with RELION's own (without a mask) in the column
        ``relion``. The particles with their ids and columns as they were written, refined poses, ``half``, ``score``
        (RELION's contribution to the log-likelihood), and what RELION says besides. Of a refinement that was cut short,
        the maps of the last iteration, which are filtered, and RELION's own correlation; ``record["converged"]`` tells.
        The frame is RELION's: align the map before comparing it. Up to ``record["together"]`` Å RELION joins the halves.

    Raises
    ------
    FileNotFoundError
        If no iteration has finished, or there are no half maps.
    """
    folder = Path(folder)
    base, done = folder / name / "run", iterations(folder, name)
    if not done or done[-1] == 0:
        raise FileNotFoundError(f"{folder / name} holds no finished iteration of RELION")
    last = f"{base}_it{done[-1]:03d}"
    final = Path(f"{base}_data.star").is_file() and Path(f"{base}_class001.mrc").is_file()
    state, kind, model = (base, "_unfil", f"{base}_model.star") if final else (last, "", f"{last}_half1_model.star")
    halves = [Path(f"{state}_half{half}_class001{kind}.mrc") for half in (1, 2)]
    if not all(half.is_file() for half in halves):
        raise FileNotFoundError(f"{folder / name} holds no half maps: it is no refinement in two halves")
    half1, half2 = (io.read_volume(half) for half in halves)
    settings = star.blocks(Path(f"{last}_optimiser.star"))["optimiser_general"].iloc[0]
    fsc = _fsc(Path(model))
    if final:
        volume = io.read_volume(f"{base}_class001.mrc")
        diameter = float(settings["rlnParticleDiameter"]) / volume.voxel_size
        fsc = correlate(half1, half2, diameter_voxels=diameter).assign(relion=fsc["fsc"])
    else:
        volume = Volume((half1.data + half2.data) / 2, half1.voxel_size)
    record: dict[str, Any] = {"program": "RELION", "iterations": done[-1], "converged": final}
    record["together"] = float(settings["rlnJoinHalvesUntilThisResolution"])
    return Average(volume, half1, half2, fsc, particles(f"{state}_data.star"), record | _noted(folder / name))


def iterations(folder: str | Path, name: str = "run") -> list[int]:
    """Numbers of the iterations of which all files are there, in order."""
    there = []
    for path in sorted(Path(folder, name).glob("run_it*_optimiser.star")):
        start = str(path).removesuffix("_optimiser.star")
        parts = ("data", "sampling", "half1_model", "half2_model")
        if all(Path(f"{start}_{part}.star").is_file() for part in parts):
            there.append(int(start.rpartition("_it")[2]))
    return there


def _fsc(model: Path) -> pd.DataFrame:
    """Fourier shell correlation of the half maps from a model that RELION wrote."""
    shells = star.blocks(model)["model_class_1"]
    values = star.numbers(shells, ["rlnSpectralIndex", "rlnAngstromResolution", "rlnGoldStandardFsc"])
    return pd.DataFrame(values[values[:, 0] > 0, 1:], columns=["resolution", "fsc"])


def _noted(folder: Path) -> dict[str, Any]:
    """What `relion.refine` noted of a refinement; nothing of one that was started by hand."""
    path = folder / OPTIONS
    return safe_load.mapping(path, "the options of a refinement") if path.is_file() else {}
