"""Takes the contents of a run folder, gives its methods paragraph: what was done, in words, with numbers and references.

It says only what the folder records; what the folder does not know is left out.

>>> print(text(run_contents.read("runs/first")))
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tomolab import __version__
from tomolab.averaging.half_maps import Average
from tomolab.inspection import run_contents
from tomolab.inspection.history import counted
from tomolab.inspection.run_contents import RunContents
from tomolab.inspection.session import Session

REFERENCES = {
    "features": "Xu M. et al. (2017). Deep learning-based subdivision approach for large scale macromolecules structure "
    "recovery from electron cryo tomograms. Bioinformatics 33(14), i13-i22.",
    "map": "McInnes L., Healy J., Melville J. (2018). UMAP: Uniform Manifold Approximation and Projection for dimension "
    "reduction. arXiv:1802.03426.",
    "halves": "Scheres S.H.W., Chen S. (2012). Prevention of overfitting in cryo-EM structure determination. "
    "Nature Methods 9, 853-854.",
    "FSC": "Rosenthal P.B., Henderson R. (2003). Optimal determination of particle orientation, absolute hand, and contrast "
    "loss in single-particle electron cryomicroscopy. Journal of Molecular Biology 333, 721-745.",
    "RELION": "Scheres S.H.W. (2012). RELION: implementation of a Bayesian approach to cryo-EM structure determination. "
    "Journal of Structural Biology 180, 519-530.",
}
"""What is cited, by what it is cited for."""
STEPS = {"merge": "merges", "split": "splits", "unassign": "removals", "new cluster": "selections by hand"}
STEPS |= {"discover": "discoveries", "send back": "returns of particles"}
"""What the descriptions of steps begin with, and what they are counted as."""


def text(found: RunContents) -> str:
    """The paragraph, and after an empty line the references, one a line; empty for a folder without particles."""
    if found.table is None:
        return ""
    cited: list[str] = []
    sentences = [*_particles(found), *_features(found, cited), *_clusters(found.session), *_averages(found.averages, cited)]
    seeds = sorted({str(stage["seed"]) for stage in found.stages.values() if stage.get("seed") is not None})
    sentences.append(f"All of it was done with tomolab {_version(found)}" + (f" (seed {', '.join(seeds)})." if seeds else "."))
    references = "\n".join(REFERENCES[one] for one in dict.fromkeys(cited))
    return " ".join(sentences) + (f"\n\n{references}" if references else "")


def _given(found: RunContents, name: str) -> Any:
    """A parameter of the latest stage that has it; None if no stage has."""
    values = [(stage.get("parameters") or {}).get(name) for stage in found.stages.values()]
    return next((value for value in reversed(values) if value is not None), None)


def _particles(found: RunContents) -> list[str]:
    assert found.table is not None
    counts = {step.title: step.count for step in found.steps}
    place = counted(found.table["tomogram"].nunique(), "tomograms")
    diameter = _given(found, "diameter")
    wide = f" of about {diameter:g} Å" if isinstance(diameter, int | float) else ""
    ranges = found.table[["tilt_min", "tilt_max"]].drop_duplicates()
    tilts = f" (tilts from {ranges['tilt_min'].min():g}° to {ranges['tilt_max'].max():g}°)"
    listed = "were picked" if _given(found, "picked") else "were taken from a list"
    first = counts.get("picked", len(found.table))
    sentences = [f"{counted(first)}{wide} {listed} in {place}{tilts}."]
    if found.boxes is not None:
        box, voxel = found.boxes.box, found.boxes.voxel_size
        cut = "all of them" if len(found.boxes) == first else f"{len(found.boxes):,} of them"
        sentences.append(f"Subtomograms of {box}³ voxels of {voxel:g} Å were extracted around {cut}.")
    return sentences


def _features(found: RunContents, cited: list[str]) -> list[str]:
    if found.features is None:
        return []
    network, numbers = _given(found, "network"), found.features.vectors.shape[1]
    sentence = f"Each subtomogram has {numbers} features"
    if found.features.network:
        cited.append("features")
        name = f" {network!r}" if isinstance(network, str) else ""
        sentence = f"A convolutional network{name} gave {numbers} features for each subtomogram, following Xu et al. (2017)"
    if found.points is None:
        return [f"{sentence}."]
    cited.append("map")
    return [f"{sentence}; UMAP (McInnes et al. 2018) laid them out in two dimensions for inspection."]


def _clusters(session: Session | None) -> list[str]:
    if session is None or not session.clusters:
        return []
    counts = session.counts()
    steps = [*(what for what, _, _ in session.history.older), *(step.what for step in session.history.past)]
    done = Counter(name for what in steps for begin, name in STEPS.items() if what.startswith(begin))
    by = ", ".join(counted(number, name) for name, number in done.items())
    inspected = f", after inspection ({by})," if by else ""
    named = [f"{session.title(one)} ({counts[one]:,})" for one, cluster in session.clusters.items() if cluster.name]
    names = f", among them {', '.join(named)}" if named else ""
    inside = f"{counts.sum():,} of {counted(len(session.ids))}"
    return [f"The features were clustered; {inside}{inspected} are in {counted(len(counts), 'clusters')}{names}."]


def _averages(averages: Mapping[str, Average], cited: list[str]) -> list[str]:
    shown = {name: one for name, one in averages.items() if not one.record.get("quick")}
    if not shown:
        return []
    cited += ["halves", "FSC", *("RELION" for one in shown.values() if one.record.get("program") == "RELION")]
    head = "Subtomograms were averaged in two halves that share no particle (Scheres and Chen 2012). The resolution is where "
    sentences = [head + "their Fourier shell correlation falls to 0.143 (Rosenthal and Henderson 2003)."]
    for name, average in shown.items():
        record = average.record
        start = run_contents.average_start(record)
        facts = [f"{counted(len(average.particles))}", f"symmetry {record.get('symmetry', 'C1')}"]
        facts += [f"in a mask of {record['mask']:.0f} Å"] if "mask" in record else []
        facts += ["by RELION (Scheres 2012)"] if record.get("program") == "RELION" else []
        facts += [f"started from {start}" if start else "without a reference"]
        reached = f"{average.resolution:.1f} Å" if average.reliable else f"{average.resolution:.1f} Å, which is not reliable"
        sentences.append(f"{name}: {', '.join(facts)}; {reached}.")
    return sentences


def _version(found: RunContents) -> str:
    """The versions that made the folder; that of today where none is recorded."""
    machines = [stage.get("machine") or {} for stage in found.stages.values()]
    known = {str(one["tomolab"]) for one in machines if one.get("tomolab")}
    return ", ".join(sorted(known, key=lambda one: [int(part) for part in re.findall(r"\d+", one)])) or __version__
