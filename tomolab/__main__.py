"""The command line: ``tomolab doctor``, ``tomolab --version``, also as ``python -m tomolab``."""

import argparse
from collections.abc import Sequence

from tomolab import __version__, doctor, machine


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 unless the doctor finds that tomolab cannot run.

    Parameters
    ----------
    arguments
        Words after the program's name; those of the process by default.
    """
    parser = argparse.ArgumentParser(prog="tomolab", description="From cryo-electron tomograms to clusters and averages.")
    parser.add_argument("--version", action="version", version=f"tomolab {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="say what this machine offers, and what is wrong")
    parser.parse_args(arguments)
    facts = machine.look()
    findings = doctor.diagnose(facts)
    print(doctor.report(facts, findings))
    return int(any(finding.severity == "broken" for finding in findings))


if __name__ == "__main__":
    raise SystemExit(main())
