"""Licences are judged by their words, and vulnerabilities by a report; neither needs the internet."""

import importlib.util
import json
import re
import subprocess
from email.message import Message
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import requests

ROOT = Path(__file__).resolve().parents[1]


def script(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


licences, audit = script("licences"), script("audit")


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        ("MIT", True),
        ("BSD-3-Clause AND Zlib", True),
        ("GPL-3.0-only OR MIT", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("(MIT OR Apache-2.0)", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-2.0-only", False),
        ("LGPL-3.0-only", False),
        ("Proprietary", False),
        ("", False),
    ],
)
def test_a_licence_fits_or_not(text: str, fit: bool) -> None:
    assert licences.fits(text) is fit


def test_what_a_package_says_is_read_in_any_of_three_ways() -> None:
    def about(**fields: str) -> Message:
        message = Message()
        for name, value in fields.items():
            message[name.replace("_", "-")] = value
        return message

    assert licences.licence(about(License_Expression="MIT OR Apache-2.0", License="other")) == "MIT OR Apache-2.0"
    assert licences.licence(about(Classifier="License :: OSI Approved :: MIT License")) == "MIT"
    assert licences.licence(about(License="BSD-3-Clause\nCopyright")) == "BSD-3-Clause"
    assert licences.licence(about()) == ""


def test_the_list_holds_what_is_installed_and_grows_with_what_that_needs() -> None:
    found, wrong = licences.listed(["pandas"])
    assert {"pandas", "numpy", "python-dateutil"} <= set(found)
    assert wrong == []
    known, pins = (ROOT / "docs" / "licences.md").read_text(), (ROOT / "constraints.txt").read_text().splitlines()
    # Of other versions, as the oldest are, a package may say it in other words.
    listed = {name: said for name, said in found.items() if f"{name}=={version(name)}" in pins}
    assert all(f"| {name} | {said} |" in known for name, said in listed.items())
    assert licences.listed(["not-a-package-of-anybody"]) == ({}, [])


def test_what_was_reviewed_has_a_reason() -> None:
    assert all(said and reason for said, reason in licences.REVIEWED.values())


def test_an_unknown_licence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licences, "PERMISSIVE", {"MIT"})
    assert any(one.startswith("pandas: BSD") for one in licences.listed(["pandas"])[1])


REPORT = {
    "dependencies": [
        {"name": "a", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": ["CVE-2026-1"]}]},
        {"name": "b", "version": "2.0", "vulns": []},
        {"name": "tomolab", "skip_reason": "editable"},
    ]
}


def test_vulnerabilities_are_named_and_known_ones_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    assert audit.found(json.dumps(REPORT)) == ["a 1.0: PYSEC-1 (mended in 1.1)"]
    monkeypatch.setattr(audit, "IGNORED", {"CVE-2026-1": "2026-11-27: we do not call it"})
    assert audit.found(json.dumps(REPORT)) == []


def late(*_: object, **__: object) -> object:
    raise subprocess.TimeoutExpired("pip-audit", 120)


def unconnected(*_: object, **__: object) -> object:
    return type("Done", (), {"stdout": "", "stderr": "error\nConnection refused", "returncode": 1})


@pytest.mark.parametrize(
    ("run", "said"),
    [(None, r"http://127.0.0.1:9 cannot be reached \(ConnectionError\)"), (late, "took more than"), (unconnected, "refused")],
)
def test_without_the_service_nothing_is_audited_and_a_release_fails(monkeypatch, capsys, run: object, said: str) -> None:
    if run is None:
        monkeypatch.setattr(audit, "SERVICE", "http://127.0.0.1:9")
    else:
        monkeypatch.setattr(audit, "unreachable", lambda: "")
        monkeypatch.setattr(audit.subprocess, "run", run)
    audit.main([])
    (last,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(f"NOT AUDITED for known vulnerabilities: .*{said}.* make release-check fails without the audit", last)
    with pytest.raises(SystemExit, match=f"^NOT AUDITED .*{said}.*; a release needs the audit"):
        audit.main(["--release"])


def test_the_audit_is_the_last_check() -> None:
    for target, command in (("check", "scripts/audit.py"), ("release-check", "scripts/audit.py --release")):
        # Make that runs in make would end with the name of its folder.
        asked = ["make", "--dry-run", "--no-print-directory", target]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip().splitlines()[-1].strip().endswith(command)


def test_the_audit_fails_with_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> object:
        return type("Done", (), {"stdout": json.dumps(REPORT), "stderr": "Found 1 known vulnerability", "returncode": 1})

    monkeypatch.setattr(audit, "unreachable", lambda: "")
    monkeypatch.setattr(audit.subprocess, "run", run)
    with pytest.raises(SystemExit, match="PYSEC-1"):
        audit.main([])


def test_a_proxy_that_lets_nobody_through_is_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = requests.Response()
    answer.status_code = 403
    monkeypatch.setattr(audit.requests, "get", lambda *_, **__: answer)
    assert "answers 403" in audit.unreachable()
    answer.status_code = 404
    assert audit.unreachable() == ""
