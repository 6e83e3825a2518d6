"""The name of a network in, its layers out: a body that ends in the structural feature, and a head that gives logits.

A builder gives a `Network` its `body`, which ends in the structural feature, and its `head`, which takes features to logits.
How many parameters each has is held by tests against the numbers of the papers.

>>> network = build(Network("dsrf3d", box=40, classes=["ribosome_70s", "apoferritin"], voxel_size=10))
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Network(nn.Module):
    """What all networks share: a name, what they were made for, features and a classifier on top of them."""

    def __init__(self, name: str, *, box: int, classes: Sequence[str], voxel_size: float | None) -> None:
        super().__init__()
        self.name, self.box, self.classes, self.voxel_size = name, box, tuple(classes), voxel_size
        self.any_box = False
        self.body: nn.Module = nn.Identity()
        self.head: nn.Module = nn.Identity()

    def features(self, volumes: Tensor) -> Tensor:
        """Structural features (n, d) of volumes (n, box, box, box) or (n, 1, box, box, box)."""
        batch = volumes[:, None] if volumes.ndim == 4 else volumes
        if batch.ndim != 5 or batch.shape[1] != 1 or (not self.any_box and batch.shape[2:] != (self.box,) * 3):
            raise ValueError(
                f"{self.name} takes volumes of {self.box} x {self.box} x {self.box} voxels, got {tuple(volumes.shape)}"
            )
        return self.body(batch)

    def forward(self, volumes: Tensor) -> Tensor:
        """Logits (n, classes)."""
        return self.head(self.features(volumes))


class _Dense(nn.Linear):
    """Linear layer that stays in float32 on CPUs.

    There a batch is too small to pay for turning millions of weights into bfloat16 and their gradients back.
    """

    def forward(self, batch: Tensor) -> Tensor:
        if batch.device.type != "cpu":
            return super().forward(batch)
        with torch.autocast("cpu", enabled=False):
            return super().forward(batch.to(self.weight.dtype))


class _Same(nn.Module):
    """Max pooling over 2 voxels with stride 1 that keeps the size, padded at the far side."""

    def forward(self, batch: Tensor) -> Tensor:
        return functional.max_pool3d(functional.pad(batch, (0, 1) * 3, value=-torch.inf), 2, stride=1)


class _Mean(nn.Module):
    """Average pooling over 2 voxels with stride 1, axis by axis: three sums, which CPUs do several times faster."""

    def forward(self, batch: Tensor) -> Tensor:
        for axis in (2, 3, 4):
            pairs = batch.shape[axis] - 1
            batch = 0.5 * (batch.narrow(axis, 0, pairs) + batch.narrow(axis, 1, pairs))
        return batch


def _conv(channels_in: int, channels_out: int, kernel: int, *, padding: str = "same") -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(channels_in, channels_out, kernel, padding=padding), nn.ReLU())


class _Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                _conv(32, 32, 1),
                nn.Sequential(_conv(32, 32, 1), _conv(32, 64, 3)),
                nn.Sequential(_conv(32, 16, 1), _conv(16, 32, 5)),
                nn.Sequential(_Same(), _conv(32, 32, 1)),
            ]
        )

    def forward(self, batch: Tensor) -> Tensor:
        return torch.cat([branch(batch) for branch in self.branches], dim=1)


def _block(channels_in: int, channels_out: int) -> list[nn.Module]:
    """Two convolutions and a pooling that halves the edge."""
    return [_conv(channels_in, channels_out, 3), _conv(channels_out, channels_out, 3), nn.MaxPool3d(2)]


def _inception3d(network: Network) -> None:
    """GoogLeNet-like; the structural feature is the linear layer of L units before the softmax."""
    edge = (network.box - 4) // 2 - 1
    if edge < 1:
        raise ValueError(f"inception3d needs a box of at least 8 voxels, got {network.box}")
    network.body = nn.Sequential(
        _conv(1, 32, 5, padding="valid"),
        nn.MaxPool3d(2),
        _Inception(),
        _Mean(),
        nn.Flatten(),
        nn.Dropout(0.7),
        _Dense(160 * edge**3, len(network.classes)),
    )
    network.head = nn.Identity()
    network.apply(_glorot)


def _dsrf3d(network: Network) -> None:
    """VGG-like with small receptive fields; the structural feature is the second layer of 512 units."""
    edge = network.box // 4
    if edge < 1:
        raise ValueError(f"dsrf3d needs a box of at least 4 voxels, got {network.box}")
    network.body = nn.Sequential(
        *_block(1, 32),
        *_block(32, 64),
        *(nn.Flatten(), _Dense(64 * edge**3, 512), nn.ReLU(), _Dense(512, 512), nn.ReLU()),
    )
    network.head = nn.Linear(512, len(network.classes))
    network.apply(_glorot)


def _glorot(module: nn.Module) -> None:
    """The initial weights of the paper's implementation: Glorot uniform, biases 0."""
    if isinstance(module, nn.Conv3d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def _pair(features: int, units: int, dropout: float) -> list[nn.Module]:
    """Two fully connected layers of `units`, each with ReLU and then drop-out."""
    return [
        *(_Dense(features, units), nn.ReLU(), nn.Dropout(dropout)),
        *(_Dense(units, units), nn.ReLU(), nn.Dropout(dropout)),
    ]


def _dsrf3d_v2(network: Network) -> None:
    """DSRF3D with a third block and drop-out (Che et al. 2018); the structural feature is the second layer of 1024 units."""
    edge = network.box // 8
    if edge < 1:
        raise ValueError(f"dsrf3d_v2 needs a box of at least 8 voxels, got {network.box}")
    network.body = nn.Sequential(
        *_block(1, 32),
        *_block(32, 64),
        *_block(64, 128),
        *(nn.Flatten(), *_pair(128 * edge**3, 1024, 0.7)),
    )
    network.head = nn.Linear(1024, len(network.classes))
    network.apply(_glorot)


class _Beside(nn.Module):
    """A bottleneck beside a short cut, both of 16 channels, put side by side and not added."""

    def __init__(self) -> None:
        super().__init__()
        self.short = _conv(32, 16, 3)
        self.long = nn.Sequential(_conv(32, 16, 1), _conv(16, 32, 3), nn.Conv3d(32, 16, 1), nn.Dropout(0.7))

    def forward(self, batch: Tensor) -> Tensor:
        return torch.relu(torch.cat([self.short(batch), self.long(batch)], dim=1))


def _rb3d(network: Network) -> None:
    """Four residual-like blocks (Che et al. 2018); the structural feature is the second layer of 1024 units.

    Nearly all of its weights (262 of 263 million at 40 voxels) lie in the first of these layers.
    """
    edge = network.box // 2
    if edge < 1:
        raise ValueError(f"rb3d needs a box of at least 2 voxels, got {network.box}")
    network.body = nn.Sequential(
        *(_conv(1, 32, 3), nn.MaxPool3d(2), _Beside(), _Beside(), _Beside(), _Beside()),
        *(nn.Flatten(), *_pair(32 * edge**3, 1024, 0.5)),
    )
    network.head = nn.Linear(1024, len(network.classes))
    network.apply(_glorot)


def _cb3d(network: Network) -> None:
    """C3D-like (Che et al. 2018); the structural feature is the second layer of 4096 units.

    Two versions were published: this is the later one, which ends after the fourth group of convolutions and flattens 10,240
    features at 40 voxels; the earlier one has a fifth group.
    """
    depth, edge = network.box // 8, network.box // 16
    if edge < 1:
        raise ValueError(f"cb3d needs a box of at least 16 voxels, got {network.box}")
    network.body = nn.Sequential(
        # The first pooling spares the beam axis.
        *(_conv(1, 64, 3), nn.MaxPool3d((1, 2, 2))),
        *(_conv(64, 128, 3), nn.MaxPool3d(2)),
        *_block(128, 256),
        *_block(256, 512),
        *(nn.Flatten(), *_pair(512 * depth * edge**2, 4096, 0.5)),
    )
    network.head = nn.Linear(4096, len(network.classes))
    network.apply(_glorot)


class _GaussianDropout(nn.Module):
    """Multiplies by Gaussian noise of mean 1 and variance rate / (1 - rate) while training (Srivastava et al. 2014)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.spread = (rate / (1 - rate)) ** 0.5

    def forward(self, batch: Tensor) -> Tensor:
        return batch * (1 + self.spread * torch.randn_like(batch)) if self.training else batch


class _Yopo(nn.Module):
    """Ten convolutions, after each of which only the maximum over the volume is kept, (n, 1360)."""

    widths = tuple(range(64, 209, 16))
    smallest, filled = 21, 24

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv3d(before, width, 3), nn.ELU(), nn.BatchNorm3d(width))
            for before, width in zip((1, *self.widths), self.widths, strict=False)
        )

    def forward(self, batch: Tensor) -> Tensor:
        if min(batch.shape[2:]) < self.smallest:
            missing = self.filled - batch.shape[-1]
            batch = functional.pad(batch, (missing // 2, missing - missing // 2) * 3)
        maxima = []
        for layer in self.layers:
            batch = layer(batch)
            maxima.append(batch.amax((2, 3, 4)))
        return torch.cat(maxima, dim=1)


def _yopo(network: Network) -> None:
    """The feature extractor of DISCA (Zeng et al. 2023); the structural feature is its linear layer of 1024 units.

    Ten convolutions without padding need 21 voxels. Smaller boxes, from 16, are put into 24 voxels (the size its authors use)
    with zeros around them, the mean of a normalised subtomogram: a deviation from the paper, which no box of 21 or more sees.
    """
    if network.box < 16:
        raise ValueError(f"yopo needs a box of at least 16 voxels, which are filled up to 24, got {network.box}")
    network.any_box = True
    network.body = nn.Sequential(_GaussianDropout(0.5), _Yopo(), nn.BatchNorm1d(sum(_Yopo.widths)), _Dense(1360, 1024))
    network.head = nn.Linear(1024, len(network.classes))
    network.apply(_orthogonal)


def _orthogonal(module: nn.Module) -> None:
    """Orthogonal initial weights (Saxe et al. 2014), biases 0."""
    if isinstance(module, nn.Conv3d | nn.Linear):
        nn.init.orthogonal_(module.weight)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


class _Residual(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels_in, channels_out, 3, padding=1, bias=False)
        self.second = nn.Conv3d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm3d(channels_out), nn.BatchNorm3d(channels_out)])
        self.skip = nn.Conv3d(channels_in, channels_out, 1, bias=False) if channels_in != channels_out else nn.Identity()

    def forward(self, batch: Tensor) -> Tensor:
        inner = torch.relu(self.norms[0](self.first(batch)))
        return torch.relu(self.norms[1](self.second(inner)) + self.skip(batch))


class _Bottleneck(nn.Module):
    """A residual block whose kernel of 3 voxels works on half of the channels: most of the work at large size is saved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.reduce = nn.Conv3d(channels, inner, 1, bias=False)
        self.across = nn.Conv3d(inner, inner, 3, padding=1, bias=False)
        self.expand = nn.Conv3d(inner, channels, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm3d(inner), nn.BatchNorm3d(inner), nn.BatchNorm3d(channels)])

    def forward(self, batch: Tensor) -> Tensor:
        inner = torch.relu(self.norms[0](self.reduce(batch)))
        inner = torch.relu(self.norms[1](self.across(inner)))
        return torch.relu(self.norms[2](self.expand(inner)) + batch)


