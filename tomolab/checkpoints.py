"""Checkpoints: weights, optimiser state and history of a training after a whole epoch, as safetensors and JSON.

A checkpoint is one folder, written whole or not at all, so that its parts can only be of one epoch.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from tomolab import files
from tomolab.networks import Network


def write(
    folder: Path, network: Network, optimiser: torch.optim.Optimizer, *, plan: dict[str, Any], history: list[dict[str, float]]
) -> None:
    """Write ``checkpoint/`` in `folder`: what the training is (`plan`), how far it came (`history`) and its state."""
    tensors = {f"network.{name}": tensor.contiguous() for name, tensor in network.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {
            f"optimiser.{number}.{key}": value.contiguous() for key, value in state.items() if isinstance(value, Tensor)
        }
    with files.atomic(folder / "checkpoint") as temporary:
        temporary.mkdir()
        (temporary / "state.safetensors").write_bytes(to_bytes(tensors))
        (temporary / "checkpoint.json").write_text(json.dumps({"plan": plan, "history": history}) + "\n")


def restore(
    folder: Path, network: Network, optimiser: torch.optim.Optimizer, *, plan: dict[str, Any]
) -> list[dict[str, float]]:
    """Fill network and optimiser from the checkpoint in `folder` and return its history; empty where there is none.

    Raises
    ------
    ValueError
        If the checkpoint is of a training with another plan.
    """
    source = folder / "checkpoint"
    if not source.exists():
        return []
    found = json.loads((source / "checkpoint.json").read_text())
    old = found["plan"]
    different = [f"{key} {old.get(key)!r}, now {value!r}" for key, value in plan.items() if old.get(key) != value]
    if different:
        raise ValueError(
            f"the checkpoint in {folder} is of another training ({'; '.join(different)}); use resume=False or another folder"
        )
    tensors = load_file(source / "state.safetensors")
    weights = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    network.load_state_dict(weights)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".")
            state.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return found["history"]
