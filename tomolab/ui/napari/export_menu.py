"""Takes an inspection, shows a menu of export formats, asks for a path, writes the export.

>>> ExportMenu(inspection, chosen=lambda: [3], tell=print)
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QMenu, QMessageBox, QWidget

from tomolab.inspection import exports
from tomolab.inspection.exports import COPICK, COPY, FORMATS, POSES, ExportFormat
from tomolab.inspection.model import Inspection
from tomolab.ui import report
from tomolab.ui.napari import threads


class ExportMenu(QMenu):
    """Menu of export formats; a background thread writes the chosen one.

    Parameters
    ----------
    inspection
        Whose particles.
    chosen
        Returns the clusters to export; if it is empty, the selection or else all clusters are exported.
    tell
        Called with a message, and with fault=False if it reports success.
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
        self.subject = self.addAction("")
        self.subject.setEnabled(False)
        for wanted in FORMATS:
            self.addAction(f"{wanted.title}…").triggered.connect(partial(self._ask, wanted))
        self.addSeparator()
        self.poses = self.addAction("Lists in the poses of averages")
        self.poses.setCheckable(True)
        self.poses.setChecked(True)
        self.report_action = self.addAction(f"Report of the run folder ({report.PAGE})")
        self.report_action.triggered.connect(lambda: self.report())
        self.aboutToShow.connect(self._allow)

    def _allow(self) -> None:
        """Enable the formats that can be exported."""
        for action, wanted in zip(self.actions()[1:], FORMATS, strict=False):
            problem = exports.problem(self.inspection, wanted)
            action.setEnabled(not problem)
            action.setToolTip(problem)
        self.subject.setText(exports.taken_text(self.inspection, self.chosen(), every=True))
        self.report_action.setEnabled(self.inspection.folder is not None)

    def _ask(self, wanted: ExportFormat, *_ignored: object) -> None:
        """Ask for the path, and export."""
        source = ""
        if wanted.format == COPY:
            source, _ = QFileDialog.getOpenFileName(self.parentWidget(), "Your own list, from which the particles were read")
            if not source:
                return
        suffix = Path(source).suffix if source else wanted.suffix
        name = f"particles{suffix}"
        filters = f"{wanted.title} (*{suffix})" if suffix else ""
        if wanted.format == COPICK:
            # An existing project.
            path = QFileDialog.getExistingDirectory(self.parentWidget(), "Overlay root of the copick project")
        else:
            path, _ = QFileDialog.getSaveFileName(self.parentWidget(), wanted.title, name, filters)
        if not path:
            return
        # The dialog for a file has asked whether to replace that of this name, but not one whose suffix is added.
        replace = exports.place(wanted, path, source) == Path(path)
        there = exports.there_already(wanted, path) if wanted.format == COPICK else []
        if there:
            names = ", ".join(one.name for one in there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
            text = f"Replace {names}? What is there now stays beside, as NAME.~1~."
            replace = QMessageBox.question(self.parentWidget(), wanted.title, text) == QMessageBox.StandardButton.Yes
        self.export(wanted, path, source=source, replace=replace)

    def export(self, wanted: ExportFormat, path: str | Path, *, source: str = "", replace: bool = False) -> None:
        """Export the particles of the chosen clusters, the selection or all in a background thread, and show a message.

        Parameters
        ----------
        wanted
            One of `exports.FORMATS`.
        path
            File or folder.
        source
            The user's own list, for the format `COPY`.
        replace
            Whether files that are there may be replaced.
        """
        poses = POSES[0] if self.poses.isChecked() else POSES[1]
        options: dict[str, Any] = {"chosen": exports.taken(self.inspection, self.chosen()), "poses": poses, "source": source}
        options["replace"] = replace
        self._later(lambda: exports.export_as(self.inspection, wanted, path, **options))

    def report(self) -> None:
        """Write the report of the run folder, and show its path."""
        folder = self.inspection.folder
        if folder is not None:
            self._later(lambda: f"the report is {report.write(folder)}")

    def _later(self, work: Callable[[], str]) -> None:
        threads.in_background(work, then=lambda text: self.tell(text, fault=False), failed=lambda error: self.tell(str(error)))
