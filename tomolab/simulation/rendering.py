"""Densities in, boxes of clean density out: each holds a particle in a random pose, perhaps with neighbours and a membrane.

`tomolab.simulation.microscope` then images them. Boxes are cubes with the particle near the centre. Shifts and radii are in
voxels; distances of membranes are in Å from the centre of the box.
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
CUT_POWER = 1e-4
"""Fraction of the squared density of a complex that is cut off with the empty space about it, so that less is sampled."""
CURVATURE_RADII = (300.0, 10_000.0)
"""Å, of the membranes: from small vesicles to the border of a cell."""


@dataclass(frozen=True)
class Stack:
    """Fine maps of complexes of about one size, one after the other along z, each with an empty border.

    `data` (maps * depth + 1, depth, depth) has half the voxel size; a box of `edge` voxels holds any of them in any pose.
    """

    data: Tensor
    depth: int
    edge: int


@dataclass(frozen=True)
class Templates:
    """Densities ready to be rendered.

    `data` (classes, 2n, 2n, 2n) has half the voxel size, so that trilinear sampling is accurate; `radii` (classes,) in
    voxels of `voxel_size` enclose 95 % of the density. `stacks` hold the same maps without the empty space about them:
    class i is map `index[i]` of stack `stack[i]`.
    """

    names: tuple[str, ...]
    data: Tensor
    radii: Tensor
    voxel_size: float
    stacks: tuple[Stack, ...]
    stack: Tensor
    index: Tensor


@dataclass(frozen=True)
class MembranePatches:
    """m pieces of membrane: the `box` (m,) that each lies in; the `normal` (m, 3) from the centre of the box towards it, and
    its `distance` (m,) in Å along that; its `curvature_radius` (m,) in Å, positive if the centre of curvature is on the far
    side.
    """

    box: Tensor
    normal: Tensor
    distance: Tensor
    curvature_radius: Tensor


def check(densities: Mapping[str, Volume]) -> float:
    """The one voxel size (Å) of all densities; ValueError if there is no density or they differ."""
    sizes = sorted({round(volume.voxel_size, 4) for volume in densities.values()})
    if not sizes:
        raise ValueError("simulation needs at least one density, got none")
    if len(sizes) > 1:
        raise ValueError(f"all densities must have one voxel size, got {sizes} Å")
    return sizes[0]


def prepare(densities: Mapping[str, Volume], device: torch.device) -> Templates:
    """Resample maps to half their voxel size, on a device."""
    voxel_size = check(densities)
    edge = max(max(volume.shape) for volume in densities.values())
    edge += edge % 2
    maps = torch.stack([torch.from_numpy(fit(volume, edge).data) for volume in densities.values()])
    fine = fourier.resize(maps.to(device), (2 * edge,) * 3)
    stacks, stack, index = _stacks(fine, _extents(maps))
    return Templates(tuple(densities), fine, _radii(maps).to(device), voxel_size, stacks, stack.to(device), index.to(device))


def _radii(maps: Tensor) -> Tensor:
    """Radius in voxels, shape (n,), of the centred sphere that holds 95 % of each map's positive density."""
    radius = distance(maps.shape[-1]).flatten()
    order = radius.argsort()
    mass = maps.clamp_min(0).flatten(1)[:, order].cumsum(1)
    reached = (mass < 0.95 * mass[:, -1:]).sum(1)
    return radius[order][reached.clamp_max(len(order) - 1)]


def _extents(maps: Tensor) -> Tensor:
    """Radius in whole voxels, shape (n,), of the centred sphere with all but `CUT_POWER` of the power of each map."""
    radius = distance(maps.shape[-1]).ceil().int()
    power = torch.stack([torch.bincount(radius.flatten(), weights=part) for part in maps.flatten(1).square()])
    return (power.cumsum(1) < (1 - CUT_POWER) * power.sum(1, keepdim=True)).sum(1) + 1


