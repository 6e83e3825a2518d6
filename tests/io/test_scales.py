"""The scale is read from the environment."""

import pytest

from tomolab.io import scales


def test_scales(monkeypatch) -> None:
    monkeypatch.delenv("TOMOLAB_SCALE", raising=False)
    assert scales.scale().name == "laptop"
    monkeypatch.setenv("TOMOLAB_SCALE", "paper")
    assert (scales.scale().voxel_size, scales.scale().box) == (10.0, 40)
    monkeypatch.setenv("TOMOLAB_SCALE", "huge")
    with pytest.raises(ValueError, match="'huge'; it can be tiny, laptop, paper"):
        scales.scale()
