"""Densities in, boxes out: each holds a complex in a random pose, perhaps with neighbours and a membrane beside it.

What is rendered here is clean density; `tomolab.simulation.microscope` then images it. Boxes are cubes with the particle near
the middle. Poses and radii are in voxels; membranes, which are added as density, in Å from the middle of the box.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from tomolab import fourier, rotations
from tomolab.conventions import centre
from tomolab.simulation import membranes
from tomolab.simulation.imaging import Imaging
from tomolab.volumes import Volume, distance, fit

BATCH = 64
"""Particles rendered at a time."""
VOXELS = 2**19
"""Voxels worked on at a time on a CPU, so that they stay in its cache."""
EMPTY = 1e-4
"""Share of the squared density of a complex that is left out beyond its reach, so that less needs to be sampled."""
BENDING = (300.0, 10_000.0)
"""Å, radii of curvature of the membranes: from small vesicles to the border of a cell."""


@dataclass(frozen=True)
class Shelf:
    """Complexes of about one size, as fine maps one after the other along z, with an empty border around each.

    `data` (kinds * depth + 1, depth, depth) has half the voxel size; `edge` voxels hold any of them in any pose.
    """

    data: Tensor
    depth: int
    edge: int


@dataclass(frozen=True)
class Sources:
    """Densities ready to be rendered.

    `data` (classes, 2n, 2n, 2n) has half the voxel size, so that trilinear sampling is accurate; `radii` (classes,) in
    voxels of `voxel_size` enclose 95 % of the density. `shelves` hold the same maps without the empty space about them:
    class i is number `slot[i]` on shelf `shelf[i]`.
    """

    names: tuple[str, ...]
    data: Tensor
    radii: Tensor
    voxel_size: float
    shelves: tuple[Shelf, ...]
    shelf: Tensor
    slot: Tensor


@dataclass(frozen=True)
class MembranePatches:
    """Pieces of membrane: the boxes `owner` (m,) they lie in; `normal` (m, 3) from the middle of the box towards each, `away`
    (m,) Å of it along the normal, and `bend` (m,) Å, radius of curvature, positive where the membrane curves away.
    """

    owner: Tensor
    normal: Tensor
    away: Tensor
    bend: Tensor

    def per_box(self, count: int) -> tuple[Tensor, Tensor]:
        """Normal (count, 3) and distance (count,) of the membrane of every box; endlessly far where there is none."""
        normal = torch.zeros(count, 3, device=self.normal.device)
        away = torch.full((count,), torch.inf, device=self.normal.device)
        normal[self.owner], away[self.owner] = self.normal, self.away
        return normal, away


def check(densities: Mapping[str, Volume]) -> float:
    """The one voxel size (Å) of all densities; ValueError if there is no density or they differ."""
    sizes = sorted({round(volume.voxel_size, 4) for volume in densities.values()})
    if not sizes:
        raise ValueError("simulation needs at least one density, got none")
    if len(sizes) > 1:
        raise ValueError(f"all densities must have one voxel size, got {sizes} Å")
    return sizes[0]


def prepare(densities: Mapping[str, Volume], device: torch.device) -> Sources:
    """Stack checked maps at half their voxel size on a device."""
    voxel_size = check(densities)
    edge = max(max(volume.shape) for volume in densities.values())
    edge += edge % 2
    maps = torch.stack([torch.from_numpy(fit(volume, edge).data) for volume in densities.values()])
    fine = fourier.resize(maps.to(device), (2 * edge,) * 3)
    shelves, shelf, slot = _shelves(fine, _reach(maps))
    return Sources(tuple(densities), fine, _radii(maps).to(device), voxel_size, shelves, shelf.to(device), slot.to(device))


def _radii(maps: Tensor) -> Tensor:
    """Radius in voxels, shape (n,), of the centred sphere that holds 95 % of each map's positive density."""
    away = distance(maps.shape[-1]).flatten()
    order = away.argsort()
    mass = maps.clamp_min(0).flatten(1)[:, order].cumsum(1)
    reached = (mass < 0.95 * mass[:, -1:]).sum(1)
    return away[order][reached.clamp_max(len(order) - 1)]