def _stacks(fine: Tensor, radii: Tensor) -> tuple[tuple[Stack, ...], Tensor, Tensor]:
    """Sort fine maps by size, in steps of two voxels, and cut off the empty space about them."""
    sizes, stack = ((radii + 1) // 2 * 2).unique(return_inverse=True)
    index = torch.zeros_like(stack)
    stacks = []
    for number, size in enumerate(sizes.tolist()):
        here = (stack == number).nonzero()[:, 0]
        index[here] = torch.arange(len(here))
        depth = 4 * size + 3
        # `_bilinear` looks one layer on from the last.
        data = torch.zeros(len(here) * depth + 1, depth, depth, device=fine.device)
        inner = min(depth - 2, fine.shape[-1])
        source, target = (slice(n // 2 - inner // 2, n // 2 - inner // 2 + inner) for n in (fine.shape[-1], depth))
        maps = data[:-1].view(len(here), depth, depth, depth)
        maps[:, target, target, target] = fine[here.to(fine.device), source, source, source]
        stacks.append(Stack(data, depth, 2 * size + 2))
    return tuple(stacks), stack, index


def _sample(stack: Stack, indices: Tensor, *, matrices: Tensor, positions: Tensor, corners: Tensor, edge: int) -> Tensor:
    """Windows (n, edge, edge, edge) that begin at voxels `corners` (n, 3), with maps of one stack at `positions` (n, 3)."""
    steps = torch.arange(edge, device=indices.device)
    # A voxel w shows the map at 2 R^T (w - position) from its centre.
    inverse = 2 * matrices.transpose(1, 2)
    start = (inverse @ (corners - positions)[..., None])[..., 0] + stack.depth // 2
    lines = torch.cat([inverse, start[..., None]], dim=-1)
    return (_bilinear if indices.device.type == "cpu" else _trilinear)(stack, lines, indices * stack.depth, steps)


def _linear(lines: Tensor, steps: Tensor) -> Tensor:
    """Values (n, c, e, e, e) of linear functions on a grid of `steps` (e,) from their slopes and offset, (n, c, 4)."""
    z, y, x = (lines[:, :, i, None] * steps for i in range(3))
    return (lines[:, :, 3, None] + z)[..., None, None] + (y[..., None] + x[:, :, None])[:, :, None]


def _trilinear(stack: Stack, lines: Tensor, first: Tensor, steps: Tensor) -> Tensor:
    """Values (n, e, e, e) of the maps that begin at layers `first` (n,) of a stack.

    Positions in the maps are linear functions on the grid of `steps` (e,): slopes and offset, (n, 3, 4), zyx.
    """
    at = _linear(lines, steps)
    # A map is empty beyond its border; along z another map would follow.
    at[:, 0] = at[:, 0].clamp(0, stack.depth - 1) + first[:, None, None, None]
    size = torch.tensor(stack.data.shape, device=at.device)[:, None, None, None]
    grid = (at * (2 / (size - 1)) - 1).flip(1).permute(0, 2, 3, 4, 1)
    maps = stack.data.expand(len(at), 1, -1, -1, -1)
    return grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=True)[:, 0]


def _bilinear(stack: Stack, lines: Tensor, first: Tensor, steps: Tensor) -> Tensor:
    """The same as `_trilinear` in a quarter of the time on a CPU: torch has vector instructions for two dimensions only.

    All layers make one tall image, and a second channel shows it one layer on.
    """
    n, edge, depth = len(lines), len(steps), stack.depth
    rows = (len(stack.data) - 1) * depth
    row, column = 2 / (rows - 1), 2 / (depth - 1)
    # In the order z, x, y, with x and y from -1 to 1 as torch counts them, the last two channels are the positions to read.
    lines = lines[:, [0, 2, 1]] * lines.new_tensor([1.0, column, row])[:, None]
    lines[:, 1, 3] -= 1
    at = _linear(lines, steps)
    layer, y = at[:, 0].clamp_(0, depth - 1), at[:, 2].clamp_(0, (depth - 1) * row)
    fraction = layer.frac()
    y.add_(layer.sub_(fraction), alpha=depth * row).add_((first * (depth * row) - 1)[:, None, None, None])
    image = stack.data.as_strided((n, 2, rows, depth), (0, depth * depth, depth, 1))
    grid = at[:, 1:].reshape(n, 2, edge, edge * edge).permute(0, 2, 3, 1)
    pair = grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=True).reshape(n, 2, edge, edge, edge)
    return torch.lerp(pair[:, 0], pair[:, 1], fraction)


def add(volumes: Tensor, templates: Templates, species: Tensor, *, boxes: Tensor, matrices: Tensor, shifts: Tensor) -> None:
    """Add n particles to cubic boxes (b, box, box, box), in place.

    `species` and `boxes` (n,) are the class of each and the box it is added to; its pose is a rotation matrix (n, 3, 3) and a
    shift (n, 3), zyx, in voxels from the centre of the box.
    """
    box = volumes.shape[-1]
    positions = shifts + centre(box)
    for number, stack in enumerate(templates.stacks):
        edge = min(stack.edge, box)
        near = (shifts.abs() < box / 2 + stack.edge / 2).all(-1)
        rows = ((templates.stack[species] == number) & near).nonzero()[:, 0]
        step = max(1, VOXELS // edge**3) if volumes.device.type == "cpu" else len(species)
        for part in (rows[start : start + step] for start in range(0, len(rows), step)):
            corners = (positions[part].round().long() - edge // 2).clamp(0, box - edge)
            indices = templates.index[species[part]]
            windows = _sample(stack, indices, matrices=matrices[part], positions=positions[part], corners=corners, edge=edge)
            _add_windows(volumes, windows, boxes[part], corners)


def _add_windows(volumes: Tensor, windows: Tensor, boxes: Tensor, corners: Tensor) -> None:
    edge, box = windows.shape[-1], volumes.shape[-1]
    if volumes.device.type == "cpu":
        for window, number, (z, y, x) in zip(windows, boxes.tolist(), corners.tolist(), strict=True):
            volumes[number, z : z + edge, y : y + edge, x : x + edge] += window
        return
    steps = torch.arange(edge, device=volumes.device)
    inside = (steps[:, None, None] * box + steps[:, None]) * box + steps
    first = ((boxes * box + corners[:, 0]) * box + corners[:, 1]) * box + corners[:, 2]
    volumes.view(-1).index_add_(0, (first[:, None] + inside.flatten()).flatten(), windows.flatten())


def draw_membranes(
    probability: float, *, positions: Tensor, radii: Tensor, gap: float, generator: torch.Generator
) -> MembranePatches:
    """Draw membranes beside some of n particles at `positions` (n, 3) of `radii` (n,), in Å, in any direction.

    The space between particle and membrane is uniform from 0 to `gap` Å.
    """
    device = generator.device
    if probability == 0:
        empty = torch.zeros(0, device=device)
        return MembranePatches(empty.long(), empty.reshape(0, 3), empty, empty)
    box = (torch.rand(len(positions), generator=generator, device=device) < probability).nonzero()[:, 0]
    normal = torch.nn.functional.normalize(torch.randn(len(box), 3, generator=generator, device=device), dim=-1)
    space, bend, side = torch.rand(3, len(box), generator=generator, device=device)
    separation = radii[box] + membranes.HALF_THICKNESS + gap * space
    distances = (positions[box] * normal).sum(-1) + separation
    radius = CURVATURE_RADII[0] * (CURVATURE_RADII[1] / CURVATURE_RADII[0]) ** bend
    # Inside a vesicle there must be room for the particle.
    return MembranePatches(box, normal, distances, torch.where(side < 0.5, radius, -radius - separation))


def add_membranes(volumes: Tensor, patches: MembranePatches, *, voxel_size: float) -> None:
    """Add bilayers to volumes (n, box, box, box) in Da/Å³, in place."""
    if len(patches.box) == 0:
        return
    box = volumes.shape[-1]
    axis = (torch.arange(box, device=volumes.device) - centre(box)) * voxel_size
    radius = patches.curvature_radius
    middle = patches.normal * (patches.distance + radius)[:, None]
    z, y, x = ((axis - middle[:, i, None]) ** 2 for i in range(3))
    height = (z[:, :, None, None] + y[:, None, :, None] + x[:, None, None, :]).sqrt_().sub_(radius.abs()[:, None, None, None])
    # A table in steps of half an Å instead of millions of exponentials.
    limit = membranes.REACH
    heights = torch.linspace(-limit, limit, int(4 * limit) + 1, device=volumes.device)
    table = membranes.profile(heights, resolution=2 * voxel_size)
    rows = height.add_(limit).mul_(2).round_().clamp_(0, len(table) - 1).int()
    volumes.index_add_(0, patches.box, table[rows])


def render(
    templates: Templates, labels: Tensor, *, box: int, imaging: Imaging, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Clean volumes (n, box, box, box) of the labelled particles with their surroundings; and the poses.

    Poses are rotation matrices (n, 3, 3) and shifts (n, 3) in voxels.
    """
    n, device, voxel = len(labels), generator.device, templates.voxel_size
    matrices = rotations.random(n, generator, device=device)
    shifts = (2 * torch.rand(n, 3, generator=generator, device=device) - 1) * imaging.shift * box
    radii = templates.radii[labels]
    gap = 0.1 * box
    patches = draw_membranes(
        imaging.membranes, positions=shifts * voxel, radii=radii * voxel, gap=gap * voxel, generator=generator
    )
    boxes, species, neighbour_shifts = _neighbours(
        templates, labels, shifts, gap=gap, mean=imaging.neighbours, generator=generator, patches=patches
    )
    volumes = torch.zeros(n, box, box, box, device=device)
    add(
        volumes,
        templates,
        torch.cat([labels, species]),
        boxes=torch.cat([torch.arange(n, device=device), boxes]),
        matrices=torch.cat([matrices, rotations.random(len(boxes), generator, device=device)]),
        shifts=torch.cat([shifts, neighbour_shifts]),
    )
    add_membranes(volumes, patches, voxel_size=voxel)
    return volumes, matrices, shifts


def _neighbours(
    templates: Templates,
    labels: Tensor,
    shifts: Tensor,
    *,
    gap: float,
    mean: float,
    generator: torch.Generator,
    patches: MembranePatches,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw particles that touch the labelled ones, on the same side of a membrane: boxes, classes and shifts in voxels."""
    n, device = len(labels), generator.device
    numbers = torch.poisson(torch.full((n,), float(mean), device=device), generator=generator).long()
    boxes = torch.repeat_interleave(torch.arange(n, device=device), numbers)
    species = torch.randint(len(templates.names), (len(boxes),), generator=generator, device=device)
    direction = torch.nn.functional.normalize(torch.randn(len(boxes), 3, generator=generator, device=device), dim=-1)
    space = gap * torch.rand(len(boxes), generator=generator, device=device)
    separation = templates.radii[labels[boxes]] + templates.radii[species] + space
    # Boxes without a membrane have one infinitely far away.
    normal, distances = torch.zeros(n, 3, device=device), torch.full((n,), torch.inf, device=device)
    normal[patches.box], distances[patches.box] = patches.normal, patches.distance
    normal, distances = normal[boxes], distances[boxes]
    ahead = (direction * normal).sum(-1)
    edge = (shifts[boxes] * normal).sum(-1) + ahead * separation + templates.radii[species]
    # A neighbour that would reach into the membrane goes to the other side of the particle.
    mirrored = torch.where(edge * templates.voxel_size > distances, 2 * ahead, torch.zeros_like(ahead))
    direction = direction - mirrored[:, None] * normal
    return boxes, species, shifts[boxes] + direction * separation[:, None]
