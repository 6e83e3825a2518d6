"""Networks: 3-D CNNs whose layer before the softmax describes structure.

``network(x)`` gives logits over the training classes, ``network.features(x)`` the structural features of Xu et al. 2017;
x is (n, box, box, box) or (n, 1, box, box, box), each volume of mean 0 and standard deviation 1.

- ``inception3d`` and ``dsrf3d``: the two networks of Xu et al. 2017, arXiv 1701.08404, layer by layer.
- ``compact``: ours: residual, global pooling (any box size), cosine classifier, about 4 MB.

>>> network = create("compact", box=20, classes=["ribosome_70s", "apoferritin"], voxel_size=20)
>>> network.features(torch.randn(8, 20, 20, 20)).shape
torch.Size([8, 64])
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn import functional

from tomolab import files

FORMAT = 1


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


class _Same(nn.Module):
    """Max pooling over 2 voxels with stride 1 that keeps the size, padded at the far side."""

    def forward(self, batch: Tensor) -> Tensor:
        return functional.max_pool3d(functional.pad(batch, (0, 1) * 3, value=-torch.inf), 2, stride=1)


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


def _inception3d(network: Network) -> None:
    """GoogLeNet-like; the structural feature is the linear layer of L units before the softmax."""
    edge = (network.box - 4) // 2 - 1
    if edge < 1:
        raise ValueError(f"inception3d needs a box of at least 8 voxels, got {network.box}")
    network.body = nn.Sequential(
        _conv(1, 32, 5, padding="valid"),
        nn.MaxPool3d(2),
        _Inception(),
        nn.AvgPool3d(2, stride=1),
        nn.Flatten(),
        nn.Dropout(0.7),
        nn.Linear(160 * edge**3, len(network.classes)),
    )
    network.head = nn.Identity()
    network.apply(_glorot)


def _dsrf3d(network: Network) -> None:
    """VGG-like with small receptive fields; the structural feature is the second layer of 512 units."""
    edge = network.box // 4
    if edge < 1:
        raise ValueError(f"dsrf3d needs a box of at least 4 voxels, got {network.box}")
    network.body = nn.Sequential(
        *(_conv(1, 32, 3), _conv(32, 32, 3), nn.MaxPool3d(2)),
        *(_conv(32, 64, 3), _conv(64, 64, 3), nn.MaxPool3d(2)),
        *(nn.Flatten(), nn.Linear(64 * edge**3, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()),
    )
    network.head = nn.Linear(512, len(network.classes))
    network.apply(_glorot)


def _glorot(module: nn.Module) -> None:
    """The initial weights of the paper's implementation: Glorot uniform, biases 0."""
    if isinstance(module, nn.Conv3d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
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
        *(nn.BatchNorm3d(48), nn.ReLU(), _Residual(48, 48), nn.MaxPool3d(2)),
        *(_Residual(48, 96), _Residual(96, 96)),
        *(_Pooled(), nn.Linear(192, 64), nn.BatchNorm1d(64)),
    )
    network.head = _Cosine(64, len(network.classes))


_ARCHITECTURES = {"compact": _compact, "dsrf3d": _dsrf3d, "inception3d": _inception3d}


def names() -> list[str]:
    """Names of the networks that `create` knows."""
    return list(_ARCHITECTURES)


