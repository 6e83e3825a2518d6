"""`tomolab inspect`: the page in Chromium with the real command, and errors before a server starts."""

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from test_jupyterlab import drag, is_drawn, opened, photograph

from tomolab import __main__, inspection


@pytest.fixture
def command(folder: Path) -> Iterator[subprocess.Popen]:
    """`tomolab inspect` of a small run folder, without a browser of its own."""
    words = [sys.executable, "-m", "tomolab", "inspect", str(folder), "--no-browser"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened() as browser:
        yield browser


def lines_until(process: subprocess.Popen, end: str) -> str:
    found = ""
    while end not in found and (line := process.stdout.readline()):
        found += line
    return found


def status(address: str, **headers: str) -> int:
    """Answer of the server, with the one to which it sends on."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20) as answer:
            return 401 if "/login" in answer.url else answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.browser
def test_a_run_folder_is_inspected_on_a_page_that_needs_its_token(command, browser: Browser, folder: Path) -> None:
    said = lines_until(command, "Ctrl-C")
    url = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=\S+", said)
    server = f"http://127.0.0.1:{url[1]}"
    assert f"ssh -N -L {url[1]}:127.0.0.1:{url[1]} " in said
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark")
    page, elsewhere = context.new_page(), []
    page.on("request", lambda one: elsewhere.append(one.url) if one.url.startswith("http") and server not in one.url else None)
    page.goto(url[0], timeout=120_000)
    table, status_line = page.locator(".tomolab-clusters"), page.locator(".tomolab-said")
    table.wait_for(timeout=120_000)
    shown = page.locator(".tomolab-inspector canvas").first
    assert is_drawn(shown)
    assert is_drawn(page.locator(".tomolab-slice canvas"))
    page.wait_for_timeout(1500)
    drag(page, shown, [(0.02, 0.02), (0.49, 0.02), (0.49, 0.98), (0.02, 0.98)])
    status_line.filter(has_text=re.compile(r"^\s*16 of 32 particles selected")).wait_for(timeout=20_000)
    page.get_by_role("button", name="New cluster").click()
    status_line.filter(has_text="new cluster of 16 particles").wait_for(timeout=20_000)
    # What a job sends while it runs reaches the page.
    table.locator("input.tick").last.check()
    page.get_by_role("tab", name="Averages").click()
    page.get_by_role("button", name="Quick look", disabled=False).click()
    page.get_by_text(re.compile(r"^16 particles, halves agree to \d+ Å")).first.wait_for(timeout=120_000)
    table.locator("img").first.wait_for(timeout=20_000)
    # It has the whole window, and nothing else.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator(".tomolab-inspector").bounding_box()["width"] > 1230
    assert page.locator(".tomolab-picture:visible").count() == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 17, 17)"
    photograph(page, "inspect-command")
    assert elsewhere == []
    # Without the token there is no page and no kernel, nor for another site by this address.
    kernel = page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').text).kernelId")
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAA"}
    assert status(f"{server}/") == 401
    assert status(f"{server}/?token=guess") == 401
    assert status(f"{server}/api/kernels/{kernel}") == 403
    assert status(f"{server}/api/kernels/{kernel}/channels", **upgrade) == 403
    assert status(f"{server}/voila/files/inspector.ipynb") == 403
    assert status(url[0], Host="elsewhere.example") == 403
    command.send_signal(signal.SIGINT)
    command.send_signal(signal.SIGINT)
    assert command.stdout.read() == "\nThe inspector has ended; every step is saved in the run folder.\n"
    assert command.wait(timeout=20) == 0
    page.get_by_role("alert").filter(has_text="has ended").wait_for(timeout=20_000)
    context.close()
    assert inspection.open(folder).session.counts().tolist() == [16, 16]


@pytest.mark.browser
def test_files_that_contradict_each_other_are_told_on_the_page(command, browser: Browser, folder: Path) -> None:
    (folder / "layout.csv").write_text("particle_id,x\n1,2\n")
    url = re.search(r"http://\S+", lines_until(command, "Ctrl-C"))
    page = browser.new_page()
    page.goto(url[0], timeout=120_000)
    page.get_by_role("alert").filter(has_text="cannot be inspected: ").wait_for(timeout=60_000)
    command.send_signal(signal.SIGTERM)
    assert command.wait(timeout=20) == 0


def refused(capsys: pytest.CaptureFixture, *words: str) -> str:
    assert __main__.main(["inspect", "--no-browser", *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    return said.err


def test_what_is_no_run_folder_is_told_before_a_server_starts(tmp_path: Path, capsys) -> None:
    assert f"there is no folder {tmp_path / 'none'}" in refused(capsys, str(tmp_path / "none"))
    assert "is no run folder that can be inspected: it has no clusters.csv" in refused(capsys, str(tmp_path))


def test_a_port_that_is_taken_is_told(folder: Path, capsys) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"port {port} is taken" in refused(capsys, str(folder), "--port", str(port))
    assert "port 70000 cannot be used" in refused(capsys, str(folder), "--port", "70000")
