"""Nobody is let in: nothing runs what it reads, nothing listens, nothing is fetched whose hash is not known or recorded."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tomolab.io import download
from tomolab.simulation import structures

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for folder in ("tomolab", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Written in two halves, so that this file does not hold what tests/test_package.py forbids.
PACKAGES = {
    f"pick{'le'}",
    f"c{'Pickle'}",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "xml",
    "lxml",
    "telnetlib",
    "ftplib",
    "smtplib",
}
SERVERS = {"http.server", "socketserver", "xmlrpc", "wsgiref", "flask", "aiohttp"}
CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "tempfile.mktemp",
    "joblib.load",
    "pandas.read_pickle",
}
CALLS |= {
    "pd.read_pickle",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "numpy.fromregex",
    "torch.hub.load",
    "subprocess.getoutput",
}
CALLS |= {"os.execv", "os.execvp", "os.spawnl", "subprocess.getstatusoutput", "pty.spawn", "asyncio.create_subprocess_shell"}
LISTENING = {"listen", "bind", "create_server", "start_server", "listen_tcp", "serve_forever"}
FETCHING = {"requests", "urllib.request", "httpx", "httpx2", "http.client", "socket", "pooch", "ftplib"}
MAY_FETCH = {
    "tomolab/io/download.py": "the only door for files, asks pip for the address of an archive; a hash is known or recorded",
    "tomolab/io/volumes/zarr_arrays.py": "reads tomograms at addresses that the user gives; numbers only, within limits",
    "tomolab/ui/napari/display_check.py": "asks whether the X display answers, which the environment names",
    "tomolab/ui/notebook/server.py": "finds a free port of this machine",
    "scripts/audit.py": "asks a database for known vulnerabilities; nothing is kept",
}
MAY_LISTEN = {"tomolab/ui/notebook/server.py": "the page of `tomolab inspect`, on 127.0.0.1 and with a token"}


def trees() -> Iterator[tuple[str, ast.AST]]:
    """Every source file and every code cell of the notebooks, parsed."""
    for path in SOURCES:
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                lines = [line for line in "".join(cell["source"]).splitlines() if not line.startswith("%")]
                yield str(path.relative_to(ROOT)), ast.parse("\n".join(lines))


def imported(tree: ast.AST) -> set[str]:
    """Modules that are imported, with all that they are in: a.b.c, a.b and a."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {".".join(name.split(".")[: n + 1]) for name in found for n in range(name.count(".") + 1)}


def named(node: ast.expr) -> str:
    """Name of what is called, such as "os.system"."""
    if isinstance(node, ast.Attribute):
        return f"{named(node.value) or '?'}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def faults(tree: ast.AST, name: str = "") -> list[str]:
    """What must not be in a source."""
    modules = imported(tree)
    found = [f"imports {one}" for one in sorted(modules & (PACKAGES | SERVERS))]
    # The type of what defusedxml gives.
    if modules & {one for one in modules if one.startswith("xml.")} == {
        "xml.etree",
        "xml.etree.ElementTree",
        "xml.etree.ElementTree.Element",
    }:
        found.remove("imports xml")
    if modules & FETCHING and name not in MAY_FETCH:
        found.append(f"fetches with {sorted(modules & FETCHING)}")
    for node in (one for one in ast.walk(tree) if isinstance(one, ast.Call)):
        called = named(node.func)
        given = {word.arg: word.value for word in node.keywords}
        plain = {key: value.value for key, value in given.items() if isinstance(value, ast.Constant)}
        if called in CALLS or (called.rpartition(".")[2] in LISTENING and name not in MAY_LISTEN):
            found.append(f"calls {called}")
        if "shell" in given and plain.get("shell") is not False:
            found.append(f"calls {called} with a shell")
        if "allow_pickle" in given and plain.get("allow_pickle") is not False:
            found.append(f"calls {called} with pickle")
        if called.endswith("torch.load") and plain.get("weights_only") is not True:
            found.append("calls torch.load for more than weights")
        if called in ("np.load", "numpy.load") and plain.get("allow_pickle", True):
            found.append(f"calls {called} without saying that there is no pickle")
        if called.endswith(("extractall", "unpack_archive")):
            found.append(f"calls {called}, which writes wherever an archive says")
    return found


def test_nothing_runs_what_it_reads_nor_listens() -> None:
    assert {name: found for name, tree in trees() if (found := faults(tree, name))} == {}


