"""Jobs run in the background one after another, tell how far they are, stop when asked, and keep what went wrong."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tomolab import averaging, jobs, simulation
from tomolab.averaging import Average, Discovery
from tomolab.inspection.discovery import DiscoveryProgress
from tomolab.jobs import Job, Progress
from tomolab.simulation import Imaging, densities
from tomolab.subtomograms import Subtomograms
from tomolab.ui import images, job_summary
from tomolab.ui.notebook import jobs as job_widgets
from tomolab.volumes import Volume


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Work made by `counting` goes on when it is set; whatever happens, in the end it is."""
    gate = threading.Event()
    yield gate
    gate.set()


def counting(steps: int, gate: threading.Event, *, progress: Callable[[Any], Any], stop: Callable[[], bool]) -> int:
    """Count, telling every step, and wait for the gate after the first."""
    for step in range(1, steps + 1):
        progress(SimpleNamespace(iteration=step, of=steps))
        gate.wait(30)
        if stop():
            return step
    return steps


def until(question: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def test_a_job_tells_how_far_it_is_and_gives_its_result(gate: threading.Event) -> None:
    job = jobs.start("count", counting, 3, gate)
    until(lambda: job.progress is not None)
    assert job.state == "running"
    assert not job.over
    assert job.progress.iteration == 1
    with pytest.raises(TimeoutError):
        job.result(timeout=0.01)
    gate.set()
    assert job.result(20) == 3
    assert (job.state, job.over) == ("done", True)
    seconds = job.seconds
    assert seconds > 0
    job.stop()
    assert (job.state, job.seconds) == ("done", seconds)


def test_work_that_begins_before_its_job_is_made_does_not_fail(gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    thread = jobs._thread

    def submit(*work: Any) -> Any:
        future = thread.submit(*work)
        time.sleep(0.2)
        return future

    gate.set()
    monkeypatch.setattr(jobs, "_thread", SimpleNamespace(submit=submit))
    assert jobs.start("count", counting, 3, gate).result(20) == 3


def test_jobs_run_one_after_another(gate: threading.Event) -> None:
    first, second = (jobs.start(name, counting, 2, gate) for name in ("first", "second"))
    until(lambda: first.progress is not None)
    assert (first.state, second.state) == ("running", "waiting")
    assert second.seconds == 0
    gate.set()
    assert second.result(20) == 2
    assert first.over


def test_a_stopped_job_gives_what_it_has(gate: threading.Event) -> None:
    job = jobs.start("count", counting, 5, gate)
    until(lambda: job.progress is not None)
    job.stop()
    assert job.state == "stopping"
    gate.set()
    assert job.result(20) == 1
    assert job.state == "stopped"


def test_a_job_that_is_stopped_while_it_waits_never_begins(gate: threading.Event) -> None:
    first, second = (jobs.start(name, counting, 2, gate) for name in ("first", "second"))
    news: list[str] = []
    second.watch(lambda job: news.append(job.state))
    second.stop()
    assert (second.state, second.over, second.seconds) == ("stopped", True, 0)
    assert news == ["waiting", "stopped"]
    with pytest.raises(RuntimeError, match="second was stopped before it began"):
        second.result()
    gate.set()
    assert first.result(20) == 2
    assert second.progress is None


def test_what_goes_wrong_is_raised_where_the_result_is_asked_for() -> None:
    def fails(*, progress: Any, stop: Any) -> None:
        raise ValueError("there are no particles")

    job = jobs.start("nothing", fails)
    with pytest.raises(ValueError, match="there are no particles"):
        job.result(20)
    assert job.state == "failed"
    assert repr(job) == "Job('nothing', failed: there are no particles)"
    assert job_summary.job_text(job) == "failed: there are no particles"


def test_a_watcher_that_fails_is_left_out_and_ends_nothing(gate: threading.Event) -> None:
    told: list[tuple[str, int | None]] = []

    def failing(job: Job) -> None:
        if job.progress is not None and job.progress.iteration > 1:
            raise KeyError("the view is gone")

    def go_on() -> None:
        gate.set()
        until(lambda: told[-1][0] == "done")

    job = jobs.start("count", counting, 3, gate)
    job.watch(failing)
    job.watch(lambda job: told.append((job.state, getattr(job.progress, "iteration", None))))
    with pytest.warns(UserWarning, match="count is no longer watched .*the view is gone"):
        go_on()
    assert job.result() == 3
    assert told[-2:] == [("running", 3), ("done", 3)]


def test_a_watcher_may_stop_the_job_whatever_the_others_do(gate: threading.Event) -> None:
    states: list[str] = []

    def stopping(job: Job) -> None:
        states.append(job.state)
        if job.progress is not None:
            job.stop()

    def failing(job: Job) -> None:
        if job.state == "stopping":
            raise KeyError("the view is gone")

    held = threading.Event()
    before = jobs.start("before", lambda progress, stop: held.wait(20))
    job, last = (jobs.start(name, counting, 5, gate) for name in ("count", "last"))
    job.watch(stopping)
    job.watch(failing)
    last.watch(lambda job: job.stop())
    assert last.state == "stopped"
    gate.set()

    def go_on() -> int:
        held.set()
        return job.result(20)

    with pytest.warns(UserWarning, match="the view is gone") as warned:
        assert go_on() == 1
    assert len(warned) == 1
    until(lambda: states[-1] == "stopped")
    assert states == ["waiting", "running", "stopping", "stopped"]
    assert before.over


@pytest.fixture(scope="module")
def few() -> Subtomograms:
    imaging = Imaging(snr=0.3, tilts=(-60.0, 60.0), shift=0.05)
    maps = densities.load(["tric"], voxel_size=20.0, box=20)
    return simulation.subtomograms(maps, 24, imaging=imaging, box=20, seed=3, device="cpu")


def test_an_average_in_the_background_is_the_one_made_in_front(few: Subtomograms) -> None:
    options: dict[str, Any] = {"seed": 1, "iterations": 6, "starts": 1, "device": "cpu"}
    job: Job[Average] = jobs.start("tric", averaging.average, few, **options)
    panel = job_widgets.watch(job).children[0]
    behind, front = job.result(120), averaging.average(few, progress=False, **options)
    # Up to rounding: sums depend on how arrays lie in memory.
    np.testing.assert_allclose(behind.volume.data, front.volume.data, atol=1e-3)
    until(lambda: panel.button.disabled)
    assert panel.bar.value == 1
    assert "24 particles, halves agree to" in panel.text.value
    assert panel.image.value == job_summary.picture(behind.volume)
    assert panel.image.layout.visibility == "visible"
    assert panel.curve.value == job_summary.curve(behind.fsc, panel.side)


def test_structures_are_drawn_once_and_sent_when_they_change(gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    png = images.png
    monkeypatch.setattr(images, "png", lambda cut, **limits: (drawn.append(len(cut)), png(cut, **limits))[1])
    volume, curve = Volume(np.eye(8)[:, :, None] * np.ones(8), 10.0), pd.DataFrame({"resolution": [40.0], "fsc": [1.0]})
    labels, history = pd.Series([0, 0, 1, -1], index=range(4)), pd.DataFrame({"moved": [0.25]})
    shown = {"stage": "2 structures", "of": 6, "resolution": 40.0, "volume": volume, "fsc": curve, "seconds": 1.0, "left": 5.0}
    first, second = (Discovery(labels, labels * 0.5, [volume] * n, history, [], labels.astype(object)) for n in (2, 3))

    def work(*, progress: Callable[[Any], Any], stop: Callable[[], bool]) -> None:
        gate.wait(20)
        for number, found in enumerate([first, first, None, first, second, None], 1):
            now = {"iteration": number} | shown
            progress(Progress(**now) if found is None else DiscoveryProgress(**now, found=found))

    job = jobs.start("discovery", work)
    one, other = job_widgets.watch(job, job).children
    sent: list[str] = []
    one.structures.observe(lambda change: sent.append(change["new"]), "value")
    gate.set()
    job.result(20)
    assert drawn.count(job_summary.STRUCTURE) == 2 + 3
    assert [text.count("<img") for text in sent] == [2, 3]
    assert other.structures.value == one.structures.value == sent[-1]


def test_a_curve_falls_where_the_correlation_does() -> None:
    table = pd.DataFrame({"resolution": [np.inf, 100.0, 50.0, 25.0], "fsc": [1.0, 1.0, 0.5, -0.2]})
    points = re.search(r"points='([^']*)'", job_summary.curve(table, 100))
    assert points is not None
    assert points[1] == "25.0,0.0 50.0,50.0 100.0,100.0"
    assert job_summary.curve(None, 100) == ""


def test_a_job_without_a_picture_shows_none(gate: threading.Event) -> None:
    # A browser draws a broken image where there is no picture.
    panel = job_widgets.watch(jobs.start("count", counting, 1, gate)).children[0]
    assert panel.image.layout.visibility == "hidden"


def test_the_notebook_stays_free_and_the_panel_stops_the_average(few: Subtomograms) -> None:
    pictures: set[bytes] = set()
    job: Job[Average] = jobs.start("tric", averaging.average, few, seed=1, iterations=600, device="cpu")
    panel = job_widgets.watch(job).children[0]
    panel.image.observe(lambda change: pictures.add(change["new"]), "value")
    until(lambda: job.progress is not None)
    waits = []
    for _ in range(100):
        began = time.perf_counter()
        time.sleep(0.01)
        waits.append(time.perf_counter() - began)
    assert sorted(waits)[90] < 0.1
    until(lambda: len(pictures) > 1)
    assert 0 < panel.bar.value < 0.5
    assert "<polyline" in panel.curve.value
    assert "Å" in panel.text.value
    panel.button.click()
    assert panel.button.disabled
    average = job.result(60)
    assert job.state == "stopped"
    assert len(average.particles) == 24
    until(lambda: "stopped; 24 particles" in panel.text.value)
