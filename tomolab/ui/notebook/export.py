"""Takes an inspection, shows a form in a notebook that exports its particles (`inspection.exports`) and writes its report.

>>> Export(inspection, ticked=lambda: [3], say=print)
"""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipywidgets import HTML, Button, Checkbox, Dropdown, HBox, Layout, Text, Textarea, VBox

from tomolab import io
from tomolab.inspection import exports, run_contents
from tomolab.inspection.exports import COPY, FORMATS, POSES, PROGRAMS
from tomolab.inspection.model import Inspection
from tomolab.io import run_folder
from tomolab.ui import methods, report, style, view_figure


class Export(VBox):  # type: ignore[misc]
    """Form that exports the ticked clusters, or the selection, or all, into the run folder or another place.

    `done` is called after a success; `shown` returns the slice that is shown, as options of `view_figure.draw`.
    """

    def __init__(
        self,
        inspection: Inspection,
        *,
        ticked: Callable[[], list[int]],
        say: Callable[[str], Any],
        done: Callable[[], Any] = lambda: None,
        shown: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.shown = shown
        self.inspection, self.ticked, self.say, self.done = inspection, ticked, say, done
        about = "File or folder, in the run folder unless the path is absolute"
        formats = [(one.title, one) for one in FORMATS]
        self.format = Dropdown(options=formats, description="format", style=style.LABEL, layout=Layout(width="280px"))
        self.name = Text("chosen", description="name", style=style.LABEL, layout=Layout(width="190px"), tooltip=about)
        self.source = Text("", description="your list", style=style.LABEL, layout=Layout(width="95%", max_width="480px"))
        self.source.placeholder = "from which the particles were read, such as ours.star"
        plain: dict[str, Any] = {"indent": False, "layout": {"width": "auto"}}
        self.poses = Checkbox(True, description="in the poses of averages", **plain)
        self.poses.tooltip = "Otherwise in the poses of the particle table"
        self.replace = Checkbox(False, description="replace a file of this name", **plain)
        self.replace.tooltip = "The earlier file stays beside the new one, as NAME.~1~"
        about = "Write the particles of the ticked clusters, or else the selection, or else of all clusters"
        self.button = self._button("Write", "download", about=about, work=self._write)
        about = f"Write {report.PAGE} into the run folder, anew: what was done, with pictures, as one page"
        self.report_button = self._button("Report", "file-text", about=about, work=self._report)
        about = "Write map, slice and averages as they are shown as one figure: view.png and view.pdf"
        self.figure_button = self._button("Figure", "image", about=about, work=self._figure)
        about = "What was done to get here, in words, with references, to copy"
        self.methods_button = self._button("Methods", "align-left", about=about, work=self._methods)
        self.methods = Textarea(layout=Layout(width="96%", height="150px", display="none"))
        for button in (self.report_button, self.figure_button, self.methods_button):
            button.disabled = inspection.folder is None
        self.text, self.subject = HTML(), HTML()
        self.format.observe(lambda _: self._show(), "value")
        wrap = Layout(flex_flow="row wrap")
        line = HBox([self.format, self.name, self.button], layout=wrap)
        whole = HBox([self.report_button, self.figure_button, self.methods_button], layout=wrap)
        checks = HBox([self.poses, self.replace], layout=wrap)
        super().__init__([line, self.subject, self.source, checks, whole, self.text, self.methods])
        self._show()

    def _button(self, name: str, icon: str, *, about: str, work: Callable[[], str]) -> Button:
        button = Button(description=name, icon=icon, tooltip=about, layout=Layout(width="100px"))
        button.on_click(lambda _: self._do(work))
        return button

    def tell(self, text: str) -> None:
        """Show which particles would be written, or why none can be."""
        self.subject.value = style.span(text, style.QUIET_TEXT)

    def _show(self) -> None:
        """Show only the fields of the chosen format."""
        name = self.format.value.format
        self.source.layout.display = None if name == COPY else "none"
        self.poses.layout.display = "none" if name in (COPY, *PROGRAMS) else None
        self.replace.layout.display = "none" if name in PROGRAMS else None

    def _do(self, work: Callable[[], str]) -> None:
        self.text.value = "…"
        try:
            self.text.value = html.escape(work())
        except (ValueError, OSError) as error:
            self.text.value = ""
            self.say(str(error))
        else:
            self.done()

    def _write(self) -> str:
        name, source = self.name.value.strip(), self.source.value.strip()
        if not name:
            raise ValueError("give the name of the file or folder")
        path = (self.inspection.folder or Path()) / name
        poses = POSES[0] if self.poses.value else POSES[1]
        chosen = exports.taken(self.inspection, self.ticked())
        options: dict[str, Any] = {"chosen": chosen, "poses": poses, "source": source, "replace": self.replace.value}
        return f"{exports.export_as(self.inspection, self.format.value, path, **options)} (folder: {path.parent})"

    def _figure(self) -> str:
        assert self.inspection.folder is not None
        paths = [self.inspection.folder / f"view{suffix}" for suffix in (".png", ".pdf")]
        with run_folder.replacing(*paths, folder=self.inspection.folder, replace=self.replace.value) as earlier:
            figure = view_figure.draw(self.inspection, **self.shown())
            for path in paths:
                with io.atomic(path) as temporary:
                    figure.savefig(temporary, format=path.suffix[1:], dpi=200)
        text = f"the figure is in {paths[0].name} and {paths[1].name} (folder: {paths[0].parent})"
        return text + run_folder.earlier_text(earlier)

    def _methods(self) -> str:
        assert self.inspection.folder is not None
        self.methods.value = methods.text(run_contents.read(self.inspection.folder, verify=False))
        self.methods.layout.display = None
        return "check it before you use it: it says what the run folder records"

    def _report(self) -> str:
        assert self.inspection.folder is not None
        return f"the report is {report.write(self.inspection.folder)}"
