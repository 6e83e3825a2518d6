"""The inspector takes no more files, threads, widgets or memory the longer somebody works with it."""

from pathlib import Path

import bench_inspector_hours
import pandas as pd
import pytest

from tomolab.inspection.averaging_task import AveragingTask
from tomolab.ui.notebook import averages, inspector

# jupyter-scatter 1.0 sets pandas tables in place while it is imported.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The inplace keyword"),
    pytest.mark.filterwarnings("ignore:the two halves agree on nothing"),
]


def test_what_is_held_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Averages add what they are, and take their time.
    monkeypatch.setattr(bench_inspector_hours, "RARE", 10**6)
    rows = pd.DataFrame(bench_inspector_hours.work(folder, actions=150, every=50))
    assert rows["actions"].tolist() == [50, 100, 150]
    assert rows["steps"].is_monotonic_increasing
    for what in ("files", "threads", "widgets"):
        assert rows[what].iloc[1] == rows[what].iloc[2]
    assert rows["own MB"].iloc[2] - rows["own MB"].iloc[1] < 20
    assert rows["session.npz MB"].iloc[2] < 0.2


def test_old_jobs_that_are_over_leave_the_queue_with_all_their_widgets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(averages, "LISTED", 2)
    monkeypatch.setattr(AveragingTask, "__call__", lambda *_, **__: {})
    view = inspector.open(folder)
    held = []
    for _ in range(6):
        view.inspection.average(0, quick=True).result(60)
        held.append(bench_inspector_hours.held()["widgets"])
    assert held[2:] == [held[2]] * 4
    assert [panel.job for panel in view.averages.queue.children] == view.inspection.jobs[:-3:-1]
