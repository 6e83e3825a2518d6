"""Names of tomograms are matched by a shown rule, or the names of both sides are said."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomolab import io
from tomolab.io.lists.tomogram_names import match_names, tilts_of

FORMS = [
    "TS_1",
    "TS_1.tomostar",
    "TS_1.mrc",
    "../TS_1.tomostar",
    "reconstruction/TS_1_10.00Apx.mrc",
    "TS_1_rec.mrc",
    "TS_1_full.rec",
    "TS_1_full_rec.mrc.gz",
    "TS_1_Vol.mrc",
    "TS_1.ome.zarr",
    "TS_1.mrc.mdoc",
    "C:\\data\\TS_1.st",
    "TS_1_8Apx.MRC",
]


@pytest.mark.parametrize("other", FORMS[1:])
def test_forms_of_one_name_match_and_are_told(other: str) -> None:
    for ours, theirs in ((FORMS[0], other), (other, FORMS[0])):
        with pytest.warns(UserWarning, match=r"tilts=: names of tomograms are compared without folders.*TS_1.* is .*TS_1"):
            assert match_names([ours, "TS_2"], ["TS_2", theirs, "TS_10"], what="tilts=") == {ours: theirs, "TS_2": "TS_2"}


@given(names=st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=5))
def test_a_name_that_is_there_means_itself(names: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert match_names([*names, *names], [*reversed(names), "another name"], what="a") == {name: name for name in names}


@pytest.mark.parametrize(
    ("names", "there", "message"),
    [
        (["001"], ["1", "0001.mrc"], r"the folder lacks 001; it has 0001\.mrc, 1$"),
        (["TS_1"], ["TS_1.mrc", "TS_1_rec.mrc"], r"lacks TS_1; it has .*TS_1 and TS_1\.mrc, TS_1_rec\.mrc are alike"),
        (["TS_1.tomostar", "TS_1.mrc"], ["TS_1"], r"TS_1\.tomostar, TS_1\.mrc and TS_1 are alike"),
        (["TS_1.tomostar", "TS_1"], ["TS_1"], r"lacks TS_1\.tomostar"),
        (["TS_1_bin4"], ["TS_1"], "lacks TS_1_bin4; it has TS_1$"),
        (["TS_1"], [], "lacks TS_1; it has nothing"),
        (["ts_1"], ["TS_1"], "lacks ts_1"),
    ],
)
def test_what_does_not_fit_once_is_refused(names: list[str], there: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match_names(names, there, what="the folder")


def test_mappings_are_looked_up_by_the_rule(tmp_path) -> None:
    path = tmp_path / "a.star"
    head = "data_particles\n\nloop_\n_rlnTomoName\n" + "".join(f"_rlnCenteredCoordinate{axis}Angst\n" for axis in "XYZ")
    path.write_text(head + "TS_1.tomostar 0 0 0\nTS_2.tomostar 5 0 0\nTS_1.tomostar 70 0 0\n")
    shapes = {"TS_2_10.00Apx.mrc": (100, 600, 400), "TS_1_10.00Apx.mrc": (120, 640, 480)}
    with pytest.warns(UserWarning, match="names of tomograms are compared"):
        read = io.read_particles(path, tilts={"TS_1": (-52, 64), "TS_2": (-60, 60)}, voxel_size=10.0, tomogram_shape=shapes)
    assert read["tomogram"].tolist() == ["TS_1.tomostar", "TS_2.tomostar", "TS_1.tomostar"]
    assert read[["z", "y", "x"]].to_numpy().tolist() == [[600, 3200, 2400], [500, 3000, 2005], [600, 3200, 2470]]
    assert read["tilt_max"].tolist() == [64, 60, 64]
    shapes = {"TS_1.tomostar": (120, 640, 480), "TS_2.tomostar": (100, 600, 400)}
    with pytest.raises(ValueError, match=r"tilts= lacks TS_2\.tomostar; it has TS_1, TS_3"):
        io.read_particles(path, tilts={"TS_1": (-52, 64), "TS_3": (-60, 60)}, voxel_size=10.0, tomogram_shape=shapes)


def test_rows_without_a_name_take_no_value_of_another() -> None:
    names = pd.Series(["a", None, "b"])
    with pytest.raises(ValueError, match="1 of 3 rows have no name of a tomogram"):
        tilts_of({"a": (-60, 60), "b": (-50, 50)}, names)
    np.testing.assert_array_equal(tilts_of((-60, 60), names), [[-60, 60]] * 3)
