"""Sessions: every step does what it says, comes back by undo, and is there again after a restart."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomolab import particles
from tomolab.inspection import Session
from tomolab.inspection import session as sessions
from tomolab.inspection.session_values import Cluster


def made(count: int = 12, clusters: int = 3, seed: int = 0) -> Session:
    """A session of particles with ids in no order."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(10 * count)[:count]
    table = particles.table(rng.uniform(0, 500, (count, 3)), ids=ids, score=rng.normal(size=count), mine="kept")
    labels = pd.Series(np.arange(count) % (clusters + 1) - 1, index=ids)
    return Session(table, labels.sample(frac=1, random_state=seed))


def state(session: Session) -> tuple:
    """All that a session holds, to compare."""
    return (
        session.labels.tolist(),
        session.selected.tolist(),
        dict(session.clusters),
        dict(session.filters),
        session.visible.tolist(),
    )


def test_labels_stay_with_their_particles() -> None:
    session = made()
    assert session.labels.tolist() == (np.arange(12) % 4 - 1).tolist()
    assert session.counts().to_dict() == {0: 3, 1: 3, 2: 3}
    assert session.members(1).ids.tolist() == sorted(session.ids[np.arange(12) % 4 == 2])


def test_selecting_adds_removes_and_intersects() -> None:
    session = made()
    ids = session.ids
    for how, some, expected in (
        ("replace", [0, 1, 2], [0, 1, 2]),
        ("add", [2, 3], [0, 1, 2, 3]),
        ("remove", [0], [1, 2, 3]),
        ("intersect", [3, 5], [3]),
    ):
        session.select(ids[some], how=how)
        assert np.flatnonzero(session.selected).tolist() == expected
    assert session.chosen("one", "test").ids.tolist() == [ids[3]]
    with pytest.raises(ValueError, match=r"1 of 2 particles are unknown here, such as \[-4\]"):
        session.select([ids[0], -4])
    # A mask is of all particles, in the order of the session or by its index.
    for mask in (session.particles["score"] > 0, (session.particles["score"] > 0).tolist(), session.labels == 1):
        session.select(mask)
        assert session.selected.tolist() == list(mask)
    session.select((session.labels == 1).sample(frac=1, random_state=1))
    assert session.selected.tolist() == (session.labels == 1).tolist()
    for wrong, why in (([True, False], "12 particles, got 2"), ([True, 5], "booleans among numbers"), ([0.5], "type float64")):
        with pytest.raises(ValueError, match=why):
            session.select(wrong)
    with pytest.raises(ValueError, match=r"there is no cluster \[True\]"):
        session.merge([True, 0])
    with pytest.raises(ValueError, match="how must be one of replace, add, remove, intersect, got 'xor'"):
        session.select([], how="xor")


def test_clusters_are_gathered_merged_split_and_unassigned() -> None:
    session = made()
    session.select(session.ids[:4])
    new = session.new_cluster("ribosomes")
    assert new == 3
    assert session.counts().to_dict() == {0: 2, 1: 2, 2: 2, 3: 4}
    assert session.title(3) == "ribosomes"
    assert session.merge([3, 0]) == 3
    assert session.counts().to_dict() == {1: 2, 2: 2, 3: 6}
    held = session.members(3).ids
    numbers = session.split(3, pd.Series([0, 1, 1, 1, 1, 2], index=held))
    assert numbers == [3, 4, 5]
    assert session.members(3).ids.tolist() == held[1:5].tolist()
    assert session.title(3) == "ribosomes"
    session.unassign(3)
    assert session.counts().to_dict() == {1: 2, 2: 2, 4: 1, 5: 1}
    # A number is not given again, so that what was made of cluster 3 is never taken for another one's.
    session.select(session.ids[:1])
    assert session.new_cluster() == 6