@pytest.mark.parametrize(
    "source",
    [
        f"import pick{'le'}",
        "from xml.etree import ElementTree",
        "import http.server",
        "eval('1')",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=asked)",
        f"np.load(path, allow_pickle={'Tr'}ue)",
        "np.load(path)",
        "torch.load(path)",
        "yaml.load(text)",
        "tempfile.mktemp()",
        "server.bind(('', 80))",
        "asyncio.start_server(answer)",
        "import requests",
        "from urllib.request import urlopen",
        "tar.extractall(folder)",
    ],
)
def test_what_must_not_be_there_would_be_found(source: str) -> None:
    assert faults(ast.parse(source)), source


def test_who_may_fetch_does() -> None:
    """The list of reasons is no longer than it must be."""
    fetching = {name for name, tree in trees() if imported(tree) & FETCHING}
    assert fetching == set(MAY_FETCH)


def test_jupyterlab_has_a_token_and_stays_on_this_machine() -> None:
    """Nothing on the command line, or in a file of the checkout, takes away what Jupyter does by itself."""
    done = subprocess.run(["make", "--dry-run", "lab"], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if "jupyter-lab" in line]
    assert not re.search(r"token|password|--ip|allow_origin|disable_check_xsrf|allow_remote|0\.0\.0\.0|certfile", line)
    assert not [path for folder in (".", "notebooks", "scripts") for path in (ROOT / folder).glob("jupyter*_config.*")]
    script = "from jupyter_server.serverapp import ServerApp as A; from jupyter_server.auth import IdentityProvider as I; "
    script += "a = A(); i = I(parent=a); safe = bool(i.token) and i.token_generated; "
    script += "print(a.ip, safe, a.disable_check_xsrf, a.allow_remote_access)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["localhost", "True", "False", "False"]


LISTENS = """
import sys, warnings
sys.path[:0] = {paths!r}
warnings.simplefilter("ignore")
import psutil
def ports():
    return {{(one.laddr, one.raddr, one.status) for one in psutil.Process().net_connections("inet")}}
before = ports()
import importlib, pathlib
from conftest import write_run
from tomolab import averaging, inspection, simulation
from tomolab.simulation import densities
from tomolab.simulation import Imaging
for place in sorted(pathlib.Path({package!r}).rglob("*.py")):
    if place.stem not in ("__main__", "__init__"):
        importlib.import_module("tomolab." + ".".join(place.relative_to({package!r}).with_suffix("").parts))
maps = densities.load(["tric", "ribosome_70s"], voxel_size=20.0, box=20)
boxes = simulation.subtomograms(maps, 16, imaging=Imaging(snr=0.5, tilts=(-60.0, 60.0)), box=20, seed=3, device="cpu")
boxes = type(boxes)(boxes.volumes, boxes.particles.assign(tomogram="cell"), boxes.voxel_size)
work = inspection.open(write_run(pathlib.Path({folder!r}), boxes), diameter=250)
averaging.average(boxes, boxes.ids[:8], seed=0, starts=1, iterations=2)
print(sorted(ports() - before))
"""


def test_nothing_listens(tmp_path: Path) -> None:
    """All modules, an inspection and an average, and no port was opened."""
    script = LISTENS.format(
        paths=[str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")], package=str(ROOT / "tomolab"), folder=str(tmp_path)
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_every_download_by_name_has_its_hash() -> None:
    whole = re.compile(r"[0-9a-f]{64}")
    assert set(download.sample_names()) == set(download.SAMPLES)
    for source in download.SAMPLES.values():
        assert whole.fullmatch(source.sha256)
        assert source.files
        assert all(whole.fullmatch(sha256) for _, sha256 in source.files.values())


def test_a_structure_is_what_it_was_when_it_was_fetched(tmp_path: Path, server) -> None:
    """Entries change at their source: what was fetched stays, and what changes here is noticed."""
    (server.folder / "1abc.cif.gz").write_bytes(b"first")
    path = structures.fetch("1abc", server=server.url, folder=tmp_path)
    (server.folder / "1abc.cif.gz").write_bytes(b"second")
    assert structures.fetch("1abc", server=server.url, folder=tmp_path).read_bytes() == b"first"
    path.write_bytes(b"second")
    with pytest.raises(ValueError, match="has changed since it was downloaded"):
        structures.fetch("1abc", server=server.url, folder=tmp_path)
    for name in ("../1abc", "1abc/..", "1abc?x", "http://x", ""):
        with pytest.raises(ValueError, match="is not a PDB id"):
            structures.fetch(name, server=server.url, folder=tmp_path)
    assert server.requests == ["/1abc.cif.gz"]
