"""Networks: 3-D CNNs whose layer before the softmax describes structure.

``network(x)`` gives logits over the training classes, ``network.features(x)`` the structural features of Xu et al. 2017;
x is (n, box, box, box) or (n, 1, box, box, box), each volume of mean 0 and standard deviation 1.

- ``inception3d`` and ``dsrf3d``: the two networks of Xu et al. 2017, arXiv 1701.08404, layer by layer.
- ``dsrf3d_v2``, ``rb3d``, ``cb3d``: their successors (Che et al. 2018, arXiv 1707.04885).
- ``yopo``: the feature extractor of DISCA (Zeng et al. 2023), trained here with labels as all others; takes any box size.
- ``compact``: ours: residual, global pooling (any box size), cosine classifier, about 4 MB.

>>> network = create("compact", box=20, classes=["ribosome_70s", "apoferritin"], voxel_size=20)
>>> network.features(torch.randn(8, 20, 20, 20)).shape
torch.Size([8, 64])
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tomolab import io
from tomolab.io import checksums, safe_load
from tomolab.learning import architectures
from tomolab.learning.architectures import Network as Network

FORMAT = 1
USUAL, LARGEST = 64, 1024
"""Voxels of a box that a network takes, with weights that any machine has room for, and at most."""


def names() -> list[str]:
    """Names of the networks that `create` knows."""
    return list(architectures.BUILDERS)


def create(name: str, *, box: int, classes: Sequence[str], voxel_size: float | None = None, seed: int = 0) -> Network:
    """Make an untrained network.

    Parameters
    ----------
    name
        One of `names()`.
    box
        Edge of the subtomograms in voxels.
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
    if name not in architectures.BUILDERS:
        raise ValueError(f"unknown network {name!r}; there are {', '.join(names())}")
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError(f"a network needs at least two classes, each named once, got {list(classes)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architectures.build(Network(name, box=box, classes=classes, voxel_size=voxel_size))


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
    wanted = getattr(network, "box", None)
    # A network that computes with any box still gives other features for one that it was not trained with.
    if wanted is not None and wanted != box:
        raise ValueError(
            f"network {name!r} was trained on boxes of {wanted} voxels, the subtomograms have {box}: "
            f"extract them with box={wanted}"
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
    with io.atomic(target) as temporary:
        # Written by ourselves: safetensors would make a file that only its owner can read.
        temporary.write_bytes(checksums.safetensors_bytes(network.state_dict()))
    with io.atomic(target.with_suffix(".json")) as temporary:
        temporary.write_bytes(checksums.json_bytes(description))


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
    description = safe_load.read_json(target, "the description of a network")
    missing = {"name", "box", "classes", "voxel_size", "sha256"} - set(description)
    if missing or description.get("format") != FORMAT:
        raise ValueError(f"{target} is not the description of a tomolab network: lacks {sorted(missing) or 'format 1'}")
    with safe_load.reading(target, "the description of a network"):
        safe_load.check_types(description, name=str, box=int, classes=list, sha256=str, voxel_size=(int, float, type(None)))
        if not all(isinstance(one, str) for one in description["classes"]) or not 0 < description["box"] <= LARGEST:
            raise ValueError(f"box is 1 to {LARGEST} voxels, and classes have names; it says {str(description)[:200]}")
        if description["voxel_size"] is not None and not 0 < description["voxel_size"] < 1e9:
            raise ValueError(f"its voxel_size is {description['voxel_size']}, expected a positive number of Å")
    return description


def shipped() -> list[str]:
    """Names of the encoders that tomolab ships, for `load`: ``default`` for voxels of 20 Å, ``fine`` for 10 Å."""
    return sorted(path.stem for path in (io.data_folder() / "networks").glob("*.safetensors"))


def load(path: str | Path = "default") -> Network:
    """Read a network written by `save`, by its path; or one that tomolab ships, by its name (`shipped`).

    Raises
    ------
    FileNotFoundError
        If there is no such network.
    ValueError
        If the weights are of another architecture than the description says, or were changed since.
    """
    description = describe(path)
    about: dict[str, Any] = {key: description[key] for key in ("box", "classes", "voxel_size")}
    with safe_load.reading(_located(path).with_suffix(".json"), "the description of a network"):
        if description["box"] > USUAL:
            # First without memory for its weights: what the description asks for may be more than there is.
            with torch.device("meta"):
                empty = create(description["name"], **about)
            _agree(empty, _located(path))
        network = create(description["name"], **about)
    weights(network, _located(path))
    if digest(network) != description["sha256"]:
        raise ValueError(
            f"the weights in {_located(path)} are not those that its description was written for (SHA-256 differs)"
        )
    return network.eval()


def weights(network: Network, path: str | Path) -> None:
    """Fill `network` with the weights in a safetensors file, or ValueError if they are of another architecture."""
    network.load_state_dict(_agree(network, path))


def _agree(network: Network, path: str | Path) -> dict[str, torch.Tensor]:
    """Weights in a file, if they are of the architecture of a network."""
    found, _ = safe_load.read_safetensors(path, "the weights of a network")
    wanted = network.state_dict()
    odd = [name for name in wanted if name not in found or found[name].shape != wanted[name].shape]
    odd += [name for name in found if name not in wanted]
    if odd:
        raise ValueError(
            f"{path} holds another network than {network.name} with box {network.box} and "
            f"{len(network.classes)} classes: {len(odd)} of {len(wanted)} tensors disagree, first {odd[0]}"
        )
    return found


def _located(path: str | Path) -> Path:
    return io.data_folder() / "networks" / f"{path}.safetensors" if str(path) in shipped() else Path(path)
