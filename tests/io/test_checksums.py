"""A flipped bit in whatever tomolab writes is noticed; files of other programs are read as they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from tomolab import particles, subtomograms
from tomolab.averaging.half_maps import Average
from tomolab.averaging.half_maps import load as load_average
from tomolab.io import checksums, safe_load
from tomolab.learning import embedding
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

TABLE = pd.DataFrame({"particle_id": np.arange(5), "name": ["a", "tomolab-crc32c:00000000", "ü", "", "b"]})
TENSORS = {"one": torch.arange(6.0).reshape(2, 3), "two": torch.zeros(0)}
FILES: dict[str, tuple[bytes, Callable[[Path], Any]]] = {
    "a.json": (checksums.json_bytes({"text": "tomolab-crc32c:00000000", "number": 1.5}), safe_load.read_json),
    "a.parquet": (checksums.parquet_bytes(TABLE), safe_load.read_parquet),
    "a.safetensors": (checksums.safetensors_bytes(TENSORS, {"about": "it"}), safe_load.read_safetensors),
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for name, (data, _) in FILES.items():
        (tmp_path / name).write_bytes(data)
    assert safe_load.read_json(tmp_path / "a.json") == {"text": "tomolab-crc32c:00000000", "number": 1.5}
    pd.testing.assert_frame_equal(safe_load.read_parquet(tmp_path / "a.parquet"), TABLE)
    tensors, about = safe_load.read_safetensors(tmp_path / "a.safetensors")
    assert about == {"about": "it"}
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    # Other programs pass over the checksum.
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), TABLE)
    assert torch.equal(load((tmp_path / "a.safetensors").read_bytes())["one"], TENSORS["one"])
    # What they write has none.
    other = TABLE.drop(columns="name")
    other.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    pd.testing.assert_frame_equal(safe_load.read_parquet(tmp_path / "a.parquet"), other)
    assert safe_load.read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_noticed(name: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    good, read = FILES[name]
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    raw = bytearray(good)
    raw[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.getbasetemp() / f"flipped {name}"
    path.write_bytes(raw)
    mark = good.rindex(checksums.MARK)
    if mark - 12 <= bit // 8 < mark + len(checksums.MARK):
        # Nothing is wrong but the mark itself or its name, and what is read is right.
        return
    with pytest.raises(ValueError, match="flipped"):
        read(path)


def an_average() -> Average:
    """An average of noise."""
    maps = [Volume(np.random.default_rng(seed).normal(size=(8, 8, 8)).astype(np.float32), 10.0) for seed in range(3)]
    fsc = pd.DataFrame({"resolution": [40.0, 20.0], "fsc": [1.0, 0.5]})
    return Average(*maps, fsc, particles.table(np.zeros((3, 3))), {"name": "a"})


def test_a_flipped_bit_in_a_folder_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    an_average().save(tmp_path / "average")
    embedding.Embedding(np.arange(5), rng.normal(size=(5, 3)), "network").save(tmp_path / "embedding")
    for folder, read in ((tmp_path / "average", load_average), (tmp_path / "embedding", embedding.load)):
        read(folder)
        for path in sorted(folder.iterdir()):
            good = path.read_bytes()
            for place in rng.integers(0, len(good), 20):
                path.write_bytes(good[:place] + bytes([good[place] ^ 1 << rng.integers(0, 8)]) + good[place + 1 :])
                if path.name != checksums.SUMS:
                    with pytest.raises(ValueError, match=path.name):
                        read(folder)
            path.write_bytes(good)
        (folder / checksums.SUMS).unlink()
        read(folder)


def test_a_store_is_read_on_where_parts_of_it_are_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomolab.subtomograms.store.SHARD_BYTES", 16 * 2 * 8**3)
    volumes = np.random.default_rng(0).normal(size=(40, 8, 8, 8)).astype(np.float16)
    Subtomograms(volumes, particles.table(np.zeros((40, 3)), ids=100 + np.arange(40)), 10.0).save(tmp_path / "a.zarr")
    shard = tmp_path / "a.zarr/volumes/c/1/0/0/0"
    raw = bytearray(shard.read_bytes())
    raw[3 * (2 * 8**3 + 4) + 7] ^= 1
    shard.write_bytes(raw)
    found = subtomograms.open(tmp_path / "a.zarr")
    np.testing.assert_array_equal(found.volumes[:19], volumes[:19])
    with pytest.raises(ValueError, match=r"1 volumes do not have their checksum, such as rows \[19\].*skip_damaged"):
        found.volumes[np.array([5, 19])]
    with pytest.warns(UserWarning, match=r"1 of 40 volumes in .* such as those of the particles \[119\]; they are left out"):
        rest = subtomograms.open(tmp_path / "a.zarr", skip_damaged=True)
    assert rest.ids.tolist() == [one for one in range(100, 140) if one != 119]
    np.testing.assert_array_equal(rest.volumes[:], np.delete(volumes, 19, axis=0))
    shard.unlink()
    with pytest.warns(UserWarning, match=r"16 of 40 volumes"):
        rest = subtomograms.open(tmp_path / "a.zarr", skip_damaged=True)
    np.testing.assert_array_equal(
        subtomograms.open(rest.save(tmp_path / "b.zarr")).volumes[:], np.delete(volumes, range(16, 32), 0)
    )


def test_a_half_done_embedding_with_a_flipped_bit_is_not_continued(tmp_path: Path) -> None:
    with embedding.PartialArray(10, dtype="float32", folder=tmp_path / "a.part") as part:
        part.add(np.random.default_rng(0).normal(size=(6, 4)))
    assert embedding.PartialArray(10, dtype="float32", folder=tmp_path / "a.part").done == 6
    path = tmp_path / "a.part/vectors.npy"
    raw = bytearray(path.read_bytes())
    raw[128 + 50] ^= 4
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="its first 6 rows do not have their checksum; delete"):
        embedding.PartialArray(10, dtype="float32", folder=tmp_path / "a.part")
