"""Takes a job or an average, gives its summary: a text, the share done, pictures of the present maps and the FSC curve."""

import base64
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from tomolab.averaging.classification.discovery import Discovery
from tomolab.averaging.fsc import THRESHOLD
from tomolab.averaging.half_maps import Average
from tomolab.inspection.discovery import DiscoveryProgress, DiscoveryResult
from tomolab.inspection.history import counted
from tomolab.jobs import Job
from tomolab.ui import images, style
from tomolab.volumes import Volume

EVERY = 0.25
"""Seconds between two pictures, so that a fast job does not flood the browser."""
SIDE = 96
"""Pixels of a slice."""
STRUCTURE = 40
"""Pixels of the slice of a structure while it forms."""
COLOURS = {"done": style.OKABE_ITO[2], "failed": style.ERROR, "stopped": style.OKABE_ITO[1]}
WORDS = {"mask_diameter": "the mask", "max_shift": "the shift"}
"""What screens call the options of an average."""


def job_text(job: Job) -> str:
    """State of a job in words, with its progress or result."""
    if job.state == "waiting":
        return "waits for the jobs before it"
    if job.state == "failed":
        return f"failed: {_reason(job.error)}"
    outcome = _outcome(job)
    if outcome is None:
        return job.state if job.over or job.progress is None else f"{'stopping: ' * (job.state == 'stopping')}{job.progress}"
    text = repr(outcome)
    if isinstance(outcome, Average):
        text = average_text(outcome)
    elif isinstance(outcome, dict | DiscoveryResult):
        text = "; ".join([*([] if isinstance(outcome, dict) else [str(outcome)]), *map(average_text, _averages(outcome))])
    return f"{'stopped; ' * (job.state == 'stopped')}{text}, {job.seconds:.0f} s"


def _reason(error: BaseException | None) -> str:
    """An error in the words of the screens."""
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return "not enough memory: end other programs, or take fewer particles or a smaller mask"
    for name, words in WORDS.items():
        text = text.replace(name, words)
    return text if isinstance(error, ValueError | RuntimeError | OSError) and text else f"{type(error).__name__} {text}".strip()


def average_text(average: Average) -> str:
    """Number of particles and resolution of an average, in words."""
    doubt = "" if average.reliable else " (not reliable)"
    return f"{counted(len(average.particles))}, halves agree to {average.resolution:.0f} Å{doubt}"


def share(progress: Any) -> float:
    """Share done, from 0 to 1; 0 if the progress has no `iteration` and `of`."""
    return progress.iteration / progress.of if getattr(progress, "of", 0) else 0.0


def shown(job: Job) -> Volume | None:
    """The result, or the average so far; the last of several; None if there is none."""
    return getattr(_last(job), "volume", None)


def fsc(job: Job) -> pd.DataFrame | None:
    """Fourier shell correlation table of the volume of `shown`, if there is one."""
    return getattr(_last(job), "fsc", None)


def curve(table: pd.DataFrame | None, side: int) -> str:
    """Fourier shell correlation over spatial frequency as SVG, with a dashed line at 0.143; empty without a table."""
    if table is None:
        return ""
    table = table[np.isfinite(table["resolution"])]
    across = side * table["resolution"].min() / table["resolution"].to_numpy()
    down = side * (1 - table["fsc"].clip(0, 1).to_numpy())
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
    low = f"{(1 - THRESHOLD) * side:.1f}"
    line = f"<line x1='0' x2='{side}' y1='{low}' y2='{low}' stroke='{style.QUIET}' stroke-dasharray='3 3'/>"
    drawn = f"<polyline points='{points}' fill='none' stroke='{style.OKABE_ITO[0]}' stroke-width='2'/>"
    frame = f"width='{side}' height='{side}' style='border-left:1px solid {style.QUIET};border-bottom:1px solid {style.QUIET}'"
    finest = f"{table['resolution'].min():.0f} Å"
    return f"<svg {frame}><title>Fourier shell correlation, 0 to 1, down to {finest}; dashed 0.143</title>{line}{drawn}</svg>"


def picture(volume: Volume) -> bytes:
    """PNG of central slices across z, y and x, in one range of grey."""
    cuts, grey = images.central(volume)
    large = [_enlarged(cut, SIDE, grey) for cut in cuts]
    gap = np.full((len(large[0]), 4), np.nan)
    return images.png(np.hstack([large[0], gap, large[1], gap, large[2]]), **grey)


def structures(progress: Any) -> str:
    """Central slice and number of particles of each structure of a discovery, as HTML; empty for other progress."""
    return _structures(progress.found) if isinstance(progress, DiscoveryProgress) else ""


@lru_cache(maxsize=1)
def _structures(found: Discovery) -> str:
    # Drawn once: a job reports more often than its structures change, and to every screen.
    counts = found.labels.value_counts()
    pictures = []
    for number, volume in enumerate(found.volumes):
        cuts, grey = images.central(volume)
        address = base64.b64encode(images.png(_enlarged(cuts[0], STRUCTURE, grey), **grey)).decode()
        image = f"<img style='display:inline; vertical-align:middle' src='data:image/png;base64,{address}' width='{STRUCTURE}'>"
        pictures.append(f"{image}&nbsp;{counts.get(number, 0):,}")
    return " &ensp; ".join(pictures)


def _enlarged(cut: np.ndarray, side: int, grey: dict[str, float]) -> np.ndarray:
    # Cubic, so that a running average of a dozen voxels is seen as a density and not as tiles.
    return np.clip(ndimage.zoom(cut, side / len(cut), order=3, mode="nearest"), grey["vmin"], grey["vmax"])


def _averages(outcome: Any) -> list[Average]:
    return list((outcome.averages if isinstance(outcome, DiscoveryResult) else outcome).values())


def _last(job: Job) -> Any:
    """The result (the last of several), or else the latest progress."""
    outcome = _outcome(job)
    if isinstance(outcome, dict | DiscoveryResult):
        outcome = next(reversed(_averages(outcome)), None)
    return job.progress if outcome is None else outcome


def _outcome(job: Job) -> Any:
    """The result of a job; None if it has none."""
    if job.state == "done" or (job.state == "stopped" and job.seconds):
        return job.result()
    return None