def _reach(maps: Tensor) -> Tensor:
    """Radius in whole voxels, shape (n,), of the centred sphere with all but `EMPTY` of the power of each map."""
    away = distance(maps.shape[-1]).ceil().int()
    power = torch.stack([torch.bincount(away.flatten(), weights=part) for part in maps.flatten(1).square()])
    return (power.cumsum(1) < (1 - EMPTY) * power.sum(1, keepdim=True)).sum(1) + 1


def _shelves(fine: Tensor, reach: Tensor) -> tuple[tuple[Shelf, ...], Tensor, Tensor]:
    """Sort fine maps by size, in steps of two voxels, and cut off what is empty."""
    sizes, shelf = ((reach + 1) // 2 * 2).unique(return_inverse=True)
    slot = torch.zeros_like(shelf)
    shelves = []
    for number, size in enumerate(sizes.tolist()):
        here = (shelf == number).nonzero()[:, 0]
        slot[here] = torch.arange(len(here))
        depth = 4 * size + 3
        # One empty layer more, to look one layer on from the last.
        part = torch.zeros(len(here) * depth + 1, depth, depth, device=fine.device)
        inner = min(depth - 2, fine.shape[-1])
        source, place = (slice(n // 2 - inner // 2, n // 2 - inner // 2 + inner) for n in (fine.shape[-1], depth))
        maps = part[:-1].view(len(here), depth, depth, depth)
        maps[:, place, place, place] = fine[here.to(fine.device), source, source, source]
        shelves.append(Shelf(part, depth, 2 * size + 2))
    return tuple(shelves), shelf, slot


def _sample(shelf: Shelf, slots: Tensor, *, rotations: Tensor, places: Tensor, corners: Tensor, edge: int) -> Tensor:
    """Windows (n, edge, edge, edge) that begin at voxels `corners` (n, 3), with complexes of one shelf at `places` (n, 3)."""
    steps = torch.arange(edge, device=slots.device)
    # A voxel w shows the source at 2 R^T (w - place) from its centre.
    turn = 2 * rotations.transpose(1, 2)
    start = (turn @ (corners - places)[..., None])[..., 0] + shelf.depth // 2
    lines = torch.cat([turn, start[..., None]], dim=-1)
    return (_bilinear if slots.device.type == "cpu" else _trilinear)(shelf, lines, slots * shelf.depth, steps)


def _spread(lines: Tensor, steps: Tensor) -> Tensor:
    """Values (n, c, e, e, e) of linear functions on a grid of `steps` (e,) from their slopes and offset, (n, c, 4)."""
    z, y, x = (lines[:, :, i, None] * steps for i in range(3))
    return (lines[:, :, 3, None] + z)[..., None, None] + (y[..., None] + x[:, :, None])[:, :, None]


def _trilinear(shelf: Shelf, lines: Tensor, first: Tensor, steps: Tensor) -> Tensor:
    """Values (n, e, e, e) of the maps that begin at layers `first` (n,) of a shelf.

    They are read at places in the maps that change linearly over the grid of `steps` (e,): slopes and offset, (n, 3, 4), zyx.
    """
    at = _spread(lines, steps)
    # Beyond its own border a map is empty; along z another one would follow.
    at[:, 0] = at[:, 0].clamp(0, shelf.depth - 1) + first[:, None, None, None]
    size = torch.tensor(shelf.data.shape, device=at.device)[:, None, None, None]
    grid = (at * (2 / (size - 1)) - 1).flip(1).permute(0, 2, 3, 4, 1)
    maps = shelf.data.expand(len(at), 1, -1, -1, -1)
    return grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=True)[:, 0]


def _bilinear(shelf: Shelf, lines: Tensor, first: Tensor, steps: Tensor) -> Tensor:
    """The same as `_trilinear` in a quarter of the time on a CPU: torch has vector instructions for two dimensions only.

    All layers stand one below the other in one tall image, and a second channel shows it one layer on.
    """
    n, edge, depth = len(lines), len(steps), shelf.depth
    rows = (len(shelf.data) - 1) * depth
    row, column = 2 / (rows - 1), 2 / (depth - 1)
    # In the order z, x, y, with x and y counted as torch does, from -1 to 1, the last two channels become the places to read.
    lines = lines[:, [0, 2, 1]] * lines.new_tensor([1.0, column, row])[:, None]
    lines[:, 1, 3] -= 1
    at = _spread(lines, steps)
    layer, y = at[:, 0].clamp_(0, depth - 1), at[:, 2].clamp_(0, (depth - 1) * row)
    share = layer.frac()
    y.add_(layer.sub_(share), alpha=depth * row).add_((first * (depth * row) - 1)[:, None, None, None])
    image = shelf.data.as_strided((n, 2, rows, depth), (0, depth * depth, depth, 1))
    places = at[:, 1:].reshape(n, 2, edge, edge * edge).permute(0, 2, 3, 1)
    pair = grid_sample(image, places, mode="bilinear", padding_mode="zeros", align_corners=True).reshape(n, 2, edge, edge, edge)
    return torch.lerp(pair[:, 0], pair[:, 1], share)


def add(volumes: Tensor, sources: Sources, kinds: Tensor, *, owner: Tensor, rotations: Tensor, places: Tensor) -> None:
    """Add complexes to cubic boxes, in place.

    Parameters
    ----------
    volumes
        Boxes (b, box, box, box).
    sources
        The complexes.
    kinds, owner
        Class of each of n complexes, and its box; shape (n,).
    rotations, places
        Poses (n, 3, 3) and (n, 3): zyx, in voxels from the centre of the box.
    """
    box = volumes.shape[-1]
    middle = places + centre(box)
    for number, shelf in enumerate(sources.shelves):
        edge = min(shelf.edge, box)
        near = (places.abs() < box / 2 + shelf.edge / 2).all(-1)
        rows = ((sources.shelf[kinds] == number) & near).nonzero()[:, 0]
        step = max(1, VOXELS // edge**3) if volumes.device.type == "cpu" else len(kinds)
        for part in (rows[start : start + step] for start in range(0, len(rows), step)):
            corners = (middle[part].round().long() - edge // 2).clamp(0, box - edge)
            slots = sources.slot[kinds[part]]
            windows = _sample(shelf, slots, rotations=rotations[part], places=middle[part], corners=corners, edge=edge)
            _put(volumes, windows, owner[part], corners)


def _put(volumes: Tensor, windows: Tensor, owner: Tensor, corners: Tensor) -> None:
    edge, box = windows.shape[-1], volumes.shape[-1]
    if volumes.device.type == "cpu":
        for window, box_of, (z, y, x) in zip(windows, owner.tolist(), corners.tolist(), strict=True):
            volumes[box_of, z : z + edge, y : y + edge, x : x + edge] += window
        return
    steps = torch.arange(edge, device=volumes.device)
    inside = (steps[:, None, None] * box + steps[:, None]) * box + steps
    first = ((owner * box + corners[:, 0]) * box + corners[:, 1]) * box + corners[:, 2]
    volumes.view(-1).index_add_(0, (first[:, None] + inside.flatten()).flatten(), windows.flatten())


def draw_patches(share: float, *, places: Tensor, radii: Tensor, gap: float, generator: torch.Generator) -> MembranePatches:
    """Draw membranes beside some of n particles, in any direction.

    Parameters
    ----------
    share
        Probability of a membrane, 0 to 1.
    places, radii
        Where the particles are, (n, 3), and how far they reach, (n,), in Å.
    gap
        Å, largest space between particle and membrane, drawn uniformly from 0.
    generator
        Source of all that is drawn.
    """
    device = generator.device
    if share == 0:
        empty = torch.zeros(0, device=device)
        return MembranePatches(empty.long(), empty.reshape(0, 3), empty, empty)
    owner = (torch.rand(len(places), generator=generator, device=device) < share).nonzero()[:, 0]
    normal = torch.nn.functional.normalize(torch.randn(len(owner), 3, generator=generator, device=device), dim=-1)
    space, bend, side = torch.rand(3, len(owner), generator=generator, device=device)
    apart = radii[owner] + membranes.HALF_THICKNESS + gap * space
    away = (places[owner] * normal).sum(-1) + apart
    radius = BENDING[0] * (BENDING[1] / BENDING[0]) ** bend
    # Inside a vesicle there must be room for the particle.
    return MembranePatches(owner, normal, away, torch.where(side < 0.5, radius, -radius - apart))


def add_patches(volumes: Tensor, patches: MembranePatches, *, voxel_size: float) -> None:
    """Add bilayers to volumes (n, box, box, box) in Da/Å³, in place."""
    if len(patches.owner) == 0:
        return
    box = volumes.shape[-1]
    axis = (torch.arange(box, device=volumes.device) - centre(box)) * voxel_size
    middle = patches.normal * (patches.away + patches.bend)[:, None]
    z, y, x = ((axis - middle[:, i, None]) ** 2 for i in range(3))
    height = (
        (z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]).sqrt_().sub_(patches.bend.abs()[:, None, None, None])
    )
    # A table in steps of half an Å instead of millions of exponentials.
    reach = membranes.REACH
    table = membranes.profile(
        torch.linspace(-reach, reach, int(4 * reach) + 1, device=volumes.device), resolution=2 * voxel_size
    )
    place = height.add_(reach).mul_(2).round_().clamp_(0, len(table) - 1).int()
    volumes.index_add_(0, patches.owner, table[place])


def render(
    sources: Sources, labels: Tensor, *, box: int, imaging: Imaging, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Clean volumes (n, box, box, box) of the labelled densities with what surrounds them; and the poses.

    Poses are rotations (n, 3, 3) and shifts (n, 3) in voxels.
    """
    n, device, voxel = len(labels), generator.device, sources.voxel_size
    turns = rotations.random(n, generator, device=device)
    shifts = (2 * torch.rand(n, 3, generator=generator, device=device) - 1) * imaging.shift * box
    radii = sources.radii[labels]
    gap = 0.1 * box
    patches = draw_patches(imaging.membranes, places=shifts * voxel, radii=radii * voxel, gap=gap * voxel, generator=generator)
    owner, other, places = _neighbours(sources, labels, shifts, gap=gap, imaging=imaging, generator=generator, patches=patches)
    volumes = torch.zeros(n, box, box, box, device=device)
    add(
        volumes,
        sources,
        torch.cat([labels, other]),
        owner=torch.cat([torch.arange(n, device=device), owner]),
        rotations=torch.cat([turns, rotations.random(len(owner), generator, device=device)]),
        places=torch.cat([shifts, places]),
    )
    add_patches(volumes, patches, voxel_size=voxel)
    return volumes, turns, shifts


def _neighbours(
    sources: Sources,
    labels: Tensor,
    shifts: Tensor,
    *,
    gap: float,
    imaging: Imaging,
    generator: torch.Generator,
    patches: MembranePatches,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw other complexes that touch the particles, on the same side of a membrane: boxes, classes and places in voxels."""
    device = generator.device
    rate = torch.full((len(labels),), float(imaging.neighbours), device=device)
    owner = torch.repeat_interleave(torch.arange(len(labels), device=device), torch.poisson(rate, generator=generator).long())
    other = torch.randint(len(sources.names), (len(owner),), generator=generator, device=device)
    direction = torch.nn.functional.normalize(torch.randn(len(owner), 3, generator=generator, device=device), dim=-1)
    space = gap * torch.rand(len(owner), generator=generator, device=device)
    reach = sources.radii[labels[owner]] + sources.radii[other] + space
    normal, away = (value[owner] for value in patches.per_box(len(labels)))
    ahead = (direction * normal).sum(-1)
    edge = (shifts[owner] * normal).sum(-1) + ahead * reach + sources.radii[other]
    # A neighbour that would reach into the membrane goes to the other side of the particle.
    turned = torch.where(edge * sources.voxel_size > away, 2 * ahead, torch.zeros_like(ahead))
    direction = direction - turned[:, None] * normal
    return owner, other, shifts[owner] + direction * reach[:, None]
