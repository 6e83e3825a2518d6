"""pyproject.toml, environment.yml and constraints.txt say the same; the set-up scripts do what they say."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import tomolab

ROOT = Path(__file__).resolve().parents[1]
FILE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = FILE["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONDA_NAMES = {
    "torch": "pytorch",
    "matplotlib": "matplotlib-base",
    "playwright": "playwright-python",
    "pyside6-essentials": "pyside6",
}


def wanted() -> dict[str, SpecifierSet]:
    """Name and range of every requirement of pyproject.toml, those of extras and groups included."""
    lists = [PROJECT["dependencies"], *EXTRAS.values(), *FILE["dependency-groups"].values()]
    requirements = [Requirement(text) for texts in lists for text in texts]
    return {
        canonicalize_name(requirement.name): requirement.specifier
        for requirement in requirements
        if requirement.name != PROJECT["name"]
    }


def conda() -> dict[str, SpecifierSet]:
    """Name and range of every entry of environment.yml, its pip section included."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    texts = [text for text in entries if isinstance(text, str)] + [text for text in pip if not text.startswith("-")]
    matches = [re.fullmatch(r"([a-z0-9_-]+)\s*([<>=!~].*)?", text) for text in texts]
    return {match[1]: SpecifierSet(match[2] or "") for match in matches}


