"""Lists known vulnerabilities of the installed packages from the database osv.dev; skipped if it cannot be reached.

scripts/audit.py
"""

import json
import subprocess
import sys

import requests

SERVICE = "https://api.osv.dev"
PATIENCE = 3.0
"""Seconds to wait for the service, before the audit is skipped."""
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


def main() -> None:
    reason = unreachable()
    if reason:
        print(f"audit skipped: {reason}")
        return
    words = ["--vulnerability-service=osv", "--format=json", "--progress-spinner=off", "--skip-editable", "--timeout=5"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *words], capture_output=True, text=True, check=False, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        print(f"audit skipped: {SERVICE} took more than {LONGEST:g} s")
        return
    if not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        if "onnect" in done.stderr or "timed out" in done.stderr:
            print(f"audit skipped: {last}")
            return
        sys.exit(f"pip-audit failed: {last}")
    holes = found(done.stdout)
    if holes:
        sys.exit("known vulnerabilities:\n  " + "\n  ".join(holes))
    print("no known vulnerabilities in what is installed")


if __name__ == "__main__":
    main()
