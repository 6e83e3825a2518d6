"""Catalogues of known maps: what is put in comes out, and what is damaged, hostile or of no known scale is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import blob
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tomolab import averaging, io
from tomolab.averaging import Average, Catalogue
from tomolab.averaging.fsc import resolution_at
from tomolab.volumes import Volume


def small(seed: int = 0, voxel_size: float = 10.0) -> Volume:
    """A blob off the centre, with a little noise."""
    noise = 0.01 * np.random.default_rng(seed).normal(size=(12,) * 3)
    return Volume(blob(12, (1, 0, 2), 1.5) + noise, voxel_size)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A saved catalogue of two maps."""
    about = pd.DataFrame({"mass_kda": {"a": 12.5}, "source": {"b": "a test"}})
    return Catalogue.from_maps({"a": small(1), "b": small(2)}, about=about).save(tmp_path / "catalogue")


def test_a_catalogue_is_saved_and_loaded(saved: Path) -> None:
    found = Catalogue.load(saved)
    assert list(found.maps) == ["a", "b"]
    np.testing.assert_array_equal(found.maps["a"].data, small(1).data)
    assert found.table.loc["a", "mass_kda"] == 12.5
    assert np.isnan(found.table.loc["b", "mass_kda"])
    assert found.table.loc["b", "source"] == "a test"
    assert 30 < found.table.loc["a", "diameter"] < 90
    pd.testing.assert_frame_equal(Catalogue.load(found.save(saved)).table, found.table)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9_.+ -]{0,20}[A-Za-z0-9])?", fullmatch=True),
    source=st.text(max_size=20),
    mass=st.one_of(st.none(), st.floats(0.1, 1e6)),
    voxel_size=st.floats(5.0, 30.0),
)
def test_any_row_is_kept(tmp_path: Path, name: str, source: str, mass: float | None, voxel_size: float) -> None:
    made = Catalogue({}, Catalogue.from_maps({}).table).add(name, small(voxel_size=voxel_size), source=source, mass_kda=mass)
    found = Catalogue.load(made.save(tmp_path / "catalogue"))
    pd.testing.assert_frame_equal(found.table, made.table)


def test_a_changed_map_is_refused(saved: Path) -> None:
    io.write_volume(small(3), saved / "b.mrc")
    with pytest.raises(ValueError, match=r"b\.mrc is not the map that was saved"):
        Catalogue.load(saved)
    (saved / "b.mrc").unlink()
    with pytest.raises(FileNotFoundError):
        Catalogue.load(saved)
    with pytest.raises(FileNotFoundError, match="is not a saved catalogue"):
        Catalogue.load(saved.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../a"}, "cannot name a map"),
        ({"name": "B"}, "differ only in case"),
        ({"name": "b"}, "twice"),
        ({"name": 3}, "its name"),
        ({"sha256": None}, "its sha256"),
        ({"diameter": -1.0}, "the diameter of 'a'"),
        ({"voxel_size": float("nan")}, "the voxel_size of 'a'"),
        ({"mass_kda": "heavy"}, "its mass_kda"),
    ],
)
def test_a_hostile_index_is_refused(saved: Path, change: dict, message: str) -> None:
    index = json.loads((saved / "index.json").read_text())
    index["maps"][0] |= change
    (saved / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        Catalogue.load(saved)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2, "maps": []}', '{"version": 1, "maps": [3]}', "\0"])
def test_what_is_no_index_is_refused(saved: Path, text: str) -> None:
    (saved / "index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json"):
        Catalogue.load(saved)


def test_an_interrupted_write_leaves_the_old_catalogue(saved: Path) -> None:
    found = Catalogue.load(saved)
    broken = Catalogue(found.maps, found.table.astype({"source": object}))
    broken.table.loc["b", "source"] = object()
    with pytest.raises(TypeError):
        broken.save(saved)
    assert Catalogue.load(saved).table.loc["b", "source"] == "a test"


def test_a_folder_of_maps(tmp_path: Path) -> None:
    io.write_volume(small(1), tmp_path / "first.mrc")
    io.write_volume(small(2), tmp_path / "second.mrc.gz")
    found = Catalogue.from_folder(tmp_path)
    assert list(found.maps) == ["first", "second"]
    assert found.table.loc["second", "source"] == "second.mrc.gz"
    io.write_volume(small(1), tmp_path / "second.mrc")
    with pytest.raises(ValueError, match="two maps that are called second"):
        Catalogue.from_folder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no maps"):
        Catalogue.from_folder(tmp_path / "empty")


def test_a_map_of_unknown_scale_is_refused(tmp_path: Path) -> None:
    io.write_volume(small(voxel_size=1.0), tmp_path / "one.mrc")
    with pytest.raises(ValueError, match="give voxel_size"):
        Catalogue.from_folder(tmp_path)
    assert Catalogue.from_folder(tmp_path, voxel_size=1.0).table.loc["one", "voxel_size"] == 5.0
    raw = bytearray((tmp_path / "one.mrc").read_bytes())
    raw[40:52] = bytes(12)  # no cell
    (tmp_path / "one.mrc").write_bytes(raw)
    with pytest.raises(ValueError, match="give voxel_size"):
        Catalogue.from_folder(tmp_path)


def test_maps_that_show_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="the map flat is constant"):
        Catalogue.from_maps({"flat": Volume(np.ones((8,) * 3), 10.0)})
    with pytest.raises(ValueError, match="invert its contrast"):
        Catalogue.from_maps({"dark": Volume(-np.ceil(blob(12, (0, 0, 0), 1.5) - 0.5), 10.0)})
    with pytest.raises(ValueError, match="cannot name a map"):
        Catalogue.from_maps({"a/b": small()})
    with pytest.raises(ValueError, match="twice"):
        Catalogue.from_maps({"a": small()}, about=pd.DataFrame({"source": ["x", "y"]}, index=["a", "a"]))
    with pytest.raises(ValueError, match="has no map c"):
        Catalogue.from_maps({"a": small()}).choose(["c"])


def test_an_average_joins_if_it_is_reliable(phantom: Volume) -> None:
    noise = np.random.default_rng(1).normal(size=(3, 32, 32, 32))
    maps = [Volume(phantom.data + 0.1 * one, 10.0) for one in noise]
    table = pd.DataFrame({"particle_id": [1]})
    good = Average(*maps, averaging.correlate(*maps[1:]), table, {"mask": 280.0, "together": 60.0})
    grown = Catalogue.from_maps({}).add("mine", good, source="this test", mass_kda=100)
    assert grown.table.loc["mine", "diameter"] == 280
    assert grown.table.loc["mine", "resolution"] == max(resolution_at(good.fsc, 0.5), 20.0)
    halves = [Volume(one, 10.0) for one in noise]
    with pytest.raises(ValueError, match="halves do not agree"):
        grown.add("noise", Average(*halves, averaging.correlate(*halves[1:]), table, {"mask": 280.0, "together": 60.0}))