def pins() -> list[tuple[str, Version]]:
    """Every pin of constraints.txt; a package may have two, for different versions of Python."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    requirements = [Requirement(line) for line in lines]
    assert all(len(requirement.specifier) == 1 for requirement in requirements)
    return [(requirement.name, Version(next(iter(requirement.specifier)).version)) for requirement in requirements]


def test_environment_file_has_the_names_and_ranges_of_the_project():
    expected = {CONDA_NAMES.get(name, name): span for name, span in wanted().items()}
    expected |= {"python": SpecifierSet(PROJECT["requires-python"]), "pip": SpecifierSet("")}
    assert conda() == expected


def test_environment_file_installs_this_checkout():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert "--editable ." in next(entry["pip"] for entry in entries if isinstance(entry, dict))


def test_pins_fit_the_ranges():
    found = dict(pins())
    assert set(wanted()) <= set(found), f"not pinned: {set(wanted()) - set(found)}; run `make constraints`"
    assert {name: str(found[name]) for name, span in wanted().items() if found[name] not in span} == {}


def test_pins_are_exact_public_versions():
    assert [name for name, version in pins() if version.local] == []
    assert "tomolab" not in dict(pins())


def test_what_two_extras_need_has_one_range():
    texts = [text for texts in EXTRAS.values() for text in texts]
    names = [Requirement(text).name for text in set(texts)]
    assert len(names) == len(set(names))


def test_all_extras_are_in_all():
    everything = Requirement(EXTRAS["all"][0])
    assert everything.name == PROJECT["name"]
    assert everything.extras == set(EXTRAS) - {"all"}


def test_every_requirement_has_a_lower_bound():
    assert [name for name, span in wanted().items() if not any(part.operator in (">=", "==") for part in span)] == []


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine where dpkg knows only what `installed` names, and where apt-get writes down what it is asked."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "tail", "mktemp", "rm", "env"):
        (tools / name).symlink_to(shutil.which(name))

    def program(name: str, text: str) -> None:
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)

    program("id", "echo ${TEST_UID:-1000}")
    program("sudo", "exit 1")
    program("apt-get", f'echo "$@" >> {tmp_path}/asked; exit ${{TEST_APT:-0}}')
    program(
        "dpkg-query",
        'for name in $TEST_INSTALLED; do if [ "$name" = "${!#}" ]; then echo -n installed; exit 0; fi; done; exit 1',
    )

    def run(group: str, **environment: str) -> tuple[int, str, str]:
        variables = {"PATH": str(tools), **environment}
        done = subprocess.run(
            [ROOT / "scripts" / "libraries.sh", group], env=variables, capture_output=True, text=True, check=False
        )
        asked = tmp_path / "asked"
        return done.returncode, done.stdout + done.stderr, asked.read_text() if asked.exists() else ""

    run.program = program
    return run


def test_missing_libraries_without_rights_stop_the_tests_with_the_command(machine):
    code, text, asked = machine("test")
    assert code == 1
    assert re.search(r"sudo apt-get install --no-install-recommends xvfb .*libegl1 .*chromium", text)
    assert asked == ""


def test_missing_libraries_without_rights_do_not_stop_the_lab(machine):
    code, text, asked = machine("lab")
    assert code == 0
    assert "sudo apt-get install" in text
    assert "chromium" not in text
    assert "browser works" in text
    assert asked == ""


def test_root_installs_only_what_is_missing(machine):
    _, text, _ = machine("test")
    packages = text.split("--no-install-recommends ")[1].split()
    present = [name for name in packages if name not in ("libegl1", "chromium")]
    code, _, asked = machine("test", TEST_UID="0", TEST_INSTALLED=" ".join([*present, "openmpi-bin"]))
    assert code == 0
    asking = "install --yes --no-install-recommends"
    assert asked.splitlines() == ["update", f"{asking} libegl1 chromium", f"{asking} relion"]


def test_nothing_is_asked_of_a_machine_that_has_all(machine):
    packages = machine("test")[1].split("--no-install-recommends ")[1].split()
    present = " ".join([*packages, "relion", "openmpi-bin"])
    assert machine("test", TEST_UID="0", TEST_INSTALLED=present) == (0, "", "")
    assert machine("lab", TEST_UID="0", TEST_INSTALLED=" ".join(packages)) == (0, "", "")


def test_relion_of_another_source_will_do(machine):
    packages = machine("test")[1].split("--no-install-recommends ")[1].split()
    for name in ("relion_refine_mpi", "mpirun"):
        machine.program(name, "exit 0")
    assert machine("test", TEST_UID="0", TEST_INSTALLED=" ".join(packages)) == (0, "", "")


def test_without_relion_the_tests_go_on_and_say_so(machine):
    packages = " ".join(machine("test")[1].split("--no-install-recommends ")[1].split())
    code, text, asked = machine("test", TEST_INSTALLED=packages)
    assert (code, asked) == (0, "")
    assert "tests with RELION will be skipped: install it with sudo apt-get install" in text
    code, text, _ = machine("test", TEST_UID="0", TEST_APT="100", TEST_INSTALLED=packages)
    assert code == 0
    assert "tests with RELION will be skipped: apt-get could not install relion openmpi-bin" in text


def test_another_browser_will_do(machine):
    machine.program("google-chrome", "exit 0")
    assert "chromium" not in machine("test")[1]


def test_failed_installation_stops_the_tests(machine):
    code, text, _ = machine("test", TEST_UID="0", TEST_APT="100")
    assert code == 1
    assert "apt-get could not install: xvfb" in text


@pytest.fixture
def checkout(tmp_path):
    """Run scripts/environment.sh in a checkout of its own, where PATH has only stand-ins for Python."""
    folder, tools = tmp_path / "checkout", tmp_path / "pythons"
    (folder / "scripts").mkdir(parents=True)
    tools.mkdir()
    shutil.copy(ROOT / "scripts" / "environment.sh", folder / "scripts")
    for name in ("bash", "dirname", "head", "grep", "rm", "sh"):
        (tools / name).symlink_to(shutil.which(name))

    def python(place: Path, version: str) -> Path:
        """A Python of that version that makes environments of the same, and stops where something is to be installed."""
        fits = 0 if version.startswith(("3.11", "3.12", "3.13")) else 1
        place.write_text(
            "#!/bin/sh\n"
            f'case "$*" in *version_info*) exit {fits};; *platform*|--version) echo Python {version};; '
            f'"-m venv"*) /bin/mkdir -p "$3/bin" && /bin/cp "$0" "$3/bin/python";; *) echo installing; exit 9;; esac\n'
        )
        place.chmod(0o755)
        return place

    def shim(name: str) -> None:
        """What pyenv leaves in PATH for a Python that is not chosen."""
        (tools / name).write_text(f"#!/bin/sh\necho 'pyenv: {name}: command not found' >&2\nexit 127\n")
        (tools / name).chmod(0o755)

    def run(**environment: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "scripts/environment.sh", "lab"],
            cwd=folder,
            env={"PATH": str(tools)} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    run.folder, run.tools, run.python, run.shim = folder, tools, python, shim
    return run


def test_old_python_is_refused_in_words(checkout, tmp_path):
    old = checkout.python(tmp_path / "old", "3.10.9")
    checkout.python(checkout.tools / "python3", "3.12.1")
    code, text = checkout(PYTHON=str(old))
    assert code == 1
    assert "tomolab needs Python 3.11 to 3.13" in text
    assert f"{old} says: Python 3.10.9" in text
    assert not (checkout.folder / ".venv").exists()


def test_a_named_python_that_does_not_run_is_not_replaced_by_another(checkout):
    checkout.python(checkout.tools / "python3", "3.12.1")
    checkout.shim("python3.13")
    for name, says in (("python3.13", "pyenv: python3.13: command not found"), ("python3.99", "command not found")):
        code, text = checkout(PYTHON=name)
        assert code == 1
        assert says in text
        assert "Building" not in text
    assert not (checkout.folder / ".venv").exists()


def test_another_python_than_the_first_is_told(checkout):
    checkout.python(checkout.tools / "python3", "3.14.0")
    checkout.shim("python3.13")
    checkout.python(checkout.tools / "python3.12", "3.12.1")
    code, text = checkout()
    assert code == 9
    for words in ("python3 says: Python 3.14.0", "python3.13: command not found", "Taking python3.12 instead"):
        assert words in text
    assert "Building .venv with Python 3.12.1" in text


def test_the_first_python_needs_no_words(checkout):
    checkout.python(checkout.tools / "python3", "3.13.0")
    assert checkout() == (9, "Building .venv with Python 3.13.0\ninstalling\n")


def test_an_environment_of_another_python_is_not_taken_for_the_named_one(checkout, tmp_path):
    new = checkout.python(tmp_path / "new", "3.13.0")
    checkout.python(checkout.tools / "python3", "3.12.1")
    assert checkout()[0] == 9
    code, text = checkout(PYTHON=str(new))
    assert code == 1
    assert f".venv was built with Python 3.12.1, and PYTHON={new} is Python 3.13.0" in text
    assert checkout(PYTHON="python3") == checkout() == (9, "installing\n")


def test_workflows_run_commands_of_make_with_every_python():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pythons, asked = set(), set()
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text())["jobs"]
        pythons |= set(re.findall(r'"(3\.\d+)"', path.read_text()))
        for job in jobs.values():
            rows = job.get("strategy", {}).get("matrix", {}).get("include", [{}])
            runs = [step["run"] for step in job["steps"] if "run" in step]
            asked |= {run.replace("${{ matrix.versions }}", row.get("versions", "")).split()[1] for run in runs for row in rows}
    assert asked == {"check", "test", "test-oldest", "test-newest"} <= targets
    assert pythons == {one.split(" :: ")[-1] for one in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", one)}


def test_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["cff-version"], cited["title"], cited["license"]) == ("1.2.0", PROJECT["name"], PROJECT["license"])
    assert cited["version"] == tomolab.__version__
    assert cited["references"][0]["doi"] == "10.1093/bioinformatics/btx230"


def test_make_lists_its_commands():
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[1] for line in done.stdout.splitlines()} >= {"lab", "test", "check", "demo", "bench", "clean"}
