"""`tomolab inspect`: the page in Chromium with the real command, and errors before a server starts."""

import re
import shutil
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
from tomolab import io as tomolab_io

LAYOUT_FAULTS = """() => {
    const root = document.querySelector(".tomolab-inspector"), text = document.createElement("canvas").getContext("2d");
    const faults = [], seen = one => one.checkVisibility() && one.getBoundingClientRect().width;
    const all = query => [...root.querySelectorAll(query)].filter(seen);
    const name = one => `${one.tagName} ${one.title || one.textContent.trim().slice(0, 30) || one.className}`;
    const words = all("button, .widget-label, .widget-readout, .lm-TabBar-tabLabel, th");
    const controls = [...words, ...all("select, input, textarea, .noUi-target")];
    for (const one of words) if (one.scrollWidth > one.clientWidth + 1) faults.push(`cut text: ${name(one)}`);
    for (const one of all("select")) {
        text.font = getComputedStyle(one).font;
        if (text.measureText(one.selectedOptions[0].text).width > one.clientWidth - 20) faults.push(`cut choice: ${name(one)}`);
    }
    const sliders = [...root.querySelectorAll(".noUi-target")].filter(one => one.checkVisibility());
    for (const one of sliders) if (one.clientWidth < 60) faults.push(`short slider: ${name(one.parentElement)}`);
    for (const one of [...controls, ...all("canvas")]) {
        const { left, right } = one.getBoundingClientRect();
        if (left < 0 || right > innerWidth + 1) faults.push(`outside of the window: ${name(one)}`);
        for (let around = one.parentElement; around !== root; around = around.parentElement) {
            const frame = around.getBoundingClientRect(), cuts = getComputedStyle(around).overflowX === "hidden";
            if (cuts && (left < frame.left - 1 || right > frame.right + 1)) faults.push(`cut by what is around: ${name(one)}`);
        }
    }
    controls.forEach((one, i) => controls.slice(i + 1).filter(other => !one.contains(other)).forEach(other => {
        const [a, b] = [one, other].map(each => each.getBoundingClientRect());
        const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (width > 2 && height > 2) faults.push(`${name(one)} lies over ${name(other)}`);
    }));
    return faults;
}"""
"""What is wrong with the layout: texts and choices that are cut, sliders that are too short, controls that cover each other."""


@pytest.fixture
def command(folder: Path) -> Iterator[subprocess.Popen]:
    """`tomolab inspect` of a small run folder with two tomograms, without a browser of its own."""
    names = ["TS_026_aligned", "TS_027_aligned"]
    table = tomolab_io.read_particles(folder / "clusters.csv").assign(tomogram=names * 16)
    tomolab_io.write_particles(table, folder / "clusters.csv")
    (folder / "tomograms").mkdir()
    for name in names:
        shutil.copy(folder / "tomogram.mrc", folder / "tomograms" / f"{name}.mrc")
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
    # In a narrow window, and in one of 1,280 × 900 at a zoom of 150 %.
    for width, height in ((900, 900), (853, 600)):
        page.set_viewport_size({"width": width, "height": height})
        for tab in page.locator(".tomolab-inspector").get_by_role("tab").all():
            tab.click()
            page.wait_for_timeout(300)
            assert page.evaluate(LAYOUT_FAULTS) == [], (width, tab.inner_text())
        photograph(page, f"inspect-command-{width}")
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
