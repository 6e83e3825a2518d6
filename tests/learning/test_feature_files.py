"""Features of other programs become an embedding by ids, with which everything works that works with ours."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomolab import averaging, clusters, inspection
from tomolab.learning import read_features
from tomolab.subtomograms import Subtomograms

VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
IDS = np.array([12, 5, 9, 0, 7, 40])
NAMES = ["0", "1", "2", "3"]


def table(**more: object) -> pd.DataFrame:
    return pd.DataFrame({"particle_id": IDS, **more, **dict(zip(NAMES, VECTORS.T, strict=True))})


def put(path: Path, rows: pd.DataFrame, **options: object) -> Path:
    if path.suffix == ".parquet":
        rows.to_parquet(path, **options)
    else:
        rows.to_csv(path, **{"index": False, "sep": "\t" if path.suffix == ".tsv" else ",", **options})
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.CSV", "a.parquet", "a.npz"])
@pytest.mark.parametrize("called", ["particle_id", "number"])
def test_features_belong_to_the_particles_of_their_ids(tmp_path, name: str, called: str) -> None:
    path, options = tmp_path / name, {}
    if name.endswith("npz"):
        keys = {"ids": "ids", "vectors": "vectors"} if called == "particle_id" else {"ids": "number", "vectors": "z"}
        np.savez(path, **{keys["ids"]: IDS, keys["vectors"]: VECTORS})
        options = {} if called == "particle_id" else keys
    else:
        put(path, table().rename(columns={"particle_id": called}))
        options = {} if called == "particle_id" else {"ids": called}
    found = read_features(path, **options)
    assert found.ids.tolist() == IDS.tolist()
    np.testing.assert_allclose(found.vectors, VECTORS, rtol=1e-6)
    order = pd.DataFrame({"particle_id": np.sort(IDS)})
    matched = read_features(path, particles=order, network="TomoTwin", **options)
    assert (matched.ids.tolist(), matched.network) == (sorted(IDS), "TomoTwin")
    np.testing.assert_allclose(matched.take(IDS).vectors, VECTORS, rtol=1e-6)
    assert read_features(path, **options).network == found.network != ""


@given(
    count=st.integers(1, 8),
    width=st.integers(1, 5),
    suffix=st.sampled_from([".csv", ".parquet", ".npz"]),
    kind=st.sampled_from(["f4", "f8", "i4"]),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_what_was_put_in_comes_out(tmp_path_factory, count: int, width: int, suffix: str, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids, vectors = rng.choice(1000, count, replace=False), (100 * rng.normal(size=(count, width))).astype(kind)
    path = tmp_path_factory.mktemp("a") / f"a{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, ids=ids, vectors=vectors)
    else:
        put(path, pd.DataFrame(vectors, columns=[f"f{n}" for n in range(width)]).assign(particle_id=ids))
    for options in ({"ids": ids} if suffix == ".npz" else {"columns": [f"f{n}" for n in range(width)]}, {}):
        if not options and suffix != ".npz" and width < 4:
            continue
        found = read_features(path, **options)
        assert found.ids.tolist() == ids.tolist()
        np.testing.assert_allclose(found.vectors, vectors.astype(np.float32), rtol=1e-5)


def test_the_order_of_the_rows_counts_only_if_the_user_says_so(tmp_path) -> None:
    np.save(tmp_path / "a.npy", VECTORS)
    np.savez(tmp_path / "a.npz", z=VECTORS)
    put(tmp_path / "a.csv", table().drop(columns="particle_id"))
    for name, options in (("a.npy", {}), ("a.npz", {"vectors": "z"}), ("a.csv", {})):
        with pytest.raises(
            ValueError, match=r"no ids; give|no array 'ids'|no column 'particle_id' .* ids=table\['particle_id'\]"
        ):
            read_features(tmp_path / name, **options)
        for ids in (IDS, IDS.tolist(), pd.Series(IDS, index=IDS[::-1])):
            found = read_features(tmp_path / name, ids=ids, **options)
            assert found.ids.tolist() == IDS.tolist()
            np.testing.assert_allclose(found.vectors, VECTORS, rtol=1e-6)
        with pytest.raises(ValueError, match="there are 5 ids and 6 rows of features"):
            read_features(tmp_path / name, ids=IDS[:5], **options)


def test_ids_in_the_index_of_a_table_are_found(tmp_path) -> None:
    found = read_features(put(tmp_path / "a.parquet", table().set_index("particle_id")))
    assert found.ids.tolist() == IDS.tolist()
    assert found.vectors.shape == (6, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(particle_id=[1, 2, 3, 3, 3, 4]), r"particle ids must be unique, but 1 are repeated: \[3\]"),
        (lambda t: t.assign(particle_id=[1, 2, None, 3, 5, 4]), "1 of 6 particle ids are missing"),
        (lambda t: t.assign(particle_id=[1, 2, 2.5, 3, 5, 4]), "1 of 6 particle ids are no whole numbers, such as"),
        (lambda t: t.assign(particle_id=list("abcdef")), "6 of 6 particle ids are no whole numbers, such as 'a'"),
        (lambda t: t.assign(**{"2": [1, 2, None, 4, 5, 6]}), "1 of 6 values in the column '2' are no finite numbers"),
        (lambda t: t.assign(**{"2": [1, 2, np.inf, 4, 5, 6]}), "1 of 6 values in the column '2' are no finite numbers"),
        (lambda t: t.assign(**{"2": [1, 2, 1e300, 4, 5, 6]}), "1 of 6 values in the column '2' are no finite numbers"),
        (lambda t: t.assign(**{"2": ["1", "2", "x", "4", "5", "6"]}), "1 of 6 values in the column '2' are no finite numbers"),
        (
            lambda t: t.assign(X=1.0, Y=2.0, Z=3.0),
            r"not clear which columns are features: there are 0, 1, 2, 3, X, Y, Z\. .*columns=",
        ),
        (lambda t: t.assign(rlnCoordinateX=1.0), "not clear which columns are features: there are 0, 1, 2, 3, rlnCoordinateX"),
        (lambda t: t.assign(**{"class": 1}), "not clear which columns are features: there are 0, 1, 2, 3, class"),
        (lambda t: t.assign(good=True), "not clear which columns are features: there are 0, 1, 2, 3, good"),
        (lambda t: t[["particle_id"]].assign(name="a"), "not clear which columns are features: there are name. Say"),
        (lambda t: t.iloc[:4], "2 of 6 particles have no features, such as"),
        (lambda t: t.assign(particle_id=IDS + 1), r"6 of its 6 ids are not in the particle table|ids are not in the particle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_what_is_not_clear_is_refused_by_name(tmp_path, name: str, change, message: str) -> None:
    path = put(tmp_path / name, change(table()))
    with pytest.raises(ValueError, match=message) as error:
        read_features(path, particles=pd.DataFrame({"particle_id": IDS}))
    assert str(path) in str(error.value)


def test_what_is_a_feature_can_be_said(tmp_path) -> None:
    path = put(tmp_path / "a.csv", table(X=1.0, Y=2.0), index=True)
    with pytest.raises(ValueError, match=r"there are Unnamed: 0, X, Y, 0, 1, 2, 3\. Say which are"):
        read_features(path)
    np.testing.assert_allclose(read_features(path, columns=NAMES[::-1]).vectors, VECTORS[:, ::-1], rtol=1e-6)
    with pytest.raises(ValueError, match="it has no features w, particle_id"):
        read_features(path, columns=["w", "1", "particle_id"])
    with pytest.raises(ValueError, match=r"vectors has no meaning for a \.csv file"):
        read_features(path, vectors="z")
    np.savez(tmp_path / "a.npz", ids=IDS, vectors=VECTORS)
    with pytest.raises(ValueError, match="columns has no meaning for arrays"):
        read_features(tmp_path / "a.npz", columns=NAMES)
    with pytest.raises(ValueError, match="it has no array 'z', only ids, vectors; vectors= names another"):
        read_features(tmp_path / "a.npz", vectors="z")


def test_a_file_of_text_is_what_its_first_line_says(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("particle_id;a;b\r\n1;0.5;2\r\n7;1.5;3\r\n")
    assert read_features(tmp_path / "a.csv", columns=["a", "b"]).vectors.tolist() == [[0.5, 2.0], [1.5, 3.0]]
    for text, message in (
        ("0.5,1.5\n2.5,3.5\n", "its first line holds numbers, 0.5, 1.5, where names of columns were expected"),
        ("particle_id,a,a\n1,2,3\n", "columns are repeated: a"),
        ("particle_id,a\n1,2,3\n4,5,6\n", "its rows hold 3 values, and its first line names 2 columns"),
        ("particle_id;a\n1;0,5\n2;1,5\n", "the column 'a' has decimal commas, such as '0,5'"),
        ("particle_id;a;b\n1;0,5;1\n2;1,5;2\n", "the column 'a' has decimal commas"),
        ("", "cannot be read as features"),
    ):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_features(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "name", ["cluster_id", "half", "kmeans", "leiden_0.5", "x_nm", "Y (px)", "tSNE1", "Score", "a4", "file"]
)
def test_what_is_called_otherwise_is_no_feature_unless_the_user_says_so(tmp_path, name: str) -> None:
    path = put(tmp_path / "a.csv", table(**{name: np.arange(6) / 7}))
    with pytest.raises(ValueError, match=r"not clear which columns are features: .* Say which are, columns="):
        read_features(path)
    np.testing.assert_allclose(read_features(path, columns=NAMES).vectors, VECTORS, rtol=1e-6)


def test_a_few_columns_are_no_features_unless_the_user_says_so(tmp_path) -> None:
    path = put(tmp_path / "a.csv", table()[["particle_id", "0", "1"]].rename(columns={"0": "umap0", "1": "umap1"}))
    with pytest.raises(ValueError, match=r"not clear .* umap0, umap1\. .* where they are 4 or more"):
        read_features(path)


@pytest.mark.parametrize("stem", ["f", "feature_", "z", "z_", "x", "q", "r1", "class_token_", "latent.", "PC", "dim_", "t"])
def test_features_that_are_counted_are_features(tmp_path, stem: str) -> None:
    names = [f"{stem}{n}" for n in range(4)]
    path = put(tmp_path / "a.csv", table().rename(columns=dict(zip(NAMES, names, strict=True))))
    np.testing.assert_allclose(read_features(path).vectors, VECTORS, rtol=1e-6)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([[0.0] * 1_000_000] * 10), "list<element: double>"),
        (pa.array([bytes(1_000_000)] * 100).dictionary_encode(), "dictionary<values=binary"),
    ],
    ids=["lists", "bytes"],
)
def test_lists_and_bytes_are_refused_before_they_unpack(tmp_path: Path, column: pa.Array, said: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"embedding": column}), path, compression="zstd")
    assert path.stat().st_size < 2000
    for options in ({}, {"columns": ["embedding"]}):
        with pytest.raises(ValueError, match=rf"its column 'embedding' holds {said}.*\['embedding'\].tolist\(\)"):
            read_features(path, **options)


def test_utf_16_is_read(tmp_path) -> None:
    text = pd.DataFrame(VECTORS, columns=[f"f{n}" for n in range(VECTORS.shape[1])]).assign(particle_id=IDS).to_csv(index=False)
    (tmp_path / "a.csv").write_text(text, encoding="utf-16")
    found = read_features(tmp_path / "a.csv")
    np.testing.assert_array_equal(found.ids, IDS)
    np.testing.assert_allclose(found.vectors, VECTORS, rtol=1e-6)


def test_what_is_kept_by_pickle_is_refused_with_the_way_out(tmp_path) -> None:
    for name in ("z.pkl", "a.temb", "a.tloc", "a.pickle", "a.joblib", "a.pt"):
        (tmp_path / name).write_bytes(b"\x80\x04N.")
        with pytest.raises(ValueError, match=rf"{name} was saved by pickle, .*to_parquet\(.*numpy.savez"):
            read_features(tmp_path / name)
    np.savez(tmp_path / "a.npz", ids=IDS, vectors=VECTORS.astype(object))
    with pytest.raises(ValueError, match="expected numbers or text"):
        read_features(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"is none of \.csv"):
        read_features(tmp_path / "a.hdf")
    with pytest.raises(FileNotFoundError):
        read_features(tmp_path / "none.csv")
    for wrong in (VECTORS[0], VECTORS[None], np.array([["a"]])):
        np.savez(tmp_path / "a.npz", ids=IDS, vectors=wrong)
        with pytest.raises(ValueError, match=r"expected features \(n, d\)"):
            read_features(tmp_path / "a.npz")
    holes = VECTORS.copy()
    holes[1:3, 0] = np.nan
    np.savez(tmp_path / "a.npz", ids=IDS, vectors=holes)
    with pytest.raises(ValueError, match="vectors of 2 particles hold NaN or infinity"):
        read_features(tmp_path / "a.npz")


def test_features_of_another_program_lead_to_an_average(folder: Path, boxes: Subtomograms, tmp_path_factory) -> None:
    """From a table in another order: clusters, an inspection, the average of one of them, and the run folder again."""
    kind = (boxes.particles["label"] == "tric").to_numpy()
    vectors = np.random.default_rng(1).normal(size=(len(boxes), 3)) * 0.05
    vectors[:, 0] += np.where(kind, 1.0, -1.0)
    rows = pd.DataFrame(vectors, columns=["a", "b", "c"]).assign(particle_id=boxes.ids).sample(frac=1, random_state=0)
    path = put(tmp_path_factory.mktemp("theirs") / "theirs.parquet", rows)
    features = read_features(path, columns=["a", "b", "c"], particles=boxes.particles, network="another program")
    labels = clusters.kmeans(features, 2, seed=0)
    assert clusters.agreement(labels, boxes.particles.set_index("particle_id")["label"])["purity"] == 1.0
    features.save(folder / "embedding")
    # A layout goes by its time.
    (folder / "layout.csv").write_bytes((folder / "layout.csv").read_bytes())
    work = inspection.open(folder)
    first, _ = work.split(0)
    members = work.session.members(first).ids
    assert set(members) in [set(boxes.ids[kind]), set(boxes.ids[~kind])]
    assert len(work.typical(members)) == 16
    assert work.features.network == "another program"
    made = averaging.average(boxes, members, seed=0, iterations=2, starts=1, progress=False, device="cpu")
    assert sorted(made.particles["particle_id"]) == sorted(members)
