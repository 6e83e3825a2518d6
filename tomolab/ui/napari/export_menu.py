"""Takes an inspection, offers what can be exported from it as a menu, and asks where to.

>>> ExportMenu(inspection, chosen=lambda: [3], tell=print)
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QMenu, QWidget

from tomolab.inspection import exports
from tomolab.inspection.exports import COPY, FORMATS, POSES, ExportFormat
from tomolab.inspection.model import Inspection
from tomolab.ui import report
from tomolab.ui.napari import threads


class ExportMenu(QMenu):
    """Kinds of export as a menu; what is chosen is written beside the window.

    Parameters
    ----------
    inspection
        Whose particles.
    chosen
        Asked for the clusters to export; all if there is none.
    tell
        Called with what was done, or with what went wrong and fault=True.
    parent
        Widget that it belongs to.
    """

    def __init__(
        self,
        inspection: Inspection,
        *,
        chosen: Callable[[], list[int]],
        tell: Callable[..., Any],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.inspection, self.chosen, self.tell = inspection, chosen, tell
        for kind in FORMATS:
            self.addAction(f"{kind.title}…").triggered.connect(partial(self._ask, kind))
        self.addSeparator()
        self.poses = self.addAction("Lists in the poses of averages")
        self.poses.setCheckable(True)
        self.poses.setChecked(True)
        self.report_action = self.addAction(f"Report of the run folder ({report.PAGE})")
        self.report_action.triggered.connect(lambda: self.report())
        self.aboutToShow.connect(self._allow)

    def _allow(self) -> None:
        """Enable what can be written."""
        for action, kind in zip(self.actions(), FORMATS, strict=False):
            problem = exports.problem(self.inspection, kind)
            action.setEnabled(not problem)
            action.setToolTip(problem)
        self.report_action.setEnabled(self.inspection.folder is not None)

    def _ask(self, kind: ExportFormat, *_ignored: object) -> None:
        """Ask where to, and write it."""
        source = ""
        if kind.format == COPY:
            source, _ = QFileDialog.getOpenFileName(self.parentWidget(), "Your own list, from which the particles were read")
            if not source:
                return
        suffix = Path(source).suffix if source else kind.suffix
        name = f"particles{suffix}"
        filters = f"{kind.title} (*{suffix})" if suffix else ""
        if kind.format == "copick":
            # A project that is there already, beside others.
            path = QFileDialog.getExistingDirectory(self.parentWidget(), "Overlay root of the copick project")
        else:
            path, _ = QFileDialog.getSaveFileName(self.parentWidget(), kind.title, name, filters)
        if path:
            self.export(kind, path, source=source)

    def export(self, kind: ExportFormat, path: str | Path, *, source: str = "") -> None:
        """Write the particles of the chosen clusters, or of all clusters, beside the window, and tell what was done.

        Parameters
        ----------
        kind
            One of `exports.FORMATS`.
        path
            File or folder.
        source
            The user's own list, for a copy of it.
        """
        poses = POSES[0] if self.poses.isChecked() else POSES[1]
        options: dict[str, Any] = {"chosen": self.chosen() or None, "poses": poses, "source": source}
        self._later(lambda: exports.export_as(self.inspection, kind, path, **options))

    def report(self) -> None:
        """Write the report of the run folder, and tell where it is."""
        folder = self.inspection.folder
        if folder is not None:
            self._later(lambda: f"the report is {report.write(folder)}")

    def _later(self, work: Callable[[], str]) -> None:
        threads.in_background(work, then=lambda told: self.tell(told, fault=False), failed=lambda error: self.tell(str(error)))
