"""Takes a large tomogram, gives it with coarser copies, so that a viewer loads only the level that it shows.

>>> image = viewer.add_image(levels(volume.data), multiscale=True)
"""

import numpy as np

from tomolab.volumes import block_mean

LARGEST = 2**26
"""Maximum number of voxels of a single-scale image.

In 3-D all of the volume lies in the memory of the graphics card, as float32: 64 million voxels are 256 MB, which also the
graphics of a laptop holds; a whole tomogram at 10 Å (1000 x 1440 x 250) would be 1.4 GB.
"""


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
