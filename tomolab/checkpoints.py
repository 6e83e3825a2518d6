"""Checkpoints: weights, optimiser state and history of a training after a whole epoch, in one safetensors file.

What is not a tensor stands as JSON in the file's own metadata: one file is replaced in one step, so whatever moment a run
is killed at, there is a whole checkpoint, and its parts can only be of one epoch.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from tomolab import files
from tomolab.networks import Network

NAME = "checkpoint.safetensors"


def write(
    folder: Path, network: Network, optimiser: torch.optim.Optimizer, *, plan: dict[str, Any], history: list[dict[str, float]]
) -> None:
    """Write ``checkpoint.safetensors`` in `folder`: what the training is (`plan`), its `history` and its state."""
    tensors = {f"network.{name}": tensor.contiguous() for name, tensor in network.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {
            f"optimiser.{number}.{key}": value.contiguous() for key, value in state.items() if isinstance(value, Tensor)
        }
    with files.atomic(folder / NAME) as temporary:
        temporary.write_bytes(to_bytes(tensors, metadata={"plan": json.dumps(plan), "history": json.dumps(history)}))


def restore(
    folder: Path, network: Network, optimiser: torch.optim.Optimizer, *, plan: dict[str, Any]
) -> list[dict[str, float]]:
    """Fill network and optimiser from the checkpoint in `folder` and return its history; empty where there is none.

    Raises
    ------
    ValueError
        If the checkpoint is of a training with another plan.
    """
    source = folder / NAME
    if not source.exists():
        return []
    with safe_open(source, framework="pt") as file:
        about = {key: json.loads(text) for key, text in file.metadata().items()}
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    old = about["plan"]
    different = [f"{key} {old.get(key)!r}, now {value!r}" for key, value in plan.items() if old.get(key) != value]
    if different:
        raise ValueError(
            f"the checkpoint in {folder} is of another training ({'; '.join(different)}); use resume=False or another folder"
        )
    weights = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    network.load_state_dict(weights)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return about["history"]
