"""Checkpoints: all that a training needs to go on exactly where it was cut, in one safetensors file.

Weights, optimiser state, the weights to keep, and how far the training is. What is not a tensor stands as JSON in the file's
own metadata: one file is replaced in one step, so whatever moment a run is killed at, there is a whole checkpoint, and its
parts can only be of one moment.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from tomolab import files
from tomolab.networks import Network

NAME = "checkpoint.safetensors"


@dataclass
class Progress:
    """How far a training is.

    Parameters
    ----------
    history
        A row for each whole epoch.
    batch
        Batches done of the epoch after these.
    sums
        Of these batches: loss times subtomograms, right answers, subtomograms.
    seconds
        Spent on these batches.
    best
        Weights to keep, by name; empty where the last are kept.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    batch: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    seconds: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)


def write(
    folder: Path, network: Network, optimiser: torch.optim.Optimizer, *, plan: dict[str, Any], progress: Progress
) -> None:
    """Write ``checkpoint.safetensors`` in `folder`: what the training is (`plan`), how far it is, and its state."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in progress.best.items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    about = {name: getattr(progress, name) for name in ("history", "batch", "sums", "seconds")}
    with files.atomic(folder / NAME) as temporary:
        temporary.write_bytes(
            to_bytes(
                {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
                metadata={"plan": json.dumps(plan), "progress": json.dumps(about)},
            )
        )


def restore(folder: Path, network: Network, optimiser: torch.optim.Optimizer, *, plan: dict[str, Any]) -> Progress:
    """Fill network and optimiser from the checkpoint in `folder` and say how far it is; at the start where there is none.

    Raises
    ------
    ValueError
        If the checkpoint is of a training with another plan.
    """
    source = folder / NAME
    if not source.exists():
        return Progress()
    with safe_open(source, framework="pt") as file:
        about = {key: json.loads(text) for key, text in file.metadata().items()}
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    old, new = about["plan"], json.loads(json.dumps(plan))
    different = [
        f"{key} {old.get(key)!r}, now {new.get(key)!r}"
        for key in [*new, *old.keys() - new.keys()]
        if old.get(key) != new.get(key)
    ]
    if different or "progress" not in about:
        raise ValueError(
            f"the checkpoint in {folder} is of another training ({'; '.join(different) or 'of an older version'}); "
            "use resume=False or another folder"
        )
    network.load_state_dict(_under("network.", tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimiser.", tensors).items():
        number, key = name.split(".")
        state.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return Progress(**about["progress"], best=_under("best.", tensors))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
