"""Context columns: distances that were put in come out, in the table, in filters, in lists, and after a restart."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tomolab import inspection, io, particles
from tomolab.inspection import Session, cluster_columns, context, exports, run_contents
from tomolab.volumes import Volume


def sheet(shape: tuple[int, int, int] = (20, 40, 60)) -> np.ndarray:
    """A membrane: True in the layers 10 to 12 of y."""
    mask = np.zeros(shape, dtype=bool)
    mask[:, 10:13] = True
    return mask


def test_distances_are_those_that_were_put_in() -> None:
    # y in voxels of 10 Å: on the first layer of the sheet, in its middle, five layers before it, and ten behind it.
    places = np.array([[5.0, 10, 30], [5, 11, 40], [5, 5, 30], [15, 22, 30]]) * 10
    table = particles.table(places, tomogram=["a", "a", "a", "b"])
    volume = Volume(np.zeros((20, 40, 60), np.float32), 10.0)
    masks = {"membrane": {"a": Volume(sheet().astype(np.float32), 10.0)}}
    found = context.add(table, shapes={"a": volume, "b": volume}, masks=masks)
    np.testing.assert_allclose(found["distance_to_membrane"], [0, -10, 50, np.nan])
    assert found["in_membrane"].tolist() == [True, True, False, None]
    np.testing.assert_allclose(found["neighbour_distance"], [50, 100 * np.sqrt(1.01), 50, np.nan])
    # The lower face is half a voxel below the centre of the first voxel; the upper one lies at 195 Å.
    np.testing.assert_allclose(found["depth"], [55, 55, 55, 45])
    assert "map_density" not in found
    # What a user's own table calls so stays.
    own = context.add(table.assign(depth=1.0), shapes={"a": volume})
    assert own["depth"].tolist() == [1.0] * 4


def test_a_mask_of_other_voxels_fits_and_one_of_another_tomogram_is_refused() -> None:
    table = particles.table([[50.0, 110, 300], [50, 310, 300]])
    volume = Volume(np.zeros((20, 40, 60), np.float32), 10.0)
    coarse = np.zeros((10, 20, 30), np.float32)
    coarse[:, 5:7] = 1
    found = context.add(table, shapes={"tomogram": volume}, masks={"wall": {"tomogram": Volume(coarse, 20.0)}})
    assert found["in_wall"].tolist() == [True, False]
    # To the nearest voxel of the surface: centres lie at 105 and 125 Å along y, and 5 Å beside the particles along z and x.
    np.testing.assert_allclose(found["distance_to_wall"], [-np.sqrt(75), np.hypot(185, np.sqrt(50))], atol=0.01)
    with pytest.raises(ValueError, match=r"the mask wall of tomogram is 100 × 200 × 300 Å large .* but its tomogram 200 × 400"):
        context.add(table, shapes={"tomogram": volume}, masks={"wall": {"tomogram": Volume(coarse, 10.0)}})
    empty = Volume(np.zeros((20, 40, 60), np.float32), 10.0)
    found = context.add(table, masks={"wall": {"tomogram": empty}})
    assert found["in_wall"].tolist() == [False, False]
    assert "distance_to_wall" not in found


def test_the_density_of_the_map_is_high_where_points_are_many() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 0.1, (900, 2)), rng.uniform(-5, 5, (100, 2))])
    found = context.density(points)
    assert found.mean() == pytest.approx(1)
    assert np.median(found[:900]) > 10 * np.median(found[900:])
    assert context.density(np.zeros((3, 2))).tolist() == [1, 1, 1]
    assert len(context.density(np.empty((0, 2)))) == 0


def test_a_mask_in_the_run_folder_gives_columns_filters_and_lists(folder: Path) -> None:
    with pytest.raises(ValueError, match="the name of a mask is letters"):
        inspection.write_mask(folder, "my mask", sheet())
    with pytest.raises(ValueError, match=r"has shape \(20, 40, 60\), but the tomogram \(40, 60, 80\)"):
        inspection.write_mask(folder, "membrane", sheet())
    with pytest.raises(ValueError, match="there is no tomogram 'TS_9'"):
        inspection.write_mask(folder, "membrane", sheet(), tomogram="TS_9")
    inspection.write_mask(folder, "membrane", lambda volume: sheet(volume.shape))
    work = inspection.open(folder)
    session = work.session
    table, y = session.particles, session.particles["y"].to_numpy()
    inside = (np.rint(y / 20) >= 10) & (np.rint(y / 20) <= 12)
    assert table["in_membrane"].tolist() == inside.tolist()
    outside = table["distance_to_membrane"][~inside]
    np.testing.assert_allclose(outside, np.maximum(200 - y, y - 240)[~inside], atol=1e-3 + 20)
    session.filter("distance_to_membrane", high=300.0)
    near = (table["distance_to_membrane"] <= 300).to_numpy()
    assert session.visible.tolist() == near.tolist()
    exports.export(work, folder / "near.csv")
    assert io.read_particles(folder / "near.csv")["distance_to_membrane"].max() <= 300
    # The session is there again, also for the report; without the mask it says what is missing, and another begins.
    assert inspection.open(folder).session.visible.tolist() == near.tolist()
    found = run_contents.read(folder)
    assert found.faults == []
    assert found.session is not None
    assert found.session.visible.tolist() == near.tolist()
    (folder / "masks" / "cell" / "membrane.mrc").unlink()
    with pytest.warns(UserWarning, match="it filters by 'distance_to_membrane', which the table does not have"):
        assert inspection.open(folder).session.visible.all()


def test_columns_of_a_mask_are_computed_once_and_again_when_mask_or_particles_change(folder: Path) -> None:
    (path,) = inspection.write_mask(folder, "membrane", lambda volume: sheet(volume.shape))
    saved, table = path.with_name("membrane.mrc.npz"), io.read_particles(folder / "clusters.csv")
    tomogram = io.open_volume(folder / "tomogram.mrc")

    def distances(particles: pd.DataFrame) -> list[float]:
        found = context.add(particles, shapes={"cell": tomogram}, masks={"membrane": {"cell": path}}, save=True)
        return found["distance_to_membrane"].tolist()

    first = distances(table)
    # Another number in the file comes out: the mask is not read again.
    with np.load(saved) as arrays:
        np.savez(saved, **{**arrays, "distance": arrays["distance"] + 1000})
    assert distances(table) == [one + 1000 for one in first]
    assert 200 <= min(distances(table.assign(y=0.0))) <= max(distances(table.assign(y=0.0))) < 210
    assert distances(table) == first
    for damage in (b"", b"PK", saved.read_bytes()[:300]):
        saved.write_bytes(damage)
        assert distances(table) == first
    # The whole tomogram inside: there is no surface.
    io.write_volume(Volume(np.ones((40, 60, 80), np.float32), 20.0), path)
    assert context.add(table, masks={"membrane": {"cell": path}}, save=True)["in_membrane"].all()
    # Beside a file of somebody else nothing is written.
    saved.unlink()
    assert context.add(table, masks={"membrane": {"cell": path}})["in_membrane"].all()
    assert not saved.exists()


def test_values_are_filters_too_and_come_back() -> None:
    table = particles.table(np.arange(12.0).reshape(4, 3) * 50, tomogram=["a", "b", "b", "c"], good=[True, False, True, True])
    session = Session(table, pd.Series([0, 0, 1, -1], index=table["particle_id"]))
    session.filter_values("tomogram", ["b", "c"])
    assert session.visible.tolist() == [False, True, True, True]
    assert session.history.past[-1].what == "show tomogram: b, c"
    session.filter_values("good", [True])
    assert session.visible.tolist() == [False, False, True, True]
    session.undo()
    session.filter_values("tomogram", None)
    assert session.filters == {}
    session.show_only(1)
    assert session.visible.tolist() == [False, False, True, True]
    session.show_only()
    assert session.visible.all()
    with pytest.raises(ValueError, match="there is no column called 'colour'"):
        session.filter_values("colour", ["red"])
    with pytest.raises(ValueError, match=r"tomogram holds none of \['d'\]; it holds a, b, c"):
        session.filter_values("tomogram", ["d"])


def test_filters_by_value_are_saved(tmp_path: Path) -> None:
    from tomolab.inspection import session as sessions

    table = particles.table(np.zeros((3, 3)), tomogram=["a", "b", "b"])
    session = Session(table)
    session.filter_values("tomogram", ["b"])
    again = sessions.load(session.save(tmp_path / "session.npz"), table)
    assert again.filters == {"tomogram": ("b",)}
    assert again.visible.tolist() == [False, True, True]
    again.undo()
    assert again.visible.all()


def test_particles_of_a_cluster_are_counted_by_tomogram() -> None:
    table = particles.table(np.zeros((5, 3)), tomogram=["a", "b", "b", "b", "a"])
    session = Session(table, pd.Series([0, 0, 1, -1, 1], index=table["particle_id"]))
    counts = cluster_columns.counts_by(session, "tomogram")
    assert counts.to_dict() == {"a": {0: 1, 1: 1}, "b": {0: 1, 1: 1}}
    session.filter_values("tomogram", ["b"])
    assert cluster_columns.counts_by(session, "tomogram").to_dict() == {"b": {0: 1, 1: 1}}
    session.describe(1, hidden=True)
    assert cluster_columns.counts_by(session, "tomogram").to_dict() == {"b": {0: 1, 1: 0}}
    with pytest.raises(ValueError, match="no column called 'label'"):
        cluster_columns.counts_by(session, "label")
