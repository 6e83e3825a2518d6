"""STAR files: in come their tables, out come coordinates, angles and names as RELION, Warp and M mean them.

`parsing` takes files apart; `coordinates` and `pixel_sizes` say where particles are; `relion`, `relion_sets` and `relion_boxes`
make particle tables of RELION's lists, and lists of particle tables.
"""

from tomolab.io.lists.star.coordinates import (
    CENTRED,
    CONSUMED,
    EULER,
    M_POSES,
    OLD_ORIGINS,
    OPTICS,
    ORIGINS,
    SUBTOMOGRAM_EULER,
    UNITS,
    VERSIONS,
    Shape,
    check_voxel_size,
    geometry,
    joined,
)
from tomolab.io.lists.star.parsing import (
    MISSING,
    WIDEST,
    blocks,
    numbers,
    parsed,
    text,
    typed,
)
from tomolab.io.lists.star.pixel_sizes import (
    GROUP,
    PIXELS,
    TILT_SERIES,
)
from tomolab.io.lists.tomogram_names import (
    Tilts,
    each,
    listed_for,
    match_names,
    tilts_of,
)

__all__ = [
    "CENTRED",
    "CONSUMED",
    "EULER",
    "GROUP",
    "MISSING",
    "M_POSES",
    "OLD_ORIGINS",
    "OPTICS",
    "ORIGINS",
    "PIXELS",
    "SUBTOMOGRAM_EULER",
    "TILT_SERIES",
    "UNITS",
    "VERSIONS",
    "WIDEST",
    "Shape",
    "Tilts",
    "blocks",
    "check_voxel_size",
    "each",
    "geometry",
    "joined",
    "listed_for",
    "match_names",
    "numbers",
    "parsed",
    "text",
    "tilts_of",
    "typed",
]