def test_what_is_sent_back_goes_where_it_came_from() -> None:
    session = made()
    session.describe(0, name="first", note="good")
    before = session.labels
    ids, others = before.index[before == 0], before.index[before == 1]
    # As a discovery does: all of cluster 0 and half of cluster 1 become one structure, the rest another.
    found = pd.Series(0, index=[*ids, *others]).where(lambda labels: ~labels.index.isin(others[2:]), 1)
    moved = session.relabel(found, before=before, name="structure", what="discover")
    one, two = moved.iloc[0], moved.iloc[-1]
    assert list(session.clusters) == [2, one, two]
    session.describe(2, name="first")
    session.send_back(one)
    assert session.labels[ids].eq(0).all()
    assert session.labels[others].tolist() == [1] * 2 + [two] * (len(others) - 2)
    assert session.clusters[0].note == "good"
    # Its name belongs to another cluster meanwhile.
    assert session.title(0) == "cluster 0"
    assert session.undo() == f"send back {len(ids) + 2} particles of structure 1"
    session.merge([one, two])
    session.send_back(one)
    assert session.labels[others].tolist() == [one] * 2 + [two] * (len(others) - 2)
    session.send_back(one, two)
    assert session.labels.equals(before)
    with pytest.raises(ValueError, match="no step brought particles into first"):
        session.send_back(2)


def test_an_accepted_cluster_is_so_until_it_is_another() -> None:
    session = made()
    session.accept(0, 1)
    assert session.history.past[-1].what == "accept cluster 0, cluster 1"
    session.accept(1, 2)
    assert [one.accepted for one in session.clusters.values()] == [True, True, True]
    session.accept(2, 1)
    assert [one.accepted for one in session.clusters.values()] == [True, False, False]
    held = session.members(0).ids
    session.split(0, pd.Series(np.arange(len(held)) % 2, index=held))
    assert not any(one.accepted for one in session.clusters.values())
    session.undo()
    session.merge([0, 1])
    assert not session.clusters[0].accepted


def test_what_is_counted_is_what_is_exported() -> None:
    session = made(200, 5)
    session.describe(2, name="chaperonin")
    session.merge([0, 4])
    counts = session.counts()
    assert len(session.table()) == counts.sum()
    for cluster in session.clusters:
        table = session.table([cluster])
        assert len(table) == counts[cluster] == len(session.members(cluster))
        assert (table["mine"] == "kept").all()
        assert set(table["cluster_name"]) == {session.title(cluster)}


def test_hidden_clusters_and_filters_leave_particles_out_of_sight() -> None:
    session = made()
    scores = session.particles["score"]
    session.describe(0, hidden=True)
    session.filter("score", low=0.0)
    np.testing.assert_array_equal(session.visible, (session.labels != 0).to_numpy() & (scores >= 0).to_numpy())
    session.filter("score")
    session.describe(0, hidden=False)
    assert session.visible.all()
    assert session.filters == {}
    with pytest.raises(ValueError, match="no column of numbers called 'mine'"):
        session.filter("mine")
    with pytest.raises(ValueError, match="from low to high, got 2 to 1"):
        session.filter("score", 2, 1)


def test_bad_steps_are_refused_and_leave_no_trace() -> None:
    session = made()
    before = state(session)
    for step, message in (
        (lambda: session.merge([1]), r"merging needs two clusters, got \[1\]"),
        (lambda: session.merge([1, 9]), r"there is no cluster \[9\]; there are \[0, 1, 2\]"),
        (session.new_cluster, "nothing is selected"),
        (lambda: session.split(1, pd.Series([0, 1], index=[1, 2])), "has 3 particles, but 2 or other particles have labels"),
        (lambda: session.split(1, pd.Series(0, index=session.members(1).ids)), "have the same label: a split needs two"),
        (lambda: session.describe(7, name="x"), "there is no cluster"),
    ):
        with pytest.raises(ValueError, match=message):
            step()
    session.describe(1, name="x")
    with pytest.raises(ValueError, match="another cluster is called 'x' already"):
        session.describe(2, name="x")
    session.undo()
    assert state(session) == before
    with pytest.raises(IndexError, match="nothing to undo"):
        session.undo()
    with pytest.raises(ValueError, match="12 particles, 12 of which have none"):
        Session(session.particles, pd.Series(0, index=range(1000, 1012)))


def test_watchers_hear_of_what_changed_and_two_of_them_come_to_rest() -> None:
    session, heard = made(), list[set[str]]()
    session.changed.connect(heard.append)
    # As a view that shows the selection and reports it back.
    session.changed.connect(lambda changed: session.select(session.ids[session.selected]) if "selected" in changed else None)
    session.select(session.ids[:3])
    session.select(session.ids[:3])
    session.merge([0, 1])
    session.undo()
    assert heard == [{"selected"}, {"labels", "clusters"}, {"labels", "clusters"}]
    assert [step.what for step in session.history.past] == ["select 3 particles (list, replace)"]


STEPS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2**31)), min_size=1, max_size=25)


