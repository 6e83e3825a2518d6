"""The house rules that a machine can hold: light imports, small signatures, documented names, thin notebooks."""

import ast
import inspect
import json
import re
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import tomolab

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tomolab"
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PACKAGE.rglob("*.py") if not path.name.startswith("__")
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXTS = sorted(
    path
    for pattern in (
        "*.md",
        "*.toml",
        "*.yml",
        "*.yaml",
        "Makefile",
        ".ci/run",
        "*/**/*.py",
        "*/**/*.sh",
        "*/**/*.ipynb",
        "*/**/*.md",
    )
    for path in ROOT.glob(pattern)
    if not {"runs", ".ipynb_checkpoints", "build", "dist", "_build"} & set(path.relative_to(ROOT).parts)
    and path.parent != ROOT / "docs" / "notebooks"
    and not path.relative_to(ROOT).parts[0].startswith(".venv")
)
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.py")])
PAGES.remove(ROOT / "CHANGELOG.md")  # tells names of older versions
PAGES.remove(ROOT / "docs" / "conf.py")  # is no example
SUFFIXES = {
    "csv",
    "em",
    "html",
    "json",
    "md",
    "mod",
    "mrc",
    "npz",
    "py",
    "safetensors",
    "star",
    "tbl",
    "toml",
    "txt",
    "yml",
    "zarr",
}
EXTRA = {"IPython", "PySide6", "anywidget", "dask", "dask_jobqueue", "distributed", "ipywidgets", "jscatter", "matplotlib"}
EXTRA |= {"napari", "obstore", "qtpy", "traitlets"}
"""What only extras bring."""
LINES = 600
MODULES_IN_FOLDER = 15
CELL_LINES = 15
# Written as patterns, so that this file does not hold what it forbids.
FORBIDDEN = {
    "path of one machine": r"/(?:work|root|opt|home/[a-z]+)/[a-z.]",
    "host of a package registry": r"(?:files\.)?python[h]osted|pypi\.[o]rg|registry\.[n]pmjs|deb\.[d]ebian",
    "unfinished work": r"\b(?:TO[D]O|FIX[M]E|XX[X])\b",
    "pickle": r"\bimport pick[l]e\b|allow_pickle=Tr[u]e|weights_only=Fals[e]",
}