class _Pooled(nn.Module):
    """Mean and maximum over the volume: what is there, wherever it lies."""

    def forward(self, batch: Tensor) -> Tensor:
        return torch.cat([batch.mean((2, 3, 4)), batch.amax((2, 3, 4))], dim=1)


class _Cosine(nn.Module):
    """Classifier on directions: logits are scaled cosines between features and class vectors.

    Features of a class gather around one direction; classes never seen then find directions of their own.
    """

    def __init__(self, features: int, classes: int, *, scale: float = 16.0) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(classes, features) * features**-0.5)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * functional.normalize(features) @ functional.normalize(self.vectors).T


def _compact(network: Network) -> None:
    if network.box < 8:
        raise ValueError(f"compact needs a box of at least 8 voxels, got {network.box}")
    network.any_box = True
    network.body = nn.Sequential(
        # A wide first kernel at every second voxel averages noise where it is cheapest.
        nn.Conv3d(1, 48, 6, stride=2, padding=2, bias=False),
        *(nn.BatchNorm3d(48), nn.ReLU(), _Bottleneck(48), nn.MaxPool3d(2)),
        *(_Residual(48, 96), _Residual(96, 96)),
        *(_Pooled(), nn.Linear(192, 64), nn.BatchNorm1d(64)),
    )
    network.head = _Cosine(64, len(network.classes))


BUILDERS = {
    "compact": _compact,
    "dsrf3d": _dsrf3d,
    "inception3d": _inception3d,
    "dsrf3d_v2": _dsrf3d_v2,
    "rb3d": _rb3d,
    "cb3d": _cb3d,
    "yopo": _yopo,
}
"""What gives a network its layers, by name."""


def build(network: Network) -> Network:
    """Give a network the layers that go with its name, freshly initialised."""
    BUILDERS[network.name](network)
    return network
