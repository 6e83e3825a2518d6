"""Settings of the documentation site (`make docs`). DOCS_NOTEBOOKS=off shows the notebooks without executing them."""

import os
import re
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

import nbformat  # noqa: E402
from nbclient import NotebookClient  # noqa: E402

import tomolab  # noqa: E402 - of this checkout

project, author = "tomolab", "tomolab developers"
copyright = "tomolab developers"  # noqa: A001 - Sphinx's word
version = release = tomolab.__version__
extensions = [
    *("sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"),
    *("myst_nb", "sphinx_design", "sphinx_copybutton"),
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "**.ipynb_checkpoints"]
default_role = "py:obj"
highlight_language = "none"

# Pages
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "pydata_sphinx_theme"
html_title = "tomolab"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "tomolab"},
    "navbar_align": "left",
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {name: [] for name in ("index", "start", "your_data", "formats", "faq")}

# Reference: what the packages offer, by their docstrings
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
PACKAGES = [*tomolab.PACKAGES, "io.tilts", "averaging.relion", "ui.notebook", "ui.napari", "ui.plots"]

# Notebooks are executed below, before they are read.
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}

NAMES = """{title}
{line}

.. automodule:: {package}

.. currentmodule:: {package}

.. autosummary::
   :toctree: names
   :nosignatures:

   {names}
"""


def write_api() -> None:
    """Write a page for each package, with the names in its `__all__`."""
    folder = DOCS / "api"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in PACKAGES:
        package = f"tomolab.{name}"
        names = "\n   ".join(sorted(import_module(package).__all__, key=str.lower))
        text = NAMES.format(title=name, line="=" * len(name), package=package, names=names)
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")


def write_notebooks() -> None:
    """Copy the notebooks beside the pages, which are read from one folder, and execute them unless that is turned off."""
    folder = DOCS / "notebooks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    execute = os.environ.get("DOCS_NOTEBOOKS") != "off"
    with tempfile.TemporaryDirectory(prefix="tomolab-docs-") as runs:
        os.environ.setdefault("TOMOLAB_SCALE", "tiny")
        os.environ.setdefault("NAPARI_APPLICATION_IPY_INTERACTIVE", "0")
        os.environ["TOMOLAB_RUNS"] = runs
        os.environ.pop("MPLBACKEND", None)
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            notebook = nbformat.read(path, as_version=4)
            if execute:
                print(f"executing {path.stem}", flush=True)  # noqa: T201 - this takes minutes
                NotebookClient(notebook, timeout=3600, kernel_name="python3", store_widget_state=False).execute()
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    cell.outputs = [output for output in cell.outputs if is_shown(output)]
            nbformat.write(notebook, folder / path.name)


def is_shown(output: nbformat.NotebookNode) -> bool:
    """Whether a page can show an output: no widget, which needs its kernel, and no progress bar."""
    return output.get("name") != "stderr" and "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def mend_links(_: object, __: str, source: list[str]) -> None:
    """Make links that lead out of this folder, which are for readers of the checkout, lead to a page or be text."""
    text = source[0]
    text = text.replace("](../README.md#start)", "](start.md)")
    text = re.sub(r"\]\(\.\./notebooks/(\w+)\.ipynb\)", r"](notebooks/\1.ipynb)", text)
    source[0] = re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", text)


def setup(app: object) -> None:
    """Write what is not committed."""
    write_api()
    write_notebooks()
    app.connect("source-read", mend_links)
