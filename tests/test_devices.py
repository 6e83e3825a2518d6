import pytest
import torch

from tomolab import devices


def test_the_default_is_a_device_that_is_there() -> None:
    assert devices.pick().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert devices.pick("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device 'cuda:1' was asked for, but torch sees no GPU here"):
        devices.pick("cuda:1")


def test_bfloat16_is_fast_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, fast in (("fma avx512f avx512_bf16", True), ("fma amx_bf16 amx_tile", True), ("fma avx2", False)):
        monkeypatch.setattr(devices.Path, "exists", lambda path: True)
        monkeypatch.setattr(devices.Path, "read_text", lambda path, flags=flags: f"flags : {flags}\n")
        assert devices.fast_bfloat16(torch.device("cpu")) is fast


def test_precision_is_one_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: True)
    answers = [devices.bfloat16(torch.device("cpu"), precision) for precision in ("auto", "bfloat16", "float32")]
    assert answers == [True, True, False]
    with pytest.raises(ValueError, match="got 'bf16'"):
        devices.bfloat16(torch.device("cpu"), "bf16")