def create(name: str, *, box: int, classes: Sequence[str], voxel_size: float | None = None, seed: int = 0) -> Network:
    """Make an untrained network.

    Parameters
    ----------
    name
        One of `names()`.
    box
        Edge of the subtomograms in voxels (``compact`` also takes other sizes later).
    classes
        Names of the training classes, at least two, each once.
    voxel_size
        Å; recorded, and checked against the data when known.
    seed
        Decides the initial weights.

    Raises
    ------
    ValueError
        If the name is unknown, the box too small, or the classes too few or repeated.
    """
    if name not in _ARCHITECTURES:
        raise ValueError(f"unknown network {name!r}; there are {', '.join(names())}")
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError(f"a network needs at least two classes, each named once, got {list(classes)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(Network(name, box=box, classes=classes, voxel_size=voxel_size))


def build(network: Network) -> Network:
    """Give a network the layers that go with its name, freshly initialised."""
    _ARCHITECTURES[network.name](network)
    return network


def check(network: nn.Module, *, box: int, voxel_size: float) -> None:
    """Refuse subtomograms that a network was not made for.

    Parameters
    ----------
    network
        One of ours, or any module; what it does not say of itself is not checked.
    box, voxel_size
        Of the subtomograms: edge in voxels, and Å.

    Raises
    ------
    ValueError
        If the box, or the voxel size by more than 1 %, is not that of the network.
    """
    name = getattr(network, "name", type(network).__name__)
    wanted, any_box = getattr(network, "box", None), getattr(network, "any_box", False)
    if wanted is not None and not any_box and wanted != box:
        raise ValueError(
            f"network {name!r} takes boxes of {wanted} voxels, the subtomograms have {box}: "
            f"extract them with box={wanted}, or use a network that takes any box"
        )
    trained = getattr(network, "voxel_size", None)
    if trained is not None and abs(voxel_size / trained - 1) > 0.01:
        raise ValueError(
            f"network {name!r} was trained on voxels of {trained:g} Å, the subtomograms have {voxel_size:g} Å: "
            f"extract them with voxel_size={trained:g}"
        )


def digest(network: nn.Module) -> str:
    """SHA-256 of all weights, in order of their names: which network made an embedding."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def save(network: Network, path: str | Path, *, record: dict[str, Any] | None = None) -> None:
    """Write ``network.safetensors`` and, beside it, ``network.json`` (architecture, classes, box, voxel size, record)."""
    target = Path(path)
    if target.suffix != ".safetensors":
        raise ValueError(f"a network is written to a .safetensors file, got {target.name}")
    description = {
        "format": FORMAT,
        "name": network.name,
        "box": network.box,
        "classes": list(network.classes),
        "voxel_size": network.voxel_size,
        "sha256": digest(network),
        "record": record or {},
    }
    with files.atomic(target) as temporary:
        # Written by ourselves: safetensors would make a file that only its owner can read.
        temporary.write_bytes(to_bytes({name: tensor.contiguous() for name, tensor in network.state_dict().items()}))
    with files.atomic(target.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(description, indent=1) + "\n")


def describe(path: str | Path) -> dict[str, Any]:
    """What is written beside a network: architecture, classes, box, voxel size, training record.

    Raises
    ------
    FileNotFoundError
        If there is no such network.
    ValueError
        If its description is not one of ours.
    """
    target = _located(path).with_suffix(".json")
    if not target.is_file():
        raise FileNotFoundError(f"no network description {target}; a network is a .safetensors file with a .json beside it")
    description = json.loads(target.read_text())
    missing = {"name", "box", "classes", "voxel_size", "sha256"} - set(description)
    if missing or description.get("format") != FORMAT:
        raise ValueError(f"{target} is not the description of a tomolab network: lacks {sorted(missing) or 'format 1'}")
    return description


def load(path: str | Path = "default") -> Network:
    """Read a network written by `save`; ``"default"`` is the encoder that tomolab ships.

    Raises
    ------
    FileNotFoundError
        If there is no such network.
    ValueError
        If the weights are of another architecture than the description says, or were changed since.
    """
    description = describe(path)
    network = create(
        description["name"], box=description["box"], classes=description["classes"], voxel_size=description["voxel_size"]
    )
    weights(network, _located(path))
    if digest(network) != description["sha256"]:
        raise ValueError(
            f"the weights in {_located(path)} are not those that its description was written for (SHA-256 differs)"
        )
    return network.eval()


def weights(network: Network, path: str | Path) -> None:
    """Fill `network` with the weights in a safetensors file, or ValueError if they are of another architecture."""
    found = load_file(path)
    wanted = network.state_dict()
    odd = [name for name in wanted if name not in found or found[name].shape != wanted[name].shape]
    odd += [name for name in found if name not in wanted]
    if odd:
        raise ValueError(
            f"{Path(path).name} holds another network than {network.name} with box {network.box} and "
            f"{len(network.classes)} classes: {len(odd)} of {len(wanted)} tensors disagree, first {odd[0]}"
        )
    network.load_state_dict(found)


def _located(path: str | Path) -> Path:
    return files.data_folder() / "networks" / "default.safetensors" if path == "default" else Path(path)
