"""Lists known vulnerabilities of the installed packages from the database osv.dev; fails if there are any.

If the database cannot be reached, it says that nothing was audited, and fails only with --release.

scripts/audit.py [--release]
"""

import argparse
import json
import subprocess
import sys

import requests

SERVICE = "https://api.osv.dev"
PATIENCE = 3.0
"""Seconds to wait for the service, before the audit is left out."""
LONGEST = 120.0
"""Seconds that the audit may take."""
IGNORED: dict[str, str] = {}
"""Vulnerabilities that do not concern us, by name, with date and reason. Each is reviewed with every release."""


def unreachable() -> str:
    """Why the service cannot be asked; empty if it can."""
    try:
        answer = requests.get(SERVICE, timeout=PATIENCE)
    except requests.RequestException as error:
        return f"{SERVICE} cannot be reached ({type(error).__name__})"
    # A proxy that refuses, or a service that is down.
    return (
        f"{SERVICE} answers {answer.status_code}" if answer.status_code in (401, 403, 407) or answer.status_code >= 500 else ""
    )


def found(report: str) -> list[str]:
    """Vulnerabilities in a report of pip-audit, without those that are ignored."""
    return [
        f"{one['name']} {one.get('version', '')}: {hole['id']} (mended in {', '.join(hole['fix_versions']) or 'no version'})"
        for one in json.loads(report)["dependencies"]
        for hole in one.get("vulns", [])
        if not {hole["id"], *hole.get("aliases", [])} & set(IGNORED)
    ]


def leave_out(reason: str, *, release: bool) -> None:
    said = f"NOT AUDITED for known vulnerabilities: {reason}"
    if release:
        sys.exit(f"{said}; a release needs the audit, so run make release-check where the service can be reached")
    print(f"{said}; everything else is checked. make release-check fails without the audit")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="List known vulnerabilities of what is installed.")
    parser.add_argument("--release", action="store_true", help="fail if the service cannot be reached")
    release = parser.parse_args(words).release
    if reason := unreachable():
        leave_out(reason, release=release)
        return
    options = ["--vulnerability-service=osv", "--format=json", "--progress-spinner=off", "--skip-editable", "--timeout=5"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *options], capture_output=True, text=True, check=False, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        leave_out(f"{SERVICE} took more than {LONGEST:g} s", release=release)
        return
    if not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        if "onnect" in done.stderr or "timed out" in done.stderr:
            leave_out(last, release=release)
            return
        sys.exit(f"pip-audit failed: {last}")
    holes = found(done.stdout)
    if holes:
        sys.exit("known vulnerabilities:\n  " + "\n  ".join(holes))
    print("no known vulnerabilities in what is installed")


if __name__ == "__main__":
    main()
