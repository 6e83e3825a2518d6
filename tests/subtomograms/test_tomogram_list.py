"""Many tomograms become one store: each with its own voxel size, tilts and contrast, also after an interruption."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tomolab import io, particles, subtomograms
from tomolab.subtomograms import cropping, store, tomogram_list, writer
from tomolab.volumes import Volume

SIZES = {"TS_01": 10.0, "TS_02": 12.0, "TS_03": 20.0}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Three tomograms of different kinds, with a list of them; shards are small, so that several are written."""
    monkeypatch.setattr(store, "SHARD_BYTES", 8192)
    rng = np.random.default_rng(0)
    for name, kind in (("TS_01", ".mrc"), ("TS_02", ".mrc.gz"), ("TS_03", ".zarr")):
        io.write_volume(Volume(rng.standard_normal((30, 40, 50)), SIZES[name]), tmp_path / f"{name}{kind}")
    (tmp_path / "TS_02.tlt").write_text("-51.5\n0\n48.0\n")
    (tmp_path / "tomograms.csv").write_text(
        "tomogram,path,voxel_size,tilts,tilt_min,tilt_max,contrast,flipped,note\n"
        "TS_01,TS_01.mrc,10,,-44,60,bright,,a\n"
        "TS_02,TS_02.mrc.gz,,TS_02.tlt,,,dark,,b\n"
        "TS_03,TS_03.zarr,,,,,,,c\n"
    )
    return tmp_path


