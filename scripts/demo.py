"""Execute the notebooks in order and leave a report with pictures: pages in HTML and an index (``make demo``).

The scale is that of TOMOLAB_SCALE (laptop by default). A notebook that fails is reported with its error and ends the
sequence, since later ones need its files.
"""

import argparse
import base64
import html
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter

STYLE = """body {font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; color: #222}
article {display: grid; grid-template-columns: 20em 1fr; gap: 1.5em; margin: 2em 0; align-items: center}
img {max-width: 100%; max-height: 15em} .failed {color: #b00020}"""


@dataclass(frozen=True)
class Page:
    """One notebook of the report."""

    name: str
    title: str
    seconds: float
    error: str
    picture: str


def execute(path: Path, folder: Path, *, timeout: int) -> Page:
    """Run one notebook in its own folder, and write its page, also if it fails."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    start, error = time.perf_counter(), ""
    try:
        client.execute()
    except CellExecutionError as problem:
        error = f"{problem.ename}: {problem.evalue}"
    except (CellTimeoutError, DeadKernelError) as problem:
        error = str(problem).strip().splitlines()[0]
    page, _ = HTMLExporter().from_notebook_node(notebook)
    (folder / f"{path.stem}.html").write_text(page, encoding="utf-8")
    picture = f"{path.stem}.png" if (images := pictures(notebook)) else ""
    if images:
        (folder / picture).write_bytes(max(images, key=len))
    return Page(path.stem, title(notebook, path.stem), time.perf_counter() - start, error, picture)


def pictures(notebook: nbformat.NotebookNode) -> list[bytes]:
    """All PNG pictures among the outputs, in order."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [base64.b64decode(output["data"]["image/png"]) for output in outputs if "image/png" in output.get("data", {})]


def title(notebook: nbformat.NotebookNode, fallback: str) -> str:
    """The first heading of a notebook."""
    lines = [line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), fallback)


def index(pages: list[Page], left: list[str]) -> str:
    """The page that links the others, each with its richest picture; `left` names the notebooks that were not reached."""
    parts = [
        f"<!doctype html><meta charset='utf-8'><title>tomolab demo</title><style>{STYLE}</style><h1>tomolab, step by step</h1>"
    ]
    for page in pages:
        image = f"<a href='{page.name}.html'><img src='{page.picture}' alt=''></a>" if page.picture else "<span></span>"
        words = f"<span class='failed'>{html.escape(page.error)}</span>" if page.error else f"{page.seconds:.0f} s"
        parts.append(
            f"<article>{image}<div><h2><a href='{page.name}.html'>{html.escape(page.title)}</a></h2>{words}</div></article>"
        )
    parts += [f"<p class='failed'>not reached: {html.escape(name)}</p>" for name in left]
    return "\n".join(parts)


def main() -> int:
    """Run the sequence; 0 if every notebook ran."""
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notebooks", type=Path, default=root / "notebooks")
    parser.add_argument("--report", type=Path, default=root / "runs" / "demo")
    parser.add_argument("--timeout", type=int, default=3600, help="seconds a cell may take")
    options = parser.parse_args()
    options.report.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("NAPARI_APPLICATION_IPY_INTERACTIVE", "0")
    os.environ.setdefault("TOMOLAB_RUNS", str(options.report / "runs"))
    paths = sorted(options.notebooks.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        print(f"no notebooks named NN_name.ipynb in {options.notebooks}", file=sys.stderr)
        return 1
    pages: list[Page] = []
    for number, path in enumerate(paths, start=1):
        pages.append(execute(path, options.report, timeout=options.timeout))
        print(f"{path.stem:<24}{pages[-1].error or f'{pages[-1].seconds:.0f} s'}", flush=True)
        (options.report / "index.html").write_text(index(pages, [later.stem for later in paths[number:]]), encoding="utf-8")
        if pages[-1].error:
            break
    print(f"report: {options.report / 'index.html'}")
    return int(any(page.error for page in pages))


if __name__ == "__main__":
    raise SystemExit(main())
