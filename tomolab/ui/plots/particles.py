"""Takes a tomogram and particles, or densities, draws circles in a slice, or shaded surfaces, as matplotlib Figures.

>>> picks(tomogram, particles, diameter=250, colour=labels)
>>> surface({"found": average.volume, "truth": density})
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from tomolab import particles
from tomolab import volumes as densities
from tomolab.conventions import centre
from tomolab.simulation.specimen import Specimen
from tomolab.ui import images, style, surfaces
from tomolab.ui.style import styled
from tomolab.volumes import Volume


@styled
def picks(
    volume: Volume,
    table: pd.DataFrame,
    *,
    diameter: float,
    z: float | None = None,
    colour: pd.Series | None = None,
    low_pass: float | None = None,
    width: float = 6.0,
) -> Figure:
    """Slice of a tomogram with the outlines of the particles that it cuts.

    Parameters
    ----------
    volume
        The tomogram.
    table
        Particle table of this tomogram.
    diameter
        Of a particle, in Å; the slice cuts a sphere of this diameter in a circle.
    z
        Height of the slice in Å; by default the one that cuts most particles.
    colour
        Category of each particle, such as its cluster, indexed by particle id.
    low_pass
        Show only detail coarser than this, in Å.
    width
        Width of the figure in inches.

    Raises
    ------
    ValueError
        If z is outside the volume, or a particle has no colour.
    """
    positions, radius = particles.positions(table), diameter / 2
    height = _busiest(positions[:, 0], radius, volume) if z is None else float(z)
    index = round(height / volume.voxel_size)
    if not 0 <= index < volume.shape[0]:
        raise ValueError(f"z = {height:g} Å is outside the volume, which is {volume.extent[0]:g} Å high")
    shown = volume if low_pass is None else densities.low_pass(volume, low_pass)
    image = shown.data[max(0, index - 1) : index + 2].mean(axis=0)
    aspect = volume.shape[1] / volume.shape[2]
    figure = Figure((width + (1.2 if colour is not None else 0.4), width * aspect + 0.5), layout="constrained")
    ax = figure.subplots()
    images.show(ax, image, volume.voxel_size, **images.limits(image))
    off = np.abs(positions[:, 0] - height)
    cut = off < radius
    widths = 2 * np.sqrt(np.maximum(radius**2 - off**2, 0))
    values = (
        pd.Series("", index=table["particle_id"])
        if colour is None
        else style.aligned(colour, table["particle_id"].to_numpy(), name="colour")
    )
    names, palette = (values.to_numpy(), {"": style.OKABE_ITO[1]}) if colour is None else style.to_categorical(values)
    for name, strong in palette.items():
        ink = style.lighter(strong)
        these = cut & (names == name)
        outline = {"units": "xy", "offsets": positions[these][:, [2, 1]], "transOffset": ax.transData}
        ax.add_collection(
            EllipseCollection(widths[these], widths[these], 0, facecolor="none", edgecolor=ink, linewidth=1.4, **outline)
        )
        ax.plot([], [], "o", markerfacecolor="none", color=strong, label=style.label(f"{name}  ({these.sum()})"))
    if colour is not None:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title=colour.name, alignment="left", handlelength=1.2)
    images.scale_bar(ax, share=0.2)
    ax.set(title=f"{int(cut.sum())} of {len(table)} particles at z = {height:.0f} Å", xlabel="x (Å)", ylabel="y (Å)")
    ax.spines[:].set_visible(False)
    return figure


@styled
def specimen(model: Specimen, *, z: float | None = None, size: float = 4.0) -> Figure:
    """A slice of a specimen: its clean density, and beside it what every voxel belongs to.

    Parameters
    ----------
    model
        Specimen.
    z
        Height of the slice in Å; the middle by default.
    size
        Width of a panel in inches.

    Raises
    ------
    ValueError
        If z is outside the specimen.
    """
    volume = model.density
    layer = centre(volume.shape[0]) if z is None else round(z / volume.voxel_size)
    if not 0 <= layer < volume.shape[0]:
        raise ValueError(f"z = {z:g} Å is outside the specimen, which is {volume.extent[0]:g} Å high")
    figure = Figure((2 * size + 1.6, 0.3 + size * volume.shape[1] / volume.shape[2]), layout="constrained")
    left, right = figure.subplots(1, 2)
    # Contrast without gold, which would leave the rest of the picture black.
    images.show(left, volume.data[layer], volume.voxel_size, **images.limits(volume.data[layer], 0.5, 99.5))
    palette = style.categories(model.names)
    colours = np.array([to_rgb("white"), *(to_rgb(palette[name]) for name in model.names)])
    images.show(right, colours[model.labels[layer]], volume.voxel_size, interpolation="nearest")
    numbers = model.particles["label"].value_counts()
    for name in model.names:
        right.plot(
            [], [], "s", color=palette[name], label=style.label(f"{name}  ({numbers[name]})" if name in numbers else name)
        )
    right.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.2)
    for ax, title in ((left, "density"), (right, "truth")):
        ax.set_title(title)
        ax.axis("off")
    images.scale_bar(left)
    return figure


def _busiest(heights: np.ndarray, radius: float, volume: Volume) -> float:
    """Height of the slice that cuts most particles."""
    levels = np.arange(volume.shape[0]) * volume.voxel_size
    if len(heights) == 0:
        return float(levels[len(levels) // 2])
    ordered = np.sort(heights)
    counts = np.searchsorted(ordered, levels + radius) - np.searchsorted(ordered, levels - radius)
    # Of equal slices, the middle one.
    best = np.flatnonzero(counts == counts.max())
    return float(levels[best[len(best) // 2]])


@styled
def surface(
    volumes: Volume | Mapping[str, Volume],
    *,
    threshold: float | Mapping[str, float] | None = None,
    colours: Mapping[str, str] | None = None,
    columns: int = 5,
    size: float = 1.9,
) -> Figure:
    """Shaded isosurfaces: one volume from front, side and top, or several with their names, all to one scale.

    Parameters
    ----------
    volumes
        A cubic volume, or volumes by name.
    threshold
        Grey value of the isosurface, for all or by name; by default that of `surfaces.level`.
    colours
        By name; one blue by default.
    columns
        Panels per row.
    size
        Edge of a panel in inches.

    Raises
    ------
    ValueError
        If a volume is not cubic, or a threshold is outside its grey values.
    """
    named = images.named(volumes)
    views = surfaces.VIEWS if isinstance(volumes, Volume) else {"front": surfaces.VIEWS["front"]}
    figure, axes = style.grid(len(named) * len(views), columns, size=size, extra=0.25)
    panels = [(name, volume, turn) for name, volume in named.items() for turn in views.items()]
    given = {name: threshold.get(name) if isinstance(threshold, Mapping) else threshold for name in named}
    cuts = {name: surfaces.level(volume, given[name]) for name, volume in named.items()}
    reach = max(_reach(volume, cuts[name]) for name, volume in named.items())
    for ax, (name, volume, (view, rotation)) in zip(axes, panels, strict=True):
        near = densities.fit(volume, 2 * int(np.ceil(reach / volume.voxel_size)) + 3)
        ink = (colours or {}).get(name, "#8fb4d9")
        picture = surfaces.shade(near, threshold=cuts[name], colour=ink, rotation=None if view == "front" else rotation)
        half = near.extent[0] / 2
        ax.imshow(picture, extent=(-half, half, half, -half), interpolation="bilinear")
        ax.set_title(name or view, loc="center")
        ax.set(xlim=(-1.08 * reach, 1.08 * reach), ylim=(1.08 * reach, -1.08 * reach))
    images.scale_bar(axes[0], dark=True)
    return figure


def _reach(volume: Volume, cut: float) -> float:
    """Greatest distance in Å, along an axis, between the centre and a voxel above the threshold."""
    inside = np.argwhere(volume.data > cut)
    middle = np.array([centre(n) for n in volume.shape])
    return float(np.abs(inside - middle).max(initial=1) + 1) * volume.voxel_size