def picks(count: int = 24) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    names = rng.permutation(np.repeat(list(SIZES), count // 3))
    return particles.table(
        rng.uniform(70, [230, 330, 430], (count, 3)), tomogram=list(names), ids=rng.permutation(count) + 5, tilts=(-66, 55)
    )


def test_every_tomogram_keeps_its_own(place: Path) -> None:
    tomograms, table = tomogram_list.read(place / "tomograms.csv"), picks()
    assert tomograms["note"].tolist() == ["a", "b", "c"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        cut = tomogram_list.extract(tomograms, table, box=6, voxel_size=20.0, path=place / "cut.zarr", progress=False)
    assert sorted([*cut.ids, *cut.skipped.get("particle_id", [])]) == sorted(table["particle_id"])
    assert len(cut) > 15
    tilts = {"TS_01": (-44, 60), "TS_02": (-51.5, 48.0), "TS_03": (-66, 55)}
    done = 0
    for name in dict.fromkeys(table["tomogram"]):
        rows = cut.particles[cut.particles["tomogram"] == name]
        assert set(zip(rows["tilt_min"], rows["tilt_max"], strict=True)) == {tilts[name]}
        contrast = "dark" if name == "TS_02" else "bright"
        assert set(rows["contrast"]) == {contrast}
        alone = subtomograms.extract(
            tomogram_list.open_tomogram(tomograms, name),
            table[table["particle_id"].isin(rows["particle_id"])],
            box=6,
            voxel_size=20.0,
            contrast=contrast,
        )
        assert rows["particle_id"].tolist() == alone.ids.tolist()
        assert np.array_equal(cut.volumes[done : done + len(rows)], alone.volumes)
        done += len(rows)
    again = subtomograms.open(place / "cut.zarr")
    assert not [one.name for one in place.iterdir() if one.name.startswith(".")]
    pd.testing.assert_frame_equal(again.particles, cut.particles)
    pd.testing.assert_frame_equal(again.skipped, cut.skipped)


def test_names_of_other_programs_are_matched_and_told(place: Path) -> None:
    tomograms, table = tomogram_list.read(place / "tomograms.csv"), picks()
    options = {"box": 6, "voxel_size": 20.0, "edges": "flag", "progress": False}
    straight = tomogram_list.extract(tomograms, table, path=place / "a.zarr", **options)
    with pytest.warns(UserWarning, match=r"TS_01\.tomostar is TS_01"):
        matched = tomogram_list.extract(
            tomograms, table.assign(tomogram=table["tomogram"] + ".tomostar"), path=place / "b.zarr", **options
        )
    pd.testing.assert_frame_equal(matched.particles, straight.particles)
    assert np.array_equal(matched.volumes[:], straight.volumes[:])


@pytest.mark.parametrize("after", [1, 2])
def test_work_that_was_interrupted_goes_on_and_ends_the_same(place: Path, monkeypatch, after: int) -> None:
    tomograms, table = tomogram_list.read(place / "tomograms.csv"), picks(60)
    options = {"box": 6, "voxel_size": 20.0, "edges": "flag", "progress": False}
    straight = tomogram_list.extract(tomograms, table, path=place / "straight.zarr", **options)
    made, add, boxes = [], writer.add, cropping.boxes

    def failing(journal, name, parts, *, skipped):
        made.append(name)

        def some():
            yield from parts
            # A shard of the tomogram is on disk when the power goes.
            if len(made) > after:
                raise KeyboardInterrupt

        return add(journal, name, some(), skipped=skipped)

    monkeypatch.setattr(writer, "add", failing)
    with pytest.raises(KeyboardInterrupt):
        tomogram_list.extract(tomograms, table, path=place / "cut.zarr", **options)
    assert not (place / "cut.zarr").exists()
    assert len(made) == after + 1
    made.clear()
    monkeypatch.setattr(writer, "add", add)
    monkeypatch.setattr(cropping, "boxes", lambda *given, **options: made.append(0) or boxes(*given, **options))
    cut = tomogram_list.extract(tomograms, table, path=place / "cut.zarr", **options)
    assert len(made) == 3 - after
    assert np.array_equal(cut.volumes[:], straight.volumes[:])
    pd.testing.assert_frame_equal(cut.particles, straight.particles)
    assert len(cut) == 60


def test_other_work_is_not_gone_on_with(place: Path) -> None:
    journal = writer.begin(place / "cut.zarr", "one", box=6, voxel_size=20.0)
    again = writer.begin(place / "cut.zarr", "one", box=6, voxel_size=20.0)
    assert again.done == journal.done == ()
    with pytest.warns(UserWarning, match="is of other particles, tomograms or parameters; it is dropped"):
        journal = writer.begin(place / "cut.zarr", "two", box=6, voxel_size=20.0)
    (journal.folder / writer.JOURNAL).write_text('{"key": "two", "done": ["a"], "count": 9}')
    with pytest.warns(UserWarning, match="cannot be read and is begun anew"):
        writer.begin(place / "cut.zarr", "two", box=6, voxel_size=20.0)


def test_what_cannot_work_is_refused_before_work_starts(place: Path, monkeypatch) -> None:
    tomograms, table = tomogram_list.read(place / "tomograms.csv"), picks()
    monkeypatch.setattr(cropping, "boxes", lambda *given, **options: pytest.fail("work was begun"))
    strange = table.assign(tomogram=["TS_99", "TS_98", *table["tomogram"][2:]])
    for rows, options, message in (
        (
            strange,
            {},
            r"2 of 24 particles are of 2 tomograms that the list does not hold, TS_99 \(1\), TS_98 \(1\): the list",
        ),
        (table[:0], {}, "the table of particles is empty"),
        (table, {"voxel_size": None}, "have 3 voxel sizes, 10, 12, 20 Å; give the one of the result"),
        (table, {"box": 20}, "a box of 20 voxels of 20 Å does not fit into 15 x 20 x 25 voxels .*TS_01"),
    ):
        with pytest.raises(ValueError, match=message):
            tomogram_list.extract(tomograms, rows, path=place / "cut.zarr", **{"box": 6, "voxel_size": 20.0} | options)
    (place / "TS_02.mrc.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"TS_02\.mrc\.gz"):
        tomogram_list.extract(tomograms, table, path=place / "cut.zarr", box=6, voxel_size=20.0)
    assert not [one.name for one in place.iterdir() if "cut" in one.name]


def test_if_nothing_can_be_cut_nothing_is_left(place: Path) -> None:
    table = particles.table([[0, 0, 0], [5, 5, 5]], tomogram="TS_01")
    with pytest.raises(ValueError, match=r"none of 2 particles could be cut: the box leaves the tomogram \(2\)"):
        tomogram_list.extract(
            tomogram_list.read(place / "tomograms.csv"), table, box=8, path=place / "cut.zarr", progress=False
        )
    assert not [one.name for one in place.iterdir() if "cut" in one.name]


def test_a_list_may_be_a_table(place: Path) -> None:
    (place / "a.csv").write_text("path,near,flipped\nTS_01.mrc,,no\nhttps://server.org/B.zarr,20,\n")
    found = tomogram_list.read(place / "a.csv")
    assert found["tomogram"].tolist() == ["TS_01", "B"]
    assert found["path"].tolist() == [str(place / "TS_01.mrc"), "https://server.org/B.zarr"]
    assert found["flipped"].tolist() == [False, None]
    assert found["contrast"].tolist() == [None, None]  # and is "bright" where boxes are cut
    paths = [place / "TS_01.mrc", place / "TS_02.mrc.gz"]
    made = tomogram_list.check(pd.DataFrame({"tomogram": ["A", "B"], "path": paths, "tilt_min": -60, "tilt_max": 50}))
    assert made["tilt_max"].tolist() == [50, 50]
    assert tomogram_list.open_tomogram(made, "B").voxel_size == 12.0
    with pytest.raises(ValueError, match="there is no tomogram 'TS_03' among 2"):
        tomogram_list.open_tomogram(made, "TS_03")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,contrast\na.mrc,black", "a: contrast must be 'bright' or 'dark', got 'black'"),
        ("path,flipped\na.mrc,yes", "a: flipped must be False, 'swap' or 'rotate', got 'yes'"),
        ("path,averaged\na.mrc,2", "a: averaged must be True or False"),
        ("path,voxel_size\na.mrc,ten", "a: voxel_size must be a number, got 'ten'"),
        ("path,voxel_size\na.mrc,-1", "positive number of Å, got -1"),
        ("path,tilt_min,tilt_max\na.mrc,60,-60", "lowest < highest within ±90°, got 60 and -60"),
        ("path,tilt_min\na.mrc,60", "lowest < highest"),
        ("path\na.mrc\nb/a.rec", "1 tomograms occur more than once: a"),
        ("tomogram,path\n,a.mrc", "has no name"),
        ("tomogram,path\na,", "a tomogram has no path"),
        ("tomogram\na", "has no column path; it has tomogram"),
        ("path", "and at least one row"),
        ("", "cannot be read as a list of tomograms"),
        ('path\n"a', "cannot be read as a list of tomograms"),
    ],
)
def test_faulty_lists_are_named(tmp_path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        tomogram_list.read(tmp_path / "a.csv")


def test_lists_that_are_none(tmp_path) -> None:
    (tmp_path / "a.csv").write_bytes(b"path\n\xff\xfe.mrc\n")
    with pytest.raises(ValueError, match="cannot be read as a list of tomograms"):
        tomogram_list.read(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("path,tilts\na.mrc,none.tlt")
    with pytest.raises(FileNotFoundError, match=r"none\.tlt"):
        tomogram_list.read(tmp_path / "a.csv")
    with pytest.raises(FileNotFoundError):
        tomogram_list.read(tmp_path / "b.csv")
