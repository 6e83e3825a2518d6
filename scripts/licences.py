"""Checks that the licences of all packages that tomolab needs fit BSD-3-Clause, and lists them in docs/licences.md.

scripts/licences.py            fail on a licence that does not fit, or a package that the list lacks
scripts/licences.py --write    write the list again
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "docs" / "licences.md"
HEAD = """# Licences

All packages that tomolab and its extras need, directly or indirectly, and their licences. tomolab does not ship these packages.
If you pass on an environment that contains them, you also pass on their licences. `scripts/licences.py --write` writes this
list, and `make check` compares it with the installed packages. On machines with an NVIDIA GPU, torch also installs NVIDIA's
libraries, which have NVIDIA's own terms.

| package | licence |
|---|---|
"""
PERMISSIVE = {
    "0BSD",
    "APACHE-2.0",
    "APACHE-2.0 WITH LLVM-EXCEPTION",
    "BSD",
    "BSD-2-CLAUSE",
    "BSD-3-CLAUSE",
    "BSL-1.0",
    "CC0-1.0",
    "HPND",
    "ISC",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-2.0",
    "PSF-2.0",
    "UNLICENSE",
    "ZLIB",
}
"""Licences, in capitals, that ask for no more than to be named; MPL-2.0 also for changes of its own files."""
NAMES = {
    "BSD LICENSE": "BSD",
    "BSD 3-CLAUSE": "BSD-3-Clause",
    "MIT LICENSE": "MIT",
    "ISC LICENSE (ISCL)": "ISC",
    "APACHE SOFTWARE LICENSE": "Apache-2.0",
    "APACHE LICENSE, VERSION 2.0": "Apache-2.0",
    "APACHE 2.0": "Apache-2.0",
    "MOZILLA PUBLIC LICENSE 2.0 (MPL 2.0)": "MPL-2.0",
    "PYTHON SOFTWARE FOUNDATION LICENSE": "PSF-2.0",
}
"""Names that packages gave their licences before there was a standard for it."""
REVIEWED = {
    "geoindex-rs": ("MIT OR Apache-2.0", "its repository says so, its metadata say nothing"),
    "pyside6-essentials": ("LGPL-3.0-only", "used as a library of its own, which anybody can replace; Qt is not changed"),
    "shiboken6": ("LGPL-3.0-only", "as pyside6-essentials"),
    "umap-learn": ("BSD-3-Clause", "its LICENSE.txt says so, its metadata do not"),
}
"""Licences that were looked up by hand, since the metadata do not give them, and why they fit."""
NOT_OURS = re.compile(r"nvidia-|cuda-|triton$")
"""Packages that torch brings along where there is a GPU."""


def needed(requirements: Iterable[str]) -> Iterator[metadata.Distribution]:
    """Yield the installed packages that these requirements ask for, and all that those do, each once."""
    waiting, seen, told = [Requirement(text) for text in requirements], set(), set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        # An extra of our own, whose packages are in the list already.
        if name == "tomolab" or (name, *sorted(wanted.extras)) in seen:
            continue
        seen.add((name, *sorted(wanted.extras)))
        try:
            found = metadata.distribution(wanted.name)
        except metadata.PackageNotFoundError:
            # Of another system or of an extra that is not installed.
            continue
        if name not in told:
            told.add(name)
            yield found
        for text in found.requires or []:
            one = Requirement(text)
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in (wanted.extras or {""})):
                waiting.append(one)


def licence(about: metadata.PackageMetadata) -> str:
    """Licence in the metadata of a package, as SPDX names it if that is known; empty if there is none."""
    if about.get("License-Expression"):
        return about["License-Expression"]
    kinds = [one.split(" :: ")[-1] for one in about.get_all("Classifier") or [] if one.startswith("License :: ")]
    words = [one for one in kinds if one != "OSI Approved"] or [(about.get("License") or "").strip().split("\n")[0][:60]]
    return " AND ".join(NAMES.get(one.upper(), one) for one in words if one)


def fits(text: str) -> bool:
    """Whether a licence fits BSD-3-Clause: all parts of it, or one of its alternatives."""
    plain = text.replace("(", " ").replace(")", " ").strip()
    return any(
        all(one.strip().upper() in PERMISSIVE for one in way.split(" AND ")) for way in re.split(r" OR ", plain) if way.strip()
    )


def listed(requirements: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Licences by package, and what is wrong with some of them."""
    found, wrong = {}, []
    for one in needed(requirements):
        name = canonicalize_name(one.metadata["Name"])
        if NOT_OURS.match(name):
            continue
        said, reason = REVIEWED.get(name, (licence(one.metadata), ""))
        found[name] = f"{said} ({reason})" if reason else said
        if not reason and not fits(said):
            wrong.append(f"{name}: {said or 'says nothing of its licence'}")
    return dict(sorted(found.items())), sorted(wrong)


def text(found: dict[str, str]) -> str:
    """The list as Markdown."""
    return HEAD + "".join(f"| {name} | {said} |\n" for name, said in found.items())


def main() -> None:
    options = argparse.ArgumentParser(description="Licences of all that tomolab needs.")
    options.add_argument("--write", action="store_true", help="write docs/licences.md again")
    given = options.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    found, wrong = listed(text for texts in lists for text in texts)
    if wrong:
        sys.exit("licences that do not fit, or were not looked up (REVIEWED in scripts/licences.py):\n  " + "\n  ".join(wrong))
    if given.write:
        LIST.write_text(text(found), encoding="utf-8")
        return
    known = LIST.read_text(encoding="utf-8") if LIST.is_file() else ""
    # What is listed and not installed is of another system.
    lacking = [f"{name}: {said}" for name, said in found.items() if f"| {name} | {said} |\n" not in known]
    if lacking:
        sys.exit("docs/licences.md lacks, or has otherwise (scripts/licences.py --write):\n  " + "\n  ".join(lacking))
    print(f"licences of {len(found)} packages fit, and are listed in docs/licences.md")


if __name__ == "__main__":
    main()