def loaded(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after `statement`."""
    script = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def public(name: str) -> dict[str, object]:
    """Functions and classes that a module defines itself and offers to others."""
    module = import_module(name)
    members = inspect.getmembers(module, lambda member: inspect.isfunction(member) or inspect.isclass(member))
    return {key: member for key, member in members if not key.startswith("_") and member.__module__ == name}


def functions(name: str) -> dict[str, object]:
    """Public functions of a module, with the public methods that its classes define themselves."""
    found = {key: member for key, member in public(name).items() if inspect.isfunction(member)}
    for title, kind in public(name).items():
        if inspect.isclass(kind):
            own = {
                key: inspect.unwrap(member) for key, member in vars(kind).items() if inspect.isfunction(inspect.unwrap(member))
            }
            found |= {f"{title}.{key}": member for key, member in own.items() if not key.startswith("_")}
    return found


def test_version_is_a_release_number():
    assert re.fullmatch(r"\d+\.\d+\.\d+", tomolab.__version__)


def test_importing_tomolab_loads_nothing_heavy():
    assert loaded("import tomolab") & {"torch", "napari", "matplotlib", "numpy", "pandas", "qtpy", "PySide6"} == set()


def test_command_line_loads_nothing_heavy():
    assert loaded("import tomolab.__main__") & {"torch", "napari", "matplotlib"} == set()


def test_computing_loads_nothing_that_only_an_extra_brings():
    compute = [name for name in MODULES if not name.startswith("tomolab.ui")]
    assert loaded(f"import {', '.join(compute)}") & EXTRA == set()


def test_looking_loads_napari_and_scatter_only_when_asked():
    modules = (
        "inspector",
        "scatter",
        "dock",
        "cluster_table",
        "export_menu",
        "jobs",
        "threads",
        "filters",
        "gallery",
        "pick_panel",
    )
    windows = {f"tomolab.ui.napari.{name}" for name in modules}
    screens = [name for name in MODULES if name.startswith("tomolab.ui.") and name not in windows]
    assert loaded("".join(f"import {name}\n" for name in screens)) & {"napari", "PySide6", "jscatter"} == set()


@pytest.mark.parametrize("name", MODULES)
def test_module_is_short_and_says_what_it_is(name):
    path = ROOT / Path(*name.split(".")).with_suffix(".py")
    text = path.read_text()
    assert len(text.splitlines()) <= LINES
    assert ast.get_docstring(ast.parse(text))
    assert not re.search(r"util|helper|common|misc|manager", path.stem)


@pytest.mark.parametrize("name", MODULES)
def test_public_functions_take_few_positional_parameters_and_are_documented(name):
    faults = []
    for key, member in functions(name).items():
        parameters = inspect.signature(member).parameters.values()
        positional = [
            one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD and one.name not in ("self", "cls")
        ]
        if len(positional) > 3:
            faults.append(f"{key} takes {len(positional)} positional parameters: {positional}")
        text = inspect.getdoc(member) or ""
        if not text:
            faults.append(f"{key} has no docstring")
        elif re.search(r"^Parameters\n-+$", text, re.MULTILINE):
            names = [one.name for one in parameters if one.name not in ("self", "cls")]
            faults += [
                f"{key} does not document {one}" for one in names if not re.search(rf"^[\w, *]*\b{one}\b", text, re.MULTILINE)
            ]
    faults += [f"{key} has no docstring" for key, member in public(name).items() if not inspect.getdoc(member)]
    assert faults == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_holds_nothing_forbidden(path):
    text = path.read_text(encoding="utf-8")
    assert {kind: match[0] for kind, pattern in FORBIDDEN.items() if (match := re.search(pattern, text))} == {}


def code_cells(path: Path) -> list[dict]:
    """Code cells of a notebook."""
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_thin(path):
    assert re.fullmatch(r"\d\d_[a-z_]+", path.stem)
    for cell in code_cells(path):
        source = "".join(cell["source"])
        assert len(source.splitlines()) <= CELL_LINES, source
        assert not re.search(r"^\s*(def |class |!|%pip|%conda|%%bash|%gui)", source, re.MULTILINE), source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_cells_can_be_run_twice(path):
    for cell in code_cells(path):
        again = re.search(r"^(\w+) = \1\b(?!\()", "".join(cell["source"]), re.MULTILINE)
        assert again is None, f"a second run changes the result: {again[0]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_leaves_what_the_inspector_wrote(path):
    owned = {"session.npz", "layout.csv", "layout.json", "averages", "relion"}
    saved = re.findall(
        r"""run\.path\(f?["']([^"'/]+)|names = \[f["']([^"'/]+)""",
        "\n".join("".join(cell["source"]) for cell in code_cells(path)),
    )
    assert not owned & {first or second for first, second in saved}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs(path):
    for cell in code_cells(path):
        kept = cell["metadata"].get("keep_output") or "keep_output" in cell["metadata"].get("tags", [])
        assert kept or not (cell["outputs"] or cell["execution_count"]), "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_opens_with_a_title_and_explains_itself(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert "".join(cells[0]["source"]).startswith("# ")
    prose = sum(cell["cell_type"] == "markdown" for cell in cells)
    assert prose >= 0.5 * len(code_cells(path))


PUBLIC = sorted(
    name
    for name in {
        f"tomolab.{path.parent.relative_to(PACKAGE).as_posix().replace('/', '.')}" for path in PACKAGE.rglob("*/__init__.py")
    }
    if hasattr(import_module(name), "__all__")
)


def test_folders_are_small():
    counts = Counter(str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if not path.name.startswith("__"))
    assert {name: count for name, count in counts.items() if count > MODULES_IN_FOLDER} == {}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_package_offers_what_it_says_and_nothing_that_a_module_is_called(name):
    package = import_module(name)
    folder = Path(package.__file__).parent
    assert dir(package) == sorted(package.__all__) or name in ("tomolab.ui.plots", "tomolab.io.lists.star")
    assert not {path.stem for path in folder.iterdir()} & set(package.__all__)
    assert all(getattr(package, one) is not None for one in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


OWNERS = {path.stem: f"tomolab.{path.stem}" for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
OWNERS |= {name.split(".")[-1]: name for name in PUBLIC}
"""Packages and the modules beside them by their short names: what users may import."""


def is_public(owner: str, name: str) -> bool:
    """Whether `owner` offers `name` to its users: as a package or a module beside the packages, or in its `__all__`."""
    if OWNERS.get(name) == f"{owner}.{name}":
        return True
    module = import_module(owner)
    if hasattr(module, "__path__"):
        return name in getattr(module, "__all__", ())
    return not name.startswith("_") and hasattr(module, name)


def not_public(source: str) -> list[str]:
    """What a program uses of tomolab that is not public, and methods that it calls on names that it has from nowhere."""
    nodes = list(ast.walk(ast.parse(source)))
    froms = [(node.module, one.name) for node in nodes if isinstance(node, ast.ImportFrom) for one in node.names]
    ours = [(module, name) for module, name in froms if module and module.split(".")[0] == "tomolab"]
    faults = [f"{owner}.{name}" for owner, name in ours if not is_public(owner, name)]
    packages = {name: f"{owner}.{name}" for owner, name in ours if OWNERS.get(name) == f"{owner}.{name}"}
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {one.asname or one.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for one in node.names}
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in packages:
            faults += [] if is_public(packages[node.value.id], node.attr) else [ast.unparse(node)]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            faults += [] if node.func.value.id in bound else [ast.unparse(node.func)]
    return faults


def test_a_module_a_private_name_and_an_unknown_name_are_not_public():
    assert not_public("from tomolab.clusters import layouts") == ["tomolab.clusters.layouts"]
    assert not_public("from tomolab import clusters\nclusters.layouts.flat(1)") == ["clusters.layouts"]
    assert not_public("networks.load('default')") == ["networks.load"]
    assert (
        not_public("from tomolab import io, volumes\nfrom tomolab.ui import plots\nplots.slices(volumes.invert(io.sha256))")
        == []
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_use_public_names_only(path):
    assert not_public("\n".join("".join(cell["source"]) for cell in code_cells(path))) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_use_public_names_only(path):
    text = path.read_text(encoding="utf-8")
    blocks = [text] if path.suffix == ".py" else re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert [fault for block in blocks for fault in not_public(block)] == []


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_names_within_sentences_are_public(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path.suffix == ".ipynb" else []
    text = "\n".join("".join(cell["source"]) for cell in cells) if cells else path.read_text(encoding="utf-8")
    inner = {one.split(".")[-1] for one in MODULES} - set(OWNERS)
    names = [name for name in re.findall(r"`([a-z_]+(?:\.\w+)+)", text) if name.split(".")[-1] not in SUFFIXES]
    parts = [name.split(".") for name in names]
    faults = [one for one in parts if one[0] in inner or (one[0] in OWNERS and not is_public(OWNERS[one[0]], one[1]))]
    assert faults == []


def headings(path: Path) -> set[str]:
    """Addresses of the headings of a Markdown page, as GitHub and GitLab form them."""
    found = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in found}


@pytest.mark.parametrize("path", [path for path in PAGES if path.suffix == ".md"], ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    faults = []
    for link in re.findall(r"\]\((?!https://)([^)]+)\)", path.read_text(encoding="utf-8")):
        file, _, heading = link.partition("#")
        target = path.parent / file if file else path
        faults += [] if target.exists() and (not heading or heading in headings(target)) else [link]
    assert faults == []


def test_links_to_the_web_are_whole_and_each_is_written_in_one_way() -> None:
    found: dict[str, set[str]] = {}
    for path in (one for one in TEXTS if one.suffix in (".md", ".ipynb")):
        for link in re.findall(r"\w+://[^\s)>\"'`\\]+", path.read_text(encoding="utf-8")):
            address = urlsplit(link.rstrip(".,;:"))
            if address.scheme in ("http", "https") and address.hostname not in ("localhost", "127.0.0.1"):
                assert re.fullmatch(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(/[\w./~%#?=&+-]*)?", address.geturl()), (path, link)
                found.setdefault(f"{address.hostname}{address.path.rstrip('/')}".casefold(), set()).add(address.geturl())
    assert found
    assert not {key: ways for key, ways in found.items() if len({way.partition("#")[0] for way in ways}) > 1}


def test_packages_are_loaded_when_they_are_asked_for():
    script = "import sys, tomolab; print('tomolab.io' in sys.modules, tomolab.io.__name__, tomolab.io.tilts.__name__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "tomolab.io", "tomolab.io.tilts"]
