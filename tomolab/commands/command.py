"""What a command of the terminal is, and the arguments that several commands share."""

import argparse
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class UsageError(ValueError):
    """Arguments that do not go together."""


@dataclass(frozen=True)
class Result:
    """What a command found: text for people, values for programs (``--json``), and the exit code."""

    text: str
    values: dict[str, Any] = field(default_factory=dict)
    code: int = 0


@dataclass(frozen=True)
class Command:
    """A command of the terminal.

    Parameters
    ----------
    name
        Its word.
    about
        One sentence for the list of commands.
    example
        Lines for the end of its help.
    add_arguments
        Adds its arguments to a parser; imports nothing heavy.
    run
        Does the work with the parsed arguments; raises ValueError or OSError with one clear message.
    """

    name: str
    about: str
    example: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], Result]


def add_tomograms(parser: ArgumentParser) -> None:
    """Add tomograms, and what no file says of them."""
    parser.add_argument(
        "tomograms",
        nargs="+",
        metavar="TOMOGRAM",
        help="files (.mrc, OME-Zarr), a folder of them, or tomograms.csv; NAME=FILE gives a name of a particle list",
    )
    parser.add_argument("--contrast", choices=("bright", "dark"), help="of protein; dark in most tomograms of IMOD and Warp")
    parser.add_argument(
        "--tilts", nargs=2, type=float, metavar=("LOWEST", "HIGHEST"), help="degrees; by default of NAME.tlt beside NAME.mrc"
    )
    parser.add_argument("--voxel-size", type=positive, metavar="Å", help="of tomograms that do not say it")
    parser.add_argument("--no-check-contrast", dest="check_contrast", action="store_false", help="do not measure the contrast")


def add_particles(parser: ArgumentParser, *, required: bool) -> None:
    """Add particle lists, and what they do not say."""
    parser.add_argument(
        "--particles",
        nargs="+",
        required=required,
        metavar="LIST",
        help="particle lists (.star, .tbl, .em, .mod, .csv, ...) or a folder of them; TOMOGRAM=LIST says whose it is",
    )
    parser.add_argument("--particles-voxel-size", type=positive, metavar="Å", help="per pixel of the coordinates in the lists")
    parser.add_argument("--unit", choices=("angstrom", "voxel", "fraction"), help="of coordinates that do not say it")
    parser.add_argument("--tomogram-list", type=Path, metavar="STAR", help="tomograms.star of RELION that belongs to the list")
    parser.add_argument("--skip-unknown", action="store_true", help="leave out particles of other tomograms")


def add_output(parser: ArgumentParser, what: str, *, replace: bool = True) -> None:
    """Add the place of the result."""
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PATH", help=what)
    if replace:
        parser.add_argument("--force", action="store_true", help="replace what is there")


def free_output(given: Namespace, path: Path | None = None) -> Path:
    """Path of the result, ``--output`` by default; FileExistsError if it exists and ``--force`` was not given."""
    path = given.output if path is None else path
    if path.exists() and not given.force:
        raise FileExistsError(f"{path} is there already: name another place, or replace it with --force")
    return path


def named(words: list[str]) -> Any:
    """Files as a function takes them: one alone, several as a list, NAME=FILE as a dict."""
    pairs = [word.partition("=") for word in words]
    marked = [bool(mark) and not Path(word).exists() for word, (_, mark, _) in zip(words, pairs, strict=True)]
    if all(marked):
        return {name: path for name, _, path in pairs}
    if any(marked):
        raise UsageError(f"write NAME=FILE for all or for none, got {' '.join(words)}")
    return words[0] if len(words) == 1 else words


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 particle", "2,000 particles"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def positive(text: str) -> float:
    """A number above 0 from text, as argparse asks for it."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def values(given: Namespace, names: str) -> dict[str, Any]:
    """Some of the arguments by name; the names are separated by spaces."""
    return {name: getattr(given, name) for name in names.split()}


def say(given: Namespace, text: str) -> None:
    """Write a line of progress to stderr, unless the user wants none."""
    if not given.quiet:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
