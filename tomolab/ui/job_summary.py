"""Takes a job or an average, gives what to say of it, how much is done, slices as PNG and a curve as SVG."""

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


def told(job: Job) -> str:
    """What to say of a job."""
    if job.state == "waiting":
        return "waits for the jobs before it"
    if job.state == "failed":
        return repr(job).partition("failed: ")[2][:-1]
    outcome = _outcome(job)
    if outcome is None:
        return job.state if job.over or job.progress is None else f"{'stopping: ' * (job.state == 'stopping')}{job.progress}"
    said = repr(outcome)
    if isinstance(outcome, Average):
        said = found(outcome)
    elif isinstance(outcome, dict):
        said = "; ".join(found(one) for one in outcome.values())
    return f"{'stopped; ' * (job.state == 'stopped')}{said}, {job.seconds:.0f} s"


def found(average: Average) -> str:
    """What to say of an average."""
    belief = "" if average.believable else ": do not believe it"
    return f"{len(average.particles)} particles, halves agree to {average.resolution:.0f} Å{belief}"


def share(progress: Any) -> float:
    """How much is done, from 0 to 1, as far as the work tells `iteration` and `of` how many."""
    return progress.iteration / progress.of if getattr(progress, "of", 0) else 0.0


def shown(job: Job) -> Volume | None:
    """The final average, the last where there are several by name, or else the one so far, if the work tells any."""
    return getattr(_last(job), "volume", None)


def fsc(job: Job) -> pd.DataFrame | None:
    """Table of the Fourier shell correlation that goes with what is `shown`, if the work tells any."""
    return getattr(_last(job), "fsc", None)


def curve(table: pd.DataFrame | None, side: int) -> str:
    """A Fourier shell correlation over spatial frequency as a small drawing (SVG), with 0.143 dashed; empty without one."""
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
    """The result, the last where there are several by name, or what was told last."""
    outcome = _outcome(job)
    if isinstance(outcome, dict):
        outcome = next(reversed(outcome.values()), None)
    return job.progress if outcome is None else outcome


def _outcome(job: Job) -> Any:
    """The result of a job that has one."""
    if job.state == "done" or (job.state == "stopped" and job.seconds):
        return job.result()
    return None
