"""The command line: ``tomolab COMMAND``, also as ``python -m tomolab``.

The result goes to stdout, as text or with ``--json`` as JSON; progress, warnings and errors go to stderr. Exit codes: 0 done,
1 failed with one line that says why, 2 wrong use, 130 interrupted.
"""

import json
import re
import sys
import traceback
import warnings
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tomolab import __version__
from tomolab.commands import COMMANDS
from tomolab.commands.command import Result, UsageError

ARGUMENT = re.compile(
    r"(?<![\w-])(?P<name>[a-z_]+)=(?:(?P<switch>True|False)\b|\{(?P<key>\w+): (?P<item>\w+)\}|\((?P<low>\w+), (?P<high>\w+)\)"
    r"|(?P<quote>['\"]?)(?P<value>\w(?:[\w.]*\w)?)(?P=quote))?"
)
"""An argument in a message, as Python writes it: ``tilts=``, ``contrast="dark"``, ``tilts=(low, high)``, ``lists={A: B}``."""
EXIT_CODES = "exit codes: 0 done, 1 failed with one line that says why, 2 wrong use, 130 interrupted"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 if all is well.

    Parameters
    ----------
    arguments
        Words after the program's name; those of the process by default.
    """
    parser = _parser()
    words = sys.argv[1:] if arguments is None else arguments
    if not words:
        parser.print_help(sys.stderr)
        return 2
    given = parser.parse_args(words)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        result = _run(given)
    noted = list(dict.fromkeys(str(one.message) for one in caught if issubclass(one.category, UserWarning)))
    for text in noted:
        print(f"warning: {_as_options(text, given)}", file=sys.stderr)
    if given.json:
        print(json.dumps({"command": given.command, "exit_code": result.code, "warnings": noted, **_plain(result.values)}))
    elif result.text:
        print(result.text, file=sys.stderr if "error" in result.values else sys.stdout)
    return result.code


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="tomolab",
        description="From cryo-electron tomograms to clusters of unknown complexes and their averages.",
        epilog=f"tomolab COMMAND --help shows an example of each command. {EXIT_CODES}",
    )
    parser.add_argument("--version", action="version", version=f"tomolab {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for one in COMMANDS:
        epilog = "\n  ".join(["example:", *one.example.split("\n")]) + f"\n\n{EXIT_CODES}"
        added = commands.add_parser(
            one.name,
            help=one.about,
            description=one.about,
            epilog=epilog,
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        one.add_arguments(added)
        added.add_argument("--json", action="store_true", help="print the result as JSON; progress stays on stderr")
        added.add_argument("--quiet", action="store_true", help="show no progress")
        added.add_argument("--debug", action="store_true", help="show where in the program an error came from")
        added.set_defaults(run=one.run)
    return parser


def _run(given: Namespace) -> Result:
    try:
        return given.run(given)
    except KeyboardInterrupt:
        text, code = "interrupted; the same command continues where that is possible", 130
    except UsageError as error:
        text, code = str(error), 2
    except (ValueError, OSError, ImportError, RuntimeError, MemoryError, KeyError) as error:
        if given.debug:
            traceback.print_exc()
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        text, code = " ".join(_as_options(str(message), given).split()) or type(error).__name__, 1
    print(f"tomolab {given.command}: {text}", file=sys.stderr)
    return Result("", {"error": text}, code)


def _as_options(message: str, given: Namespace) -> str:
    """A message of a function with its arguments as a command writes them: ``tilts=(low, high)`` is ``--tilts low high``."""

    def option(found: re.Match[str]) -> str:
        if found["name"] not in vars(given):
            return found[0]
        flag = f"--{'no-' * (found['switch'] == 'False')}{found['name']}".replace("_", "-")
        pair = f"{found['key']}={found['item']}" if found["key"] else ""
        words = ["TOMOGRAM" * (not pair) if found["name"] == "tomograms" else flag, pair, found["low"], found["high"]]
        return " ".join(filter(None, [*words, found["value"]]))

    return ARGUMENT.sub(option, message)


def _plain(value: Any) -> Any:
    """Values that JSON can hold; a number that is none becomes null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and value not in (float("inf"), float("-inf")) and value == value:
        return value
    if value is None or isinstance(value, bool | int | str):
        return value
    return _plain(value.item()) if hasattr(value, "item") else None


if __name__ == "__main__":
    raise SystemExit(main())
