"""Takes an inspection, shows a form in a notebook that exports its particles (`inspection.exports`) and writes its report.

>>> Export(inspection, ticked=lambda: [3], say=print)
"""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipywidgets import HTML, Button, Checkbox, Dropdown, HBox, Layout, Text, VBox

from tomolab.inspection import exports
from tomolab.inspection.exports import COPY, FORMATS, POSES, PROGRAMS
from tomolab.inspection.model import Inspection
from tomolab.ui import report


class Export(VBox):  # type: ignore[misc]
    """Form that exports the ticked clusters, or all, into the run folder or another place.

    Parameters
    ----------
    inspection
        Whose clusters.
    ticked
        Returns the ticked clusters.
    say
        Called with error messages.
    """

    def __init__(self, inspection: Inspection, *, ticked: Callable[[], list[int]], say: Callable[[str], Any]) -> None:
        self.inspection, self.ticked, self.say = inspection, ticked, say
        about = "File or folder, in the run folder unless the path is absolute"
        self.format = Dropdown(options=[(one.title, one) for one in FORMATS], layout=Layout(width="190px"))
        self.name = Text("chosen", layout=Layout(width="140px"), tooltip=about)
        self.source = Text(
            "", layout=Layout(width="434px"), placeholder="the list from which the particles were read, such as ours.star"
        )
        self.poses = Checkbox(
            True,
            description="in the poses of averages",
            indent=False,
            layout=Layout(width="auto"),
            tooltip="Otherwise in the poses of the particle table",
        )
        self.button = Button(description="Write", icon="download", layout=Layout(width="90px"))
        self.button.tooltip = "Write the particles of the ticked clusters, or of all where none is ticked"
        self.report_button = Button(description="Report", icon="file-text", layout=Layout(width="90px"))
        self.report_button.tooltip = f"Write {report.PAGE} into the run folder: what was done, with pictures, as one page"
        self.report_button.disabled = inspection.folder is None
        self.text = HTML()
        self.button.on_click(lambda _: self._do(self._write))
        self.report_button.on_click(lambda _: self._do(self._report))
        self.format.observe(lambda _: self._show(), "value")
        line = HBox([self.format, self.name, self.button, self.report_button], layout=Layout(flex_flow="row wrap"))
        super().__init__([line, self.source, self.poses, self.text])
        self._show()

    def _show(self) -> None:
        """Show only the fields of the chosen format."""
        name = self.format.value.format
        self.source.layout.display = None if name == COPY else "none"
        self.poses.layout.display = "none" if name in (COPY, *PROGRAMS) else None

    def _do(self, work: Callable[[], str]) -> None:
        self.text.value = "…"
        try:
            self.text.value = html.escape(work())
        except (ValueError, OSError) as error:
            self.text.value = ""
            self.say(str(error))

    def _write(self) -> str:
        name, source = self.name.value.strip(), self.source.value.strip()
        if not name:
            raise ValueError("give the name of the file or folder")
        path = (self.inspection.folder or Path()) / name
        poses = POSES[0] if self.poses.value else POSES[1]
        options: dict[str, Any] = {"chosen": self.ticked() or None, "poses": poses, "source": source}
        return f"{exports.export_as(self.inspection, self.format.value, path, **options)} (folder: {path.parent})"

    def _report(self) -> str:
        assert self.inspection.folder is not None
        return f"the report is {report.write(self.inspection.folder)}"
