"""Devices: which one computes, and what it is good at."""

from pathlib import Path

import torch


def pick(name: str | torch.device | None = None) -> torch.device:
    """The torch device of that name; by default the first GPU if there is one, else the CPU.

    Raises
    ------
    ValueError
        If a GPU is asked for and torch sees none.
    """
    chosen = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {str(chosen)!r} was asked for, but torch sees no GPU here; `tomolab doctor` says why, and 'cpu' works"
        )
    return chosen


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware: GPUs since 2020, CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    information = Path("/proc/cpuinfo")
    return information.exists() and bool({"amx_bf16", "avx512_bf16"} & set(information.read_text().split()))


def bfloat16(device: torch.device, precision: str) -> bool:
    """Whether to compute in bfloat16: as `precision` says, and with "auto" where the device does it fast.

    Raises
    ------
    ValueError
        If `precision` is not "auto", "float32" or "bfloat16".
    """
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f'precision is "auto", "float32" or "bfloat16", got {precision!r}')
    return precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device))
