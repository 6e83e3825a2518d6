"""Å per pixel of the coordinates in a STAR file: what its columns say of tilt series, micrographs and images, weighed.

====================================  =========================================================================================
rlnTomoTiltSeriesPixelSize            tilt images, unbinned; coordinates of RELION 4 count these pixels (``particle_set.cpp``)
rlnMicrographPixelSize                micrographs or tomograms; coordinates of RELION 3.1 count these pixels. Extraction takes
                                      the column out (``preprocessing.cpp``)
rlnMicrographOriginalPixelSize        movies, before they were binned
rlnImagePixelSize, rlnPixelSize, and  images that were cut out. RELION may have rescaled them while coordinates stayed; Warp
rlnDetectorPixelSize (µm) over        writes coordinates in these pixels (``ExportParticlesTiltseries.cs``)
rlnMagnification
====================================  =========================================================================================

WarpTools wrote rlnTomoTiltSeriesPixelSize of the unbinned images into lists of 2-D stacks until July 2026, though coordinates
count pixels of the stacks; since then both columns are alike. Names of images tell that Warp cut them, and at which pixel size:
``TS_1_4.00A_000001.mrcs`` or ``TS_1_0000001_4.00A.mrc``. Where nothing tells, a ValueError asks for ``voxel_size=``.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tomolab.io.lists.options import MissingOptionError
from tomolab.io.lists.star.columns import (
    BINNING,
    DETECTOR,
    DIMENSIONS,
    GROUP,
    IMAGE,
    IMAGE_NAME,
    MAGNIFICATION,
    MICROGRAPH,
    ORIGINAL,
    PIXELS,
    REFERENCE,
    SIZES,
    STACKS,
    TILT_SERIES,
    TOMOGRAM,
)
from tomolab.io.lists.star.parsing import floats, numbers
from tomolab.io.lists.tomogram_names import listed_for
from tomolab.io.volumes.mrc import TOLERANCE

SCORE = "rlnAutopickFigureOfMerit"
TOMOSTAR = ".tomostar"
"""Ending of the names of tomograms that Warp writes."""
WARP_STACK, WARP_VOLUME = r"_(\d+\.\d\d)A_\d{6,}\.mrcs$", r"_\d{7,}_(\d+\.\d\d)A\.mrc$"
RELION_IMAGE = r"_(?:stack2d|data)\.mrcs?$"
"""Names of images of RELION 4 and 5 (``subtomo.cpp``)."""
SAME = 1e-3
"""Relative difference up to which two columns of a file state one pixel size."""
ROUNDING = 0.00501
"""Å by which a pixel size with two decimals may be off."""
OURS, OTHERS, UNSURE = "tomolab", "another program", "one of both"
AS_OURS = "10000.0"
"""Magnification as tomolab writes it; RELION, which changes the pixel size of rescaled images, writes six decimals."""
MARGIN = 0.05
"""Part of a tomogram by which a position may lie outside."""
FRACTIONS = (-0.1, 1.1)
"""Fractions of a tomogram; an optimised position may lie a little outside."""


@dataclass(frozen=True)
class FileSizes:
    """Pixel sizes (n,) in Å that the file states for each row, NaN where it states none.

    ``stated`` are those of tilt series or micrographs, by the column ``source``; ``images`` are those of the images.
    """

    rows: pd.DataFrame
    names: pd.Series
    stated: np.ndarray
    source: str
    images: np.ndarray

    @property
    def differ(self) -> np.ndarray:
        """Rows whose images have another pixel size than what is stated."""
        return np.abs(self.stated / self.images - 1) > SAME


def of_coordinates(
    rows: pd.DataFrame, names: pd.Series, *, voxel_size: float | None, listed: pd.DataFrame | None
) -> np.ndarray:
    """Å per pixel of the coordinates of each row, (n, 1), with parameters as of `coordinates.geometry`.

    Raises
    ------
    ValueError
        If the size is not known or not clear, is not a positive number, or the files contradict `voxel_size` or each
        other.
    """
    stated, source = _stated(rows, names, listed)
    file = FileSizes(rows, names, stated, source, _images(rows))
    named = _named(file)
    exported = _exported(file, named)
    found = np.where(np.isnan(exported), _plain(file), exported)
    if not _has_ours(rows):
        found = np.where(np.isnan(exported) & ~np.isnan(named), np.nan, found)
    unsure = np.isnan(found)
    if voxel_size is not None:
        _check_given(file, exported, found, voxel_size)
        return np.full((len(rows), 1), voxel_size)
    if unsure.any():
        raise _question(file, unsure)
    if (found <= 0).any():
        raise ValueError(
            f"pixel sizes must be positive numbers, got {found[found <= 0][0]:g} in row {int(np.argmax(found <= 0))}"
        )
    if listed is not None and file.differ.any():
        _check_inside(file, found, listed)
    return found[:, None]


def of_images(rows: pd.DataFrame) -> np.ndarray | None:
    """Å per pixel of the images of the particles, (n,), NaN where the columns hold no number; None where there are none."""
    sizes = [floats(rows[name]) for name in (IMAGE, REFERENCE) if name in rows]
    with np.errstate(divide="ignore", invalid="ignore"):
        if {DETECTOR, MAGNIFICATION} <= set(rows):
            # Detector pixels are µm.
            sizes.append(floats(rows[DETECTOR]) * 1e4 / floats(rows[MAGNIFICATION]))
        if {TILT_SERIES, BINNING} <= set(rows):
            sizes.append(floats(rows[TILT_SERIES]) * floats(rows[BINNING]))
    if not sizes:
        return None
    out = np.full(len(rows), np.nan)
    for size in sizes:
        out = np.where(np.isnan(out) & np.isfinite(size), size, out)
    return out


def contradict(rows: pd.DataFrame) -> bool:
    """Whether a row has another pixel size of its images than of its tilt series."""
    return TILT_SERIES in rows and bool((np.abs(floats(rows[TILT_SERIES]) / _images(rows) - 1) > SAME).any())


def are_fractions(rows: pd.DataFrame, names: pd.Series, unit: str | None) -> bool:
    """Whether coordinates count from 0 to 1 through the tomogram, as in lists of Warp's template matching.

    Raises
    ------
    ValueError
        If it is not clear, or `unit` says so and coordinates are none.
    """
    if unit is not None and unit != "fraction":
        return False
    values = numbers(rows, PIXELS)
    fit = bool(((values >= FRACTIONS[0]) & (values <= FRACTIONS[1])).all())
    if unit == "fraction":
        if not fit:
            raise ValueError(f'unit="fraction" says 0 to 1, but coordinates reach from {values.min():g} to {values.max():g}')
        return True
    if not len(values) or not fit or (values == np.round(values)).all() or _has_ours(rows):
        return False
    marked = SCORE in rows and bool(names.astype(str).str.endswith(TOMOSTAR).all())
    sized = bool(set(SIZES) & set(rows))
    if marked == sized:
        raise ValueError(
            f"all coordinates lie from {values.min():g} to {values.max():g}: it is not clear whether they are voxels, or "
            'fractions of the tomogram as Warp\'s template matching writes them; give unit="voxel" or unit="fraction"'
        )
    return marked


def _stated(rows: pd.DataFrame, names: pd.Series, listed: pd.DataFrame | None) -> tuple[np.ndarray, str]:
    """Pixel size (n,) of the tilt series or micrographs, NaN where there is none, and what says so."""
    source = next((name for name in (TILT_SERIES, MICROGRAPH) if name in rows), "")
    sizes = numbers(rows, [source])[:, 0] if source else np.full(len(rows), np.nan)
    if listed is None or TOMOGRAM not in rows:
        return sizes, source
    stated = listed_for(listed, names)["pixel_size"].to_numpy()
    _check_equal(sizes, stated, f"{source} is {{sizes}} Å, but that of the list of tomograms is {{other}}")
    return stated, f"{TILT_SERIES} of the list of tomograms"


def _images(rows: pd.DataFrame) -> np.ndarray:
    """Pixel size of the images (n,), NaN where the file does not say it."""
    found = of_images(rows)
    return np.full(len(rows), np.nan) if found is None else found


def _named(file: FileSizes) -> np.ndarray:
    """Pixel size (n,) that names of images state as Warp writes them, NaN where they do not."""
    rows = file.rows
    nothing = np.full(len(rows), np.nan)
    if IMAGE_NAME not in rows:
        return nothing
    stacks = floats(rows[IMAGE_NAME].str.extract(WARP_STACK)[0])
    volumes = floats(rows[IMAGE_NAME].str.extract(WARP_VOLUME)[0])
    if GROUP in rows and not np.isnan(file.stated).all():
        # Warp writes volumes without optics groups; a list that has such names and groups was written by another program.
        volumes = nothing
    if not np.isnan(stacks).all() and (file.source == MICROGRAPH or _writer(file) != OTHERS):
        stacks = nothing
    return np.where(np.isnan(stacks), volumes, stacks)


def _exported(file: FileSizes, named: np.ndarray) -> np.ndarray:
    """Pixel size (n,) of the columns that fits the names of images, NaN where none does."""
    rows = file.rows
    out = np.full(len(rows), np.nan)
    detector = pd.DataFrame({name: rows[name] for name in (DETECTOR, MAGNIFICATION) if name in rows}, index=rows.index)
    columns = [floats(rows[name]) for name in (IMAGE, REFERENCE) if name in rows]
    for size in (*columns, _images(detector), file.images, file.stated):
        out = np.where(np.isnan(out) & (np.abs(size - named) < ROUNDING), size, out)
    return out


def _plain(file: FileSizes) -> np.ndarray:
    """Pixel size (n,) by columns alone, NaN where that is not clear."""
    cut = np.where(_may_be_rescaled(file), np.nan, file.images)
    if file.source == MICROGRAPH:
        return file.stated
    return np.where(np.isnan(file.stated), cut, np.where(file.differ, _of_two(file), file.stated))


def _of_two(file: FileSizes) -> np.ndarray:
    """Pixel size (n,) where images have another one than the tilt series: RELION counts the latter, Warp the former."""
    writer = _writer(file)
    rows = file.rows
    nothing = np.full(len(rows), np.nan)
    dimensions = floats(rows[DIMENSIONS]) if DIMENSIONS in rows else nothing
    if STACKS in rows:
        dimensions = np.where(rows[STACKS].astype(str).str.fullmatch("1|[Tt]rue"), 2, dimensions)
    tomostar = file.names.astype(str).str.endswith(TOMOSTAR).to_numpy()
    images = rows[IMAGE_NAME].astype(str) if IMAGE_NAME in rows else pd.Series("", index=rows.index)
    relion = images.str.contains(RELION_IMAGE).to_numpy() | (writer == OURS)
    # An image of a name by Warp comes here if tomolab or Warp wrote the list, and nobody knows which.
    strange = images.str.contains(WARP_STACK.replace("(", "(?:")).to_numpy()
    stacks, doubt = dimensions == 2, np.isnan(dimensions) & tomostar
    by_writer = nothing if writer == UNSURE else file.images
    return np.select(
        [relion, strange | doubt | (stacks & ~tomostar), stacks], [file.stated, nothing, by_writer], default=file.stated
    )


def _may_be_rescaled(file: FileSizes) -> np.ndarray:
    """Rows that name images of which nothing says whether they have the pixel size of the coordinates."""
    rows = file.rows
    if IMAGE_NAME not in rows or (_has_ours(rows) and MAGNIFICATION in rows and (rows[MAGNIFICATION] == AS_OURS).all()):
        return np.zeros(len(rows), dtype=bool)
    named = ~rows[IMAGE_NAME].astype(str).str.lower().isin(["none", "nan", "<na>", ""]).to_numpy()
    if ORIGINAL in rows:
        named &= ~(np.abs(floats(rows[ORIGINAL]) / file.images - 1) <= SAME)
    if GROUP not in rows:
        # RELION gives no tomogram such a name, and Warp writes one pixel size for all.
        named &= ~file.names.astype(str).str.endswith(TOMOSTAR).to_numpy()
    return named


def _has_ours(rows: pd.DataFrame) -> bool:
    return any(str(name).startswith("tomolab") for name in rows)


def _writer(file: FileSizes) -> str:
    """Whether tomolab wrote the list: Warp passes our columns on, and writes coordinates with three decimals."""
    rows = file.rows
    if not _has_ours(rows) or {DETECTOR, MAGNIFICATION} <= set(rows) or {TILT_SERIES, MICROGRAPH} <= set(rows):
        return OTHERS
    thousands = numbers(rows, PIXELS) * 1000
    return OURS if (np.abs(thousands - np.round(thousands)) > 1e-3).any() else UNSURE


def _check_given(file: FileSizes, exported: np.ndarray, found: np.ndarray, voxel_size: float) -> None:
    """Refuse a voxel size that contradicts the file; the pixel size of images alone says nothing against it.

    Where columns state two sizes and Warp may have written the list, either is taken.
    """
    two = file.differ & ~(np.abs(found / file.stated - 1) <= SAME)
    near = np.abs(np.array([file.images, file.stated]) / voxel_size - 1) <= TOLERANCE
    if (two & ~near.any(axis=0)).any():
        raise ValueError(
            f"{file.source} is {_sizes(file.stated[two])} Å, and images have {_sizes(file.images[two])} Å, but "
            f"voxel_size={voxel_size:g} was given"
        )
    against = two & ~np.isnan(found) & (np.abs(found / voxel_size - 1) > TOLERANCE)
    if against.any():
        warnings.warn(
            f"the list looks as if Warp wrote it, with coordinates in pixels of {_sizes(found[against])} Å; "
            f"voxel_size={voxel_size:g} is taken, as it was given",
            stacklevel=2,
        )
    message = f"the pixel size by which Warp named images is {{sizes}} Å, but voxel_size={voxel_size:g} was given"
    _check_equal(np.where(two, np.nan, exported), np.array(voxel_size), message)
    message = f"{file.source} is {{sizes}} Å, but voxel_size={voxel_size:g} was given"
    _check_equal(np.where(two | np.isnan(file.stated), np.nan, found), np.array(voxel_size), message)


def _check_equal(sizes: np.ndarray, other: np.ndarray, message: str) -> None:
    """Refuse sizes that differ, with a message that has places for both; NaN says nothing."""
    wrong = np.abs(sizes / other - 1) > TOLERANCE
    if wrong.any():
        raise ValueError(message.format(sizes=_sizes(sizes), other=_sizes(np.broadcast_to(other, sizes.shape)[wrong])))


def _sizes(sizes: np.ndarray) -> str:
    return ", ".join(f"{size:g}" for size in np.unique(sizes[np.isfinite(sizes)]))


def _question(file: FileSizes, unsure: np.ndarray) -> ValueError:
    rows = file.rows
    ask = "give voxel_size=, Å per pixel of the coordinates"
    images, stated = file.images[unsure], file.stated[unsure]
    if np.isfinite(stated).any():
        others = f"{_sizes(images)} Å" if np.isfinite(images).any() else "of another size by their names"
        return ValueError(
            f"it is not clear which pixels coordinates count: those of the tilt series ({file.source}, {_sizes(stated)} Å) "
            f"as in RELION, or those of the images ({others}) as in Warp; {ask}"
        )
    if not np.isfinite(images).any():
        message = "the file does not say the pixel size of its coordinates; give voxel_size= or tomogram_list="
        return MissingOptionError(message, "voxel_size")
    original = f"; {ORIGINAL} is that of movies before binning" if ORIGINAL in rows else ""
    return ValueError(
        "the file does not say the pixel size of its coordinates: they count pixels of the tomogram or micrograph, and only "
        f"that of images which were cut from it, and may have been rescaled, is there ({_sizes(images)} Å){original}; {ask}"
    )


def _check_inside(file: FileSizes, found: np.ndarray, listed: pd.DataFrame) -> None:
    """Refuse positions outside of their tomograms where two pixel sizes were there to choose from."""
    if not set("zyx") <= set(listed) or TOMOGRAM not in file.rows:
        return
    there = listed_for(listed, file.names)
    extents = there[["z", "y", "x"]].to_numpy() * there[["pixel_size"]].to_numpy()
    positions = numbers(file.rows, PIXELS) * found[:, None]
    outside = ((positions < -MARGIN * extents) | (positions > (1 + MARGIN) * extents)).any(axis=1) & file.differ
    if outside.any():
        raise ValueError(
            f"{outside.sum()} of {len(found)} particles would lie outside of their tomograms if coordinates counted pixels of "
            f"{_sizes(found[outside])} Å, first row {int(np.argmax(outside))}; {file.source} is {_sizes(file.stated)} Å, and "
            f"images have {_sizes(file.images)} Å; give voxel_size=, Å per pixel of the coordinates"
        )