def act(session: Session, kind: int, seed: int) -> None:
    """Do something of this kind, if it can be done."""
    rng = np.random.default_rng(seed)
    clusters = list(session.clusters)
    some = rng.choice(session.ids, rng.integers(0, len(session.ids)), replace=False)
    match kind:
        case 0 | 1:
            session.select(some, how=str(rng.choice(["replace", "add", "remove", "intersect"])))
        case 2 if session.chosen_rows.any():
            session.new_cluster()
        case 3 if len(clusters) > 1:
            session.merge(rng.choice(clusters, 2, replace=False))
        case 4 if clusters and (session.counts() > 1).any():
            held = session.members(int(session.counts().idxmax())).ids
            session.split(int(session.counts().idxmax()), pd.Series(np.arange(len(held)) % 2, index=held))
        case 5 if clusters:
            session.describe(int(rng.choice(clusters)), note=str(seed), hidden=bool(seed % 2))
        case 6:
            session.filter("score", *sorted(rng.normal(size=2)))
        case 7 if clusters:
            session.unassign(int(rng.choice(clusters)))
        case 8 if clusters:
            session.accept(*rng.choice(clusters, rng.integers(1, 3)).tolist())
        case 9 if clusters:
            with suppress(ValueError):
                session.send_back(int(rng.choice(clusters)))


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_any_steps_are_undone_redone_and_kept(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]) -> None:
    session, states = made(), []
    states.append(state(session))
    for kind, seed in steps:
        before = len(session.history.past)
        act(session, kind, seed)
        if len(session.history.past) > before:
            states.append(state(session))
    for expected in states[-2::-1]:
        session.undo()
        assert state(session) == expected
    # Half way along it is written, read, and goes on.
    for expected in states[1 : len(states) // 2 + 1]:
        session.redo()
        assert state(session) == expected
    path = session.save(tmp_path_factory.mktemp("session") / "session.npz")
    again = sessions.load(path, session.particles)
    assert state(again) == state(session)
    assert [step.what for step in again.history.past] == [step.what for step in session.history.past]
    for expected in states[len(states) // 2 + 1 :]:
        again.redo()
        assert state(again) == expected
    while again.history.past:
        again.undo()
    assert state(again) == states[0]


def test_a_step_of_a_few_particles_is_small_however_many_there_are(tmp_path: Path) -> None:
    table = particles.table(np.zeros((100_000, 3)))
    session = Session(table, pd.Series(np.arange(100_000) % 5, index=table["particle_id"]))
    empty = session.save(tmp_path / "session.npz").stat().st_size
    for start in range(0, 1000, 10):
        session.select(range(start, start + 10))
        session.new_cluster()
    assert session.save(tmp_path / "session.npz").stat().st_size < 1.2 * empty


def test_a_session_of_other_particles_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    session = made()
    session.describe(1, name="ärger", colour="#ff0000")
    path = session.save(tmp_path / "session.npz")
    assert sessions.load(path, session.particles).clusters[1] == Cluster("ärger", "#ff0000")
    with pytest.raises(ValueError, match="cannot be read as a session of these 12 particles"):
        sessions.load(path, made(seed=3).particles)
    with pytest.raises(ValueError, match="of the same particles in another order"):
        sessions.load(path, session.particles[::-1])
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cannot be read as a session"):
            sessions.load(path, session.particles)
    with pytest.raises(FileNotFoundError):
        sessions.load(tmp_path / "none.npz", session.particles)


def test_what_another_kernel_wrote_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "session.npz"
    first = made()
    first.take_over(path)
    other = made()
    other.select(other.ids[:2])
    other.save(path)
    with pytest.raises(
        FileExistsError, match=r"another program wrote this file .* save the session under another name: '.*session.npz'"
    ):
        first.save(path)
    assert sessions.load(path, first.particles).selected.sum() == 2
    assert [one.name for one in tmp_path.iterdir()] == ["session.npz"]
    # Each goes on with what it has read or written itself.
    again = sessions.load(path, first.particles)
    again.select(again.ids[:3])
    again.save(path)
    again.save(path)
    with pytest.raises(FileExistsError):
        other.save(path)
    # What is gone cannot be lost, and who knows of nothing says himself that it may go.
    path.unlink()
    other.save(path)
    made().save(path)
    # A clock that goes back does not make a file the same.
    os.utime(path, ns=(0, 0))
    with pytest.raises(FileExistsError):
        other.save(path)
