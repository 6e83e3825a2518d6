"""Takes a structure and a catalogue of maps in the same box; gives the rotations, shifts and correlations of the best fits.

All maps and their mirror images are searched at once, as data, with the structure as the reference: every rotation and shift
with coarse detail, and then the orientations and the maps that fit best with all detail. Every Fourier shell has the weight
that is asked for, whatever its power.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tomolab import volumes
from tomolab.averaging import alignment, coefficients
from tomolab.averaging.alignment import Poses
from tomolab.averaging.coefficients import Coefficients
from tomolab.averaging.identification.catalogue import Catalogue, centred
from tomolab.averaging.reconstruction import shell_index
from tomolab.volumes import Volume, apply_mask

SAME = 0.8
"""Least correlation of two maps of one structure. Models of one complex from different sources reach 0.85 to 0.99."""
SAME_RESOLUTION = 40.0
"""Å to which two maps of the catalogue are compared to decide whether they are of one structure."""
MIN_MAPS = 4
"""Maps of different structures, at least, from which it is estimated how well others fit."""
SAMPLES = 16
"""Maps of a catalogue, at most, whose nearest other map is searched for that estimate."""
CANDIDATES = 24
"""Maps that are aligned with all detail: those that fit best with coarse detail."""
COARSE_RADIUS, MIN_SHELLS = 5, 3
"""Finest shell of the search over all rotations; least number of shells that are compared."""
COARSE_POSES, FINE_POSES = 10, 4
"""Orientations of each map that are refined with coarse, and with all detail."""


@dataclass(frozen=True, eq=False)
class Library:
    """The k maps of a catalogue and then their mirror images, in one box.

    `densities` (2k, box, box, box), masked; `data` their coefficients, each shell with mean power 1, or 0 beyond the `last` one
    (2k,) that the map resolves; `numbers` (shells + 1,) of points; `chance` what `nearest_others` found, by its argument.
    """

    densities: Tensor
    data: Coefficients
    last: Tensor
    numbers: Tensor
    voxel_size: float
    chance: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, catalogue: Catalogue, like: Volume) -> "Library":
        """The maps of a catalogue in the box and voxel size of `like`; kept with the catalogue."""
        key = (round(like.voxel_size, 4), like.shape[0])
        if key not in catalogue.prepared:
            catalogue.prepared[key] = cls._make(catalogue, like)
        return catalogue.prepared[key]

    @classmethod
    def _make(cls, catalogue: Catalogue, like: Volume) -> "Library":
        box = like.shape[0]
        cut = [centred(volumes.resample(one, like.voxel_size), box) for one in catalogue.maps.values()]
        masked = [apply_mask(torch.from_numpy(one.data), 0.95 * box) for one in cut]
        mirrored = [torch.from_numpy(volumes.mirror(Volume(one.numpy(), like.voxel_size)).data) for one in masked]
        densities = torch.stack([*masked, *mirrored])
        data, shell = _coefficients(densities, last_shell(box))
        numbers = torch.bincount(shell).float()
        power = _shell_sums(data.values.abs().square(), shell) / numbers.clamp_min(1)
        values = data.values / power.sqrt().clamp_min(1e-20)[:, shell]
        last = (like.extent[0] / catalogue.table["resolution"].to_numpy() + 1e-3).astype(int).clip(MIN_SHELLS, last_shell(box))
        limits = torch.from_numpy(np.tile(last, 2))
        data = replace(data, values=values * (shell <= limits[:, None]))
        return cls(densities, data, limits, numbers, like.voxel_size)

    def correlations(self, curves: Tensor, expected: Tensor, rows: Tensor | None = None) -> Tensor:
        """Correlation (r,) of maps with a structure, from their correlation in every shell, (r, shells + 1)."""
        weight = (self.numbers[: len(expected)] * expected).expand(len(curves), -1)
        if rows is not None:
            weight = weight * (torch.arange(len(expected)) <= self.last[rows][:, None])
        return (weight * curves).sum(1) / (weight * expected).sum(1)

    def nearest_others(self, shells: int) -> Tensor:
        """Shell correlations (q, shells + 1) of maps of the catalogue, each with the nearest map of another structure."""
        if shells not in self.chance:
            count = len(self.densities) // 2
            some = np.random.default_rng(0).permutation(count)[:SAMPLES]
            curves = [one for row in some for one in self._nearest_other(int(row), shells)]
            if len(curves) < MIN_MAPS:
                raise ValueError(
                    f"maps of at least {MIN_MAPS} different structures are needed, to show how well other structures fit; "
                    f"the catalogue has {count} maps, and {len(curves)} of {len(some)} differ from all others"
                )
            self.chance[shells] = torch.stack(curves)
        return self.chance[shells]

    def _nearest_other(self, row: int, shells: int) -> list[Tensor]:
        """Shell correlations with the nearest map of another structure; none if all likely maps are of the same."""
        finest = int(self.data.box * self.voxel_size / SAME_RESOLUTION + 1e-3)
        full = max(MIN_SHELLS, min(last_shell(self.data.box), finest))
        bands = [expected_correlations(one) for one in dict.fromkeys((shells, full))]
        found = search(self.densities[row], self, bands)
        count = len(self.densities) // 2
        same = set((found[-1].rows[found[-1].correlation >= SAME] % count).tolist()) | {row}
        others = [i for i, one in enumerate((found[0].rows % count).tolist()) if one not in same]
        if not others:
            return []
        return [found[0].curves[others[int(found[0].correlation[others].argmax())]]]


@dataclass(frozen=True, eq=False)
class Fits:
    """Fits of r maps to a structure.

    `rows` (r,) of the library; `turns` (r, 3, 3) and `shifts` (r, 3) in voxels, which bring the structure onto the map;
    `curves` (r, shells + 1), the correlation in every shell; `correlation` (r,), over all of them.
    """

    rows: Tensor
    turns: Tensor
    shifts: Tensor
    curves: Tensor
    correlation: Tensor

    def curves_of(self, density: Tensor, library: Library) -> Tensor:
        """Correlations of a masked density with the maps in every shell, in these poses."""
        data = _take(library, self.rows, self.curves.shape[1] - 1)
        return _shell_correlations(coefficients.oversample(density), data, self.turns, self.shifts)


def search(density: Tensor, library: Library, bands: Sequence[Tensor]) -> list[Fits]:
    """Fit the most likely maps, in both hands, to a masked density, with several sets of expected correlations by shell."""
    count, longest = len(library.densities) // 2, max(len(one) for one in bands) - 1
    values, shell = _coefficients(density[None], longest)
    power = _shell_sums(values.values[0].abs().square(), shell) / torch.bincount(shell).clamp_min(1)
    scale = float(power.sum().sqrt())
    grids, power = coefficients.gradient_grids(density / scale), power / scale**2
    radius = min(COARSE_RADIUS, *(len(one) - 1 for one in bands))
    box = library.data.box

    def scaled(rows: Tensor, expected: Tensor) -> tuple[Coefficients, dict[str, Any]]:
        # With the spectrum of the structure, and its power as that of the noise, every shell has the weight that is expected.
        data = _take(library, rows, len(expected) - 1)
        here = shell[: len(data.points)]
        noise = (power / torch.nn.functional.pad(expected, (0, len(power) - len(expected)), value=1.0))[here]
        return replace(data, values=data.values * power.sqrt()[here]), {"noise": noise, "shift_sigma_voxels": 1e6}

    everything = torch.arange(2 * count)
    coarse, options = scaled(everything, torch.ones(radius + 1))
    shifts = alignment.shift_grid(box / 10, box / radius / 4)
    turns = alignment.uniform_rotations(4000)
    poses = alignment.exhaustive_search(grids[0], coarse, turns=turns, shifts=shifts, keep=COARSE_POSES, **options)
    curves = _shell_correlations(grids[0], coarse, poses.rotations[:, 0], poses.shifts[:, 0])
    likely = library.correlations(curves, torch.ones(radius + 1), everything).reshape(2, count).amax(0)
    best = likely.topk(min(CANDIDATES, count)).indices
    rows = torch.cat([best, best + count])
    coarse, options = scaled(rows, torch.ones(radius + 1))
    poses = alignment.refine_poses(grids, coarse, poses.take(rows), steps=5, **options).best(FINE_POSES)
    found = []
    for expected in bands:
        data, options = scaled(rows, expected)
        fine: Poses = alignment.refine_poses(grids, data, poses, steps=6, **options)
        turns, shifts = fine.rotations[:, 0], fine.shifts[:, 0]
        curves = _shell_correlations(grids[0], data, turns, shifts)
        found.append(Fits(rows, turns, shifts, curves, library.correlations(curves, expected, rows)))
    return found


def expected_correlations(shells: int) -> Tensor:
    """The expected correlation where no FSC is given: it falls as that of a typical average."""
    return torch.linspace(1.0, 0.6, shells + 1)


def last_shell(box: int) -> int:
    """The finest shell that is complete."""
    return (box - 1) // 2


def _coefficients(densities: Tensor, radius: int) -> tuple[Coefficients, Tensor]:
    """Coefficients of masked densities (n, box, box, box) up to a radius in cycles per box, and the shell of each."""
    whole = torch.full((len(densities),), -90.0), torch.full((len(densities),), 90.0)
    data = coefficients.transform(densities, *whole, radius_cycles=radius)
    return data, shell_index(data)


def _take(library: Library, rows: Tensor, shells: int) -> Coefficients:
    return library.data.inside(shells).take(rows)


def _shell_sums(values: Tensor, shell: Tensor) -> Tensor:
    """Sums of values (..., m) over the shells, from shell 0."""
    out = torch.zeros(*values.shape[:-1], int(shell.max()) + 1)
    return out.index_add_(-1, shell, values)


def _shell_correlations(grid: Tensor, data: Coefficients, turns: Tensor, shifts: Tensor) -> Tensor:
    """Correlation (r, shells + 1) of the map behind a grid, in the pose of each row of the data, with this row."""
    shell = shell_index(data)
    model = coefficients.in_pose(grid, turns, shifts, points=data.points, box=data.box)
    power = _shell_sums(model.abs().square(), shell) * _shell_sums(data.values.abs().square(), shell)
    return _shell_sums((model * data.values.conj()).real, shell) / power.sqrt().clamp_min(1e-20)
