"""Takes jobs, shows each in a Qt window as it runs: a progress bar, slices of its average so far, and a stop button.

>>> jobs = JobList()
>>> jobs.add(inspection.average(3))
"""

import html
import time
from collections.abc import Callable, Sequence
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QProgressBar, QPushButton, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from tomolab.jobs import Job
from tomolab.ui import job_summary, style
from tomolab.ui.napari import threads

HEIGHT = 42
"""Pixels of the slices."""


class JobRow(QWidget):
    """One job.

    Parameters
    ----------
    job
        Of `jobs.start`.
    discard
        Called with the job when it has ended and the user removes it.
    """

    def __init__(self, job: Job, discard: Callable[[Job], Any]) -> None:
        super().__init__()
        self.job, self._drawn, self._structures = job, -job_summary.EVERY, ""
        self.title, self.text = QLabel(f"<b>{html.escape(job.name)}</b>"), QLabel()
        self.slices, self.structures = QLabel(), QLabel()
        self.title.setToolTip(style.plain(job.name))
        self.bar, self.button = QProgressBar(), QPushButton("Stop")
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.button.setToolTip("Stop the job and keep the best so far")
        self.button.setFixedWidth(64)
        self.button.clicked.connect(lambda: discard(job) if job.over else job.stop())
        for label in (self.text, self.structures):
            label.setWordWrap(True)
            label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.structures.hide()
        self.title.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.slices.setFixedSize(3 * HEIGHT + 4, HEIGHT)
        layout = QGridLayout(self)
        layout.setContentsMargins(2, 2, 2, 2)
        layout.setVerticalSpacing(2)
        layout.addWidget(self.title, 0, 0)
        layout.addWidget(self.button, 0, 1)
        layout.addWidget(self.bar, 1, 0, 1, 2)
        layout.addWidget(self.text, 2, 0, 1, 2)
        layout.addWidget(self.slices, 3, 0, 1, 2)
        layout.addWidget(self.structures, 4, 0, 1, 2)
        layout.setColumnStretch(0, 1)
        job.watch(self._follow)

    def _follow(self, job: Job) -> None:
        """Draw the picture in the thread of the job; `_show` runs in the thread of the window."""
        # They stay while their averages are computed.
        before, self._structures = self._structures, job_summary.structures(job.progress) or self._structures
        due = self._structures is not before or time.monotonic() - self._drawn > job_summary.EVERY
        if not (due or job.over or job.state in ("waiting", "stopping")):
            return
        volume = job_summary.shown(job)
        picture = b"" if volume is None else job_summary.picture(volume)
        self._drawn = time.monotonic()
        # Read the state now: the job may have changed it when the window shows it.
        state = job_summary.job_text(job), 1.0 if job.state == "done" else job_summary.share(job.progress), job.state, job.over
        self._show(*state, picture, self._structures)

    @threads.in_window
    def _show(self, text: str, share: float, state: str, over: bool, picture: bytes, structures: str) -> None:
        self.text.setText(style.span(text, style.lighter(style.ERROR)) if state == "failed" else style.plain(text))
        self.bar.setValue(round(1000 * share))
        if over or state == "stopping":
            self.button.setEnabled(over)
            self.button.setToolTip("The job stops after this iteration")
        if over:
            self.button.setText("Remove")
            self.button.setToolTip("Remove the job from the list; its averages stay")
            self.bar.setStyleSheet(f"QProgressBar::chunk {{ background: {job_summary.COLOURS[state]} }}")
        if structures != self.structures.text():
            self.structures.setText(structures)
            self.structures.show()
        if picture:
            image = QPixmap()
            image.loadFromData(picture)
            self.slices.setPixmap(image.scaledToHeight(HEIGHT, Qt.TransformationMode.SmoothTransformation))


class JobList(QScrollArea):
    """Jobs, the newest on top.

    Parameters
    ----------
    discard
        Called with a job that the user removes.
    parent
        Widget that it belongs to.
    """

    def __init__(self, discard: Callable[[Job], Any] = lambda _: None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.discard, self.rows = discard, list[JobRow]()
        inner = QWidget()
        self._layout = QVBoxLayout(inner)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(2)
        self.empty = QLabel("Averages run here, one after another, while you go on.")
        self.empty.setWordWrap(True)
        self.empty.setEnabled(False)
        self._layout.addWidget(self.empty)
        self._layout.addStretch(1)
        self.setWidget(inner)
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumHeight(64)

    def add(self, job: Job) -> None:
        """Add a job on top."""
        self.empty.hide()
        self.rows.append(JobRow(job, self.discard))
        self._layout.insertWidget(0, self.rows[-1])

    def show_only(self, jobs: Sequence[Job]) -> None:
        """Add jobs that have no row, and remove the rows of others."""
        for row in [one for one in self.rows if one.job not in jobs]:
            self.rows.remove(row)
            self._layout.removeWidget(row)
            row.hide()
            row.deleteLater()
        followed = [row.job for row in self.rows]
        for job in jobs:
            if job not in followed:
                self.add(job)
        self.empty.setVisible(not self.rows)
