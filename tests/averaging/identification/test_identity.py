"""Names: averages of simulated particles are found among the known maps, in the right hand, or said to be novel."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tomolab import averaging, particles, simulation, volumes
from tomolab.averaging import Average, Catalogue
from tomolab.simulation import Imaging
from tomolab.volumes import Volume

NAMES = ["ribosome_70s", "ribosome_30s", "spliceosome", "mm_cpn_open", "atcase", "dahp_synthase", "ruvab", "apoferritin"]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """Eight shipped complexes."""
    return Catalogue.from_maps(simulation.load_densities(NAMES), about=simulation.catalogue().set_index("name"))


def averaged(name: str, *, count: int = 60) -> Average:
    """An average of simulated subtomograms of a shipped complex in their true poses."""
    maps = simulation.load_densities([name], voxel_size=20.0, box=20)
    boxes = simulation.subtomograms(maps, count, imaging=Imaging(snr=0.1), box=20, seed=1, progress=False, device="cpu")

    def part(ids: np.ndarray) -> Volume:
        some = boxes.take(ids)
        table = some.particles
        turns = particles.matrices(table.assign(rot=table["true_rot"], tilt=table["true_tilt"], psi=table["true_psi"]))
        shifts = table[["true_z", "true_y", "true_x"]].to_numpy() - table[["z", "y", "x"]].to_numpy()
        return averaging.with_poses(some, turns, shifts, device="cpu")[0]

    whole, half1, half2 = (part(ids) for ids in (boxes.ids, boxes.ids[::2], boxes.ids[1::2]))
    return Average(whole, half1, half2, averaging.correlate(half1, half2, diameter_voxels=16), boxes.particles, {"mask": 320.0})


@pytest.fixture(scope="module")
def ribosome() -> Average:
    """An average of the 70S ribosome."""
    return averaged("ribosome_70s")


def test_a_known_structure_is_named(ribosome: Average, catalogue: Catalogue) -> None:
    found = averaging.identify(ribosome, catalogue)
    assert (found.verdict, found.names, found.hand) == ("known", ["ribosome_70s"], "as it is")
    assert found.fits["correlation"].is_monotonic_decreasing
    assert 0.85 < found.fits["correlation"][0] < 1.15
    assert found.fits["p_value"][0] < 0.001
    assert str(found).startswith("known: ribosome_70s (r ")
    # The known map lies on the average.
    assert averaging.correlate(found.nearest, ribosome.volume, diameter_voxels=16)["fsc"][:4].min() > 0.8


def test_the_mirror_image_is_found(ribosome: Average, catalogue: Catalogue) -> None:
    maps = {name: volumes.mirror(getattr(ribosome, name)) for name in ("volume", "half1", "half2")}
    found = averaging.identify(replace(ribosome, **maps), catalogue)
    assert (found.verdict, found.names, found.hand) == ("known", ["ribosome_70s"], "mirrored")
    assert str(found).startswith("known: ribosome_70s, mirrored (r ")


def test_a_map_with_a_resolution_is_named(ribosome: Average, catalogue: Catalogue) -> None:
    assert averaging.identify(ribosome.volume, catalogue, resolution=60.0, mask_diameter=320.0).names == ["ribosome_70s"]


def test_a_structure_that_is_left_out_is_novel(ribosome: Average, catalogue: Catalogue) -> None:
    found = averaging.identify(ribosome, catalogue.choose(NAMES[1:]))
    assert (found.verdict, found.names) == ("novel", [])
    assert str(found).startswith("novel: nearest ")
    assert found.fits["correlation"][0] < 0.7


def test_two_maps_of_one_structure_are_ambiguous(ribosome: Average, catalogue: Catalogue) -> None:
    twice = catalogue.add("again", catalogue.maps["ribosome_70s"])
    found = averaging.identify(ribosome, twice)
    assert found.verdict == "ambiguous"
    assert set(found.names) == {"ribosome_70s", "again"}
    assert "ribosome_70s" in str(found)
    assert " or " in str(found)


def test_noise_is_not_known(catalogue: Catalogue) -> None:
    noise = [Volume(one, 20.0) for one in np.random.default_rng(1).normal(size=(3, 20, 20, 20))]
    average = Average(*noise, averaging.correlate(*noise[1:]), averaged("atcase", count=4).particles, {"mask": 300.0})
    assert averaging.identify(average, catalogue).verdict != "known"


def test_an_own_average_is_found_again(ribosome: Average, catalogue: Catalogue) -> None:
    """The map of an average, at its own scale, names another average of the structure."""
    grown = catalogue.choose(NAMES[1:]).add("mine", replace(ribosome, record=ribosome.record | {"together": 100.0}))
    found = averaging.identify(averaged("ribosome_70s", count=80), grown)
    assert (found.verdict, found.names, found.hand) == ("known", ["mine"], "as it is")


def test_the_verdict_is_kept_with_the_average(ribosome: Average, catalogue: Catalogue, tmp_path) -> None:
    found = averaging.identify(ribosome, catalogue)
    found.add_to(ribosome).save(tmp_path / "average")
    kept = averaging.load(tmp_path / "average").record["identity"]
    assert kept == json.loads(json.dumps(found.record))
    assert (kept["verdict"], kept["names"], kept["sentence"]) == ("known", ["ribosome_70s"], str(found))
    assert "identity" not in ribosome.record


def test_bad_input_is_refused_before_work(ribosome: Average, catalogue: Catalogue) -> None:
    volume = ribosome.volume
    with pytest.raises(ValueError, match="needs its resolution"):
        averaging.identify(volume, catalogue)
    with pytest.raises(ValueError, match="resolution must be a positive number"):
        averaging.identify(volume, catalogue, resolution=float("nan"))
    with pytest.raises(ValueError, match="constant map"):
        averaging.identify(Volume(np.ones((20,) * 3), 20.0), catalogue, resolution=60.0)
    with pytest.raises(ValueError, match="is a cube"):
        averaging.identify(volumes.fit(volume, (20, 20, 18)), catalogue, resolution=60.0)
    with pytest.raises(ValueError, match="at least 4 maps"):
        averaging.identify(volume, catalogue.choose(NAMES[:3]), resolution=60.0)
    with pytest.raises(ValueError, match=r"larger than the box of 240 Å.*catalogue\.choose"):
        averaging.identify(volumes.fit(volume, 12), catalogue, resolution=60.0)
    same = {f"copy_{i}": catalogue.maps["atcase"] for i in range(4)}
    with pytest.raises(ValueError, match="of at least 4 different structures"):
        averaging.identify(volume, Catalogue.from_maps(same), resolution=60.0)
