"""Takes tomograms, particles and averages, adds them to a napari viewer as image, points and surface layers in Å.

A viewer is a `model()`, which needs neither Qt nor a display, or a window from `open()`. The camera looks along z with x right
and y down, which keeps the hand; napari's default shows (z, y, x) arrays mirrored.

>>> view = open()
>>> tomogram(view, volume, particles, colour=labels, diameter=250)
>>> averages(view, {"cluster 0": average.volume})
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba_array

from tomolab import io, particles
from tomolab.ui import require, style, surfaces
from tomolab.ui.napari.display_check import display_problem as display_problem
from tomolab.volumes import Volume, block_mean

if TYPE_CHECKING:
    from napari import Viewer
    from napari.components import ViewerModel
    from napari.layers import Image, Points, Surface

PARTICLES = "particles"
"""Name of the points layer."""
TOMOGRAM = "tomogram"
"""Name of the image layer."""
UNITS = ("angstrom",) * 3
BORDER = 0.05
"""Width of the outline of a particle, as a share of its diameter."""
LARGEST = 2**26
"""Maximum number of voxels of a single-scale image.

In 3-D all of the volume lies in the memory of the graphics card, as float32: 64 million voxels are 256 MB, which also the
graphics of a laptop holds; a whole tomogram at 10 Å (1000 x 1440 x 250) would be 1.4 GB.
"""


def model() -> "ViewerModel":
    """Create an empty viewer without a window."""
    require("napari", by="a viewer")
    from napari.components import ViewerModel

    return ViewerModel(title="tomolab")


def open(*, show: bool = True) -> "Viewer":  # noqa: A001 - reads viewer.open
    """Open a napari window.

    Parameters
    ----------
    show
        Show it at once.

    Raises
    ------
    ModuleNotFoundError
        If napari is not installed; the message says how to install it.
    RuntimeError
        If there is no display; the message says what to do.
    """
    problem = display_problem()
    if problem:
        raise RuntimeError(
            f"napari cannot open a window: {problem}. On a machine without a screen run Jupyter under a virtual display "
            '(xvfb-run -a -s "-screen 0 1400x900x24" jupyter lab), over ssh use a remote desktop such as VNC (X forwarding '
            "shows nothing), or stay in the notebook: tomolab.ui.plots needs no display"
        )
    napari = require("napari", by="a viewer")
    return napari.Viewer(title="tomolab", show=show)


def tomogram(
    viewer: "ViewerModel",
    volume: Volume,
    table: pd.DataFrame,
    *,
    diameter: float,
    colour: pd.Series | None = None,
) -> tuple["Image", "Points"]:
    """Add a tomogram and its particles.

    Parameters
    ----------
    viewer
        From `open` or `model`.
    volume
        The tomogram, bright on dark.
    table
        Particle table of this tomogram; its columns become the features of the points.
    diameter
        Of a particle, in Å.
    colour
        Category of each particle, such as its cluster, indexed by particle id, in the palette of the figures. Missing ones are
        grey.

    Returns
    -------
    tuple
        The image layer "tomogram" and the points layer "particles".

    Raises
    ------
    ValueError
        If a particle has no colour or the table is not a particle table.
    """
    points, inks = _coloured(particles.check(table), colour)
    image = density(viewer, volume)
    return image, spheres(viewer, points, diameter=diameter, inks=inks)


def _coloured(table: pd.DataFrame, colour: pd.Series | None) -> tuple[pd.DataFrame, np.ndarray]:
    """The table with the categories as a column, and the colour of every particle."""
    if colour is None:
        return table, np.tile(to_rgba_array(style.lighter(style.OKABE_ITO[1])), (len(table), 1))
    values = style.aligned(colour, table["particle_id"].to_numpy(), name="colour")
    categories, palette = style.to_categorical(values)
    inks = to_rgba_array([style.lighter(ink, 0.2) for ink in palette.values()])[categories.codes]
    return table.assign(**{str(colour.name or "colour"): values.to_numpy()}), inks


def density(
    viewer: "ViewerModel", volume: Volume, *, name: str = TOMOGRAM, metadata: Mapping[str, Any] | None = None
) -> "Image":
    """Add a tomogram, in several resolutions if it is large (`levels`).

    Parameters
    ----------
    viewer
        From `open` or `model`.
    volume
        Bright on dark.
    name, metadata
        Of the layer.
    """
    # At most 64 slices: percentiles of a large tomogram would take seconds.
    sample = volume.data[:: max(1, volume.shape[0] // 64)]
    low, high = np.percentile(sample, [1, 99.8]).tolist()
    found = levels(volume.data)
    return viewer.add_image(
        found if len(found) > 1 else volume.data,
        multiscale=len(found) > 1,
        name=_layer_name(name),
        metadata=dict(metadata or {}),
        scale=[volume.voxel_size] * 3,
        units=UNITS,
        colormap="gray",
        contrast_limits=(low, max(high, low + 1e-6)),
        interpolation2d="linear",
        projection_mode="none",
    )


def levels(data: np.ndarray, *, largest: int = LARGEST) -> list[np.ndarray]:
    """The data, and copies of half, a quarter, ... of its resolution until one has no more than `largest` voxels.

    Parameters
    ----------
    data
        Grey values (z, y, x).
    largest
        Maximum number of voxels of the coarsest level.

    Returns
    -------
    list
        Arrays from fine to coarse, the first one `data` itself; every voxel is the mean of eight of the level before. An odd
        last plane is averaged with itself.

    Raises
    ------
    ValueError
        If `largest` is not positive.
    """
    if largest < 1:
        raise ValueError(f"the coarsest level must be allowed at least one voxel, got {largest}")
    found = [data]
    while found[-1].size > largest:
        found.append(_half(found[-1]))
    return found


def _half(data: np.ndarray) -> np.ndarray:
    """Mean of blocks of 2 x 2 x 2, in slabs so that no copy of the whole is needed."""
    out = np.empty(tuple(-(-n // 2) for n in data.shape), dtype=np.float32)
    for z in range(len(out)):
        slab = data[2 * z : 2 * z + 2]
        out[z] = block_mean(np.pad(slab, [(0, n % 2) for n in slab.shape], mode="edge"), 2)[0]
    return out


def spheres(
    viewer: "ViewerModel", table: pd.DataFrame, *, diameter: float, inks: np.ndarray, name: str = PARTICLES
) -> "Points":
    """Add particles as spheres, which show as circles in a slice of the tomogram.

    Parameters
    ----------
    viewer
        From `open` or `model`.
    table
        Particle table; its columns become the features of the points.
    diameter
        Of a particle, in Å.
    inks
        Colour (n, 4) of every particle, 0 to 1.
    name
        Of the layer.
    """
    points = viewer.add_points(
        particles.positions(table),
        name=_layer_name(name),
        features=table.reset_index(drop=True),
        size=diameter,
        face_color=faces(inks),
        border_color=inks,
        border_width=BORDER,
        units=UNITS,
        projection_mode="rescale_spherical",
    )
    arrange(viewer, diameter)
    return points


def faces(inks: np.ndarray) -> np.ndarray:
    """Fill colours for outline colours (n, 4): mostly transparent, so that the tomogram shows through."""
    return inks * [1, 1, 1, 0.18]


def arrange(viewer: "ViewerModel", diameter: float = 0.0) -> None:
    """Set the camera along z with the hand kept, a scale bar, and a slice as thick as a particle (`diameter` in Å)."""
    if diameter:
        # Half a particle on both sides of the slice, so that it shows every particle that it cuts.
        viewer.dims.margin_left = viewer.dims.margin_right = (diameter / 2, 0.0, 0.0)
    viewer.scene.camera.orientation = ("away", "down", "right")
    viewer.canvas.overlays.scale_bar.visible = True
    viewer.canvas.overlays.scale_bar.colored = False


def averages(
    viewer: "ViewerModel",
    volumes: Mapping[str, Volume],
    *,
    at: Mapping[str, pd.DataFrame] | None = None,
    colours: Mapping[str, str] | None = None,
) -> list["Surface"]:
    """Add densities as surfaces, side by side or at every particle in its orientation.

    Parameters
    ----------
    viewer
        From `open` or `model`.
    volumes
        Cubic densities by name, such as the averages of clusters.
    at
        Particle table by name: a copy of the density at each particle, in its orientation. By default side by side along x,
        unrotated.
    colours
        By name; the palette of the figures, in order, by default.

    Returns
    -------
    list
        A surface layer per density, with its name.

    Raises
    ------
    ValueError
        If a name in `at` is not among the densities.
    """
    unknown = sorted(set(at or {}) - set(volumes))
    if unknown:
        raise ValueError(f"there is no density called {', '.join(unknown)}; there are {', '.join(volumes)}")
    inks = dict(zip(volumes, style.colours(len(volumes)), strict=True)) | dict(colours or {})
    layers, edge = [], 0.0
    for name, volume in volumes.items():
        vertices, faces, _ = surfaces.mesh(volume, detail=2 if at is None else 1)
        vertices = vertices - surfaces.middle(volume)
        if at is None:
            vertices[:, 2] += edge - vertices[:, 2].min()
            edge = vertices[:, 2].max() + 0.15 * volume.extent[2]
        elif name in at:
            vertices, faces = _placed(vertices, faces, at[name])
        else:
            continue
        layers.append(_surface(viewer, vertices, faces, name=name, ink=style.lighter(inks[name], 0.2)))
    arrange(viewer)
    return layers


def plane(viewer: "ViewerModel", *, z: float | None = None) -> None:
    """Show one slice of the tomogram in 3-D with the surfaces around it; hide the particles.

    Parameters
    ----------
    viewer
        A viewer with a tomogram (`tomogram`).
    z
        Position of the slice in Å; the middle by default.

    Raises
    ------
    ValueError
        If there is no tomogram in the viewer, or it does not reach `z`.
    """
    if TOMOGRAM not in viewer.layers:
        raise ValueError(f"there is no layer {TOMOGRAM!r} in the viewer; it has {[layer.name for layer in viewer.layers]}")
    image = viewer.layers[TOMOGRAM]
    shape = image.data.shape
    at = shape[0] // 2 if z is None else z / image.scale[0]
    if not 0 <= at < shape[0]:
        raise ValueError(f"the tomogram reaches from 0 to {(shape[0] - 1) * image.scale[0]:g} Å in z, not to {z:g} Å")
    # napari shows the coarsest resolution in 3-D; the plane is in its voxels.
    shown = np.array(image.data[-1].shape if image.multiscale else shape) / shape
    viewer.dims.ndisplay = 3
    image.depiction = "plane"
    image.plane.position = tuple(np.array([at, shape[1] / 2, shape[2] / 2]) * shown)
    image.plane.normal = (1, 0, 0)
    if PARTICLES in viewer.layers:
        viewer.layers[PARTICLES].visible = False


def _placed(vertices: np.ndarray, faces: np.ndarray, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Copy a mesh to every particle: a vertex r of the reference lies at p + R r."""
    turned = np.einsum("pij,vj->pvi", particles.matrices(table), vertices) + particles.positions(table)[:, None]
    offsets = np.arange(len(table))[:, None, None] * len(vertices)
    return turned.reshape(-1, 3), (faces[None] + offsets).reshape(-1, 3)


