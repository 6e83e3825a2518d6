"""Takes an inspection, gives a picture of it with a word on how to open it, for a notebook that has no kernel."""

import base64

import numpy as np
from matplotlib.figure import Figure

from tomolab.inspection.model import Inspection
from tomolab.ui import style

MOST = 20_000
"""Maximum number of particles to draw."""
# Of the two outputs of the cell only one is shown: the widgets, or where they are not there this picture.
SHEET = """<style>
.jp-OutputArea-child:has(+ .jp-OutputArea-child .tomolab-inspector) .tomolab-picture { display: none; }
.jp-OutputArea-child:has(.tomolab-picture) + .jp-OutputArea-child:not(:has(.tomolab-inspector)) { display: none; }
</style>"""


def picture(inspection: Inspection) -> str:
    """The map, or else the tomogram from above, in the colours of the particles, with the clusters, as HTML."""
    session = inspection.session
    content, size = style.png(_drawn(inspection), sharpness=1)
    source = base64.b64encode(content).decode()
    about = "The inspector, as it was when this cell ran. Run the cell to open it: every step is saved in the run folder."
    counts = session.counts()
    inks = style.inks(session.clusters)
    names = [f"{style.span('■', inks[one])} {style.span(session.title(one), 'inherit')}: {counts[one]:,}" for one in inks]
    text = " &ensp; ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")
    image = f"<img alt='Map of the particles' width='{size['width']}' src='data:image/png;base64,{source}'>"
    return f"{SHEET}<div class='tomolab-picture'><p><i>{about}</i></p>{image}<p>{text}</p></div>"


def _drawn(inspection: Inspection) -> Figure:
    session = inspection.session
    rows = np.flatnonzero(session.visible)
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST, replace=False))
    table = session.particles if inspection.points is None else inspection.points
    places = table[["x", "y"]].to_numpy(dtype=float)[rows]
    figure = Figure((6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    inks = style.particle_inks(session, inspection.colour_by)[rows]
    axes.scatter(places[:, 0], places[:, 1], s=float(np.clip(4000 / max(1, len(rows)), 1, 30)), c=inks)
    axes.axis("off")
    return figure
