"""A training in, one safetensors file out, and back: all that it needs to go on exactly where it was cut.

Weights, optimiser state, the weights to keep, and how far the training is. What is not a tensor stands as JSON in the file's
own metadata: one file is replaced in one step, so whatever moment a run is killed at, there is a whole checkpoint, all
of one moment.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tomolab import io
from tomolab.io import checksums, safe_load
from tomolab.learning.networks import Network

NAME = "checkpoint.safetensors"


@dataclass
class TrainingProgress:
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
    folder: Path, network: Network, optimiser: torch.optim.Optimizer, *, plan: dict[str, Any], progress: TrainingProgress
) -> None:
    """Write ``checkpoint.safetensors`` in `folder`: what the training is (`plan`), how far it is, and its state."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in progress.best.items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{key}": value for key, value in state.items() if isinstance(value, Tensor)}
    about = {name: getattr(progress, name) for name in ("history", "batch", "sums", "seconds")}
    with io.atomic(folder / NAME) as temporary:
        temporary.write_bytes(
            checksums.safetensors_bytes(
                {name: tensor.detach() for name, tensor in tensors.items()},
                {"plan": json.dumps(plan), "progress": json.dumps(about)},
            )
        )


def restore(folder: Path, network: Network, optimiser: torch.optim.Optimizer, *, plan: dict[str, Any]) -> TrainingProgress:
    """Fill network and optimiser from the checkpoint in `folder` and say how far it is; at the start where there is none.

    Raises
    ------
    ValueError
        If the checkpoint is of a training with another plan.
    """
    source = folder / NAME
    if not source.exists():
        return TrainingProgress()
    tensors, metadata = safe_load.read_safetensors(source, "a checkpoint")
    with safe_load.reading(source, "a checkpoint"):
        about = {key: safe_load.parse_json(text) for key, text in metadata.items()}
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
    with safe_load.reading(source, "a checkpoint"):
        so_far = _progress(about["progress"], _under("best.", tensors), network)
        state = _state(_under("optimiser.", tensors), optimiser)
        network.load_state_dict(_under("network.", tensors))
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return so_far


def _progress(saved: dict[str, Any], best: dict[str, Tensor], network: Network) -> TrainingProgress:
    """How far it is, if that can be."""
    safe_load.check_types(saved, history=list, batch=int, sums=list, seconds=(int, float))
    numbers = [saved["seconds"], *saved["sums"], *(value for row in saved["history"] for value in row.values())]
    if saved["batch"] < 0 or len(saved["sums"]) != 3 or not all(type(one) in (int, float) for one in numbers):
        raise ValueError(f"its progress is {str(saved)[:200]}")
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if best and {name: tensor.shape for name, tensor in best.items()} != wanted:
        raise ValueError("its best weights are of another network")
    return TrainingProgress(**saved, best=best)


def _state(tensors: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
    """State of the optimiser by the number of the parameter, each of its shape or a single number."""
    shapes = [one.shape for group in optimiser.param_groups for one in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, key = name.split(".")
        if not 0 <= int(number) < len(shapes) or (value.ndim and value.shape != shapes[int(number)]):
            raise ValueError(f"the state {name} of its optimiser has shape {tuple(value.shape)}")
        state.setdefault(int(number), {})[key] = value
    return state


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