def _layer_name(name: str) -> str:
    """A name without the mark that lets napari's list of layers take it for HTML in its tooltips."""
    return name.replace("<", "‹")


def _surface(viewer: "ViewerModel", vertices: np.ndarray, faces: np.ndarray, *, name: str, ink: str) -> "Surface":
    # napari lights a scene from behind when its depth points away. Mirroring the data along z and back by the scale turns
    # the normals it computes, and so the light, without moving anything.
    mirror = np.array([-1, 1, 1])
    data = ((vertices * mirror).astype(np.float32), faces, np.ones(len(vertices), dtype=np.float32))
    layer = viewer.add_surface(
        data, name=_layer_name(name), scale=mirror, contrast_limits=(0, 1), shading="smooth", units=UNITS
    )
    paint(layer, ink)
    return layer


def paint(layer: "Surface", ink: str) -> None:
    """Give a surface one colour: a name or "#rrggbb"."""
    from napari.utils import Colormap

    layer.colormap = Colormap(to_rgba_array([ink, ink]), name=f"plain {ink}")


def screenshot(viewer: "ViewerModel", path: str | Path) -> Path:
    """Write the canvas of the viewer as a PNG; return the path.

    Parameters
    ----------
    viewer
        From `open`.
    path
        The PNG file.

    Raises
    ------
    ValueError
        If the viewer has no window.
    """
    if not hasattr(viewer, "screenshot"):
        raise ValueError(
            "a viewer without a window shows nothing: use napari.open_viewer(), or the figures of tomolab.ui.plots"
        )
    with io.atomic(path) as temporary:
        viewer.screenshot(str(temporary), canvas_only=True, flash=False)
    return Path(path)
