"""Takes a job or an average, gives its summary: a text, the share done, slices as PNG and the FSC curve as SVG."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from tomolab.averaging.fsc import THRESHOLD
from tomolab.averaging.half_maps import Average
from tomolab.jobs import Job
from tomolab.ui import images, style
from tomolab.volumes import Volume

EVERY = 0.25
"""Seconds between two pictures, so that a fast job does not flood the browser."""
SIDE = 96
"""Pixels of a slice."""
COLOURS = {"done": style.OKABE_ITO[2], "failed": style.OKABE_ITO[5], "stopped": style.OKABE_ITO[1]}


def job_text(job: Job) -> str:
    """State of a job in words, with its progress or result."""
    if job.state == "waiting":
        return "waits for the jobs before it"
    if job.state == "failed":
        return repr(job).partition("failed: ")[2][:-1]
    outcome = _outcome(job)
    if outcome is None:
        return job.state if job.over or job.progress is None else f"{'stopping: ' * (job.state == 'stopping')}{job.progress}"
    text = repr(outcome)
    if isinstance(outcome, Average):
        text = average_text(outcome)
    elif isinstance(outcome, dict):
        text = "; ".join(average_text(one) for one in outcome.values())
    return f"{'stopped; ' * (job.state == 'stopped')}{text}, {job.seconds:.0f} s"


def average_text(average: Average) -> str:
    """Number of particles and resolution of an average, in words."""
    belief = "" if average.believable else ": do not believe it"
    return f"{len(average.particles)} particles, halves agree to {average.resolution:.0f} Å{belief}"


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
    low, high = grey["vmin"], grey["vmax"]
    scale = SIDE / volume.shape[0]
    # Cubic, so that a running average of a dozen voxels is seen as a density and not as tiles.
    large = [np.clip(ndimage.zoom(cut, scale, order=3, mode="nearest"), low, high) for cut in cuts]
    gap = np.full((len(large[0]), 4), np.nan)
    return images.png(np.hstack([large[0], gap, large[1], gap, large[2]]), vmin=low, vmax=high)


def _last(job: Job) -> Any:
    """The result (the last of several), or else the latest progress."""
    outcome = _outcome(job)
    if isinstance(outcome, dict):
        outcome = next(reversed(outcome.values()), None)
    return job.progress if outcome is None else outcome


def _outcome(job: Job) -> Any:
    """The result of a job; None if it has none."""
    if job.state == "done" or (job.state == "stopped" and job.seconds):
        return job.result()
    return None
