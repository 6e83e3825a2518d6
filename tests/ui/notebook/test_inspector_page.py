"""The inspector as a person meets it in JupyterLab, in Chromium: colours, keys, counts, and what is written."""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import write_run
from matplotlib.colors import to_rgb
from PIL import Image
from playwright.sync_api import Browser, Locator, Page
from test_jupyterlab import drag, is_drawn, opened, photograph, run_all, serving, write_notebook

from tomolab.ui import style

pytestmark = pytest.mark.browser

LEFT, RIGHT = ([(a, 0.02), (b, 0.02), (b, 0.98), (a, 0.98)] for a, b in ((0.02, 0.49), (0.51, 0.98)))
QUICKLY = "for name in ['score', 'cluster'] * 5:\n    view.colour.value = name"
"""Changes that reach the page faster than it draws them."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened() as browser:
        yield browser


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "notebooks"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def server(notebooks: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(notebooks, tmp_path_factory.mktemp("jupyter")) as address:
        yield address


@pytest.fixture
def shown(browser: Browser, server: str, notebooks: Path, boxes, request) -> Iterator["Shown"]:
    """The inspector of a fresh run folder, in a window of 1,280 × 900."""
    name = request.node.name
    run = write_run(notebooks.parent / "runs" / name, boxes)
    setup = getattr(request, "param", "")
    cells = [f"from tomolab.ui import notebook\nview = notebook.open_inspector({str(run)!r})\n{setup}\nview", QUICKLY]
    write_notebook(notebooks / f"{name}.ipynb", cells)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    try:
        state = run_all(page, server.format(f"{name}.ipynb"), seconds=200)
        assert state["errors"] == []
        page.keyboard.press("Control+b")
        view = Shown(page, run)
        view.table.wait_for(timeout=60_000)
        assert is_drawn(view.map)
        page.wait_for_timeout(1500)
        yield view
        photograph(page, name)
    finally:
        context.close()


class Shown:
    """A page with an inspector."""

    def __init__(self, page: Page, run: Path) -> None:
        self.page, self.run = page, run
        self.map, self.slice = page.locator(".tomolab-inspector canvas").first, page.locator(".tomolab-slice canvas")
        self.table, self.said = page.locator(".tomolab-clusters"), page.locator(".tomolab-said")

    def expect(self, text: str) -> None:
        """Wait until the status line matches."""
        self.said.filter(has_text=re.compile(text)).wait_for(timeout=20_000)

    def click(self, name: str) -> None:
        self.page.get_by_role("button", name=re.compile(rf"{name}\s*$"), disabled=False).click()

    def tick(self, *rows: int) -> None:
        for row in rows:
            self.table.locator("input.tick").nth(row).check()

    def colours(self, canvas: Locator | None = None) -> set[str]:
        """Those colours of the clusters that the map or another canvas shows."""
        pixels = np.asarray(Image.open(io.BytesIO((canvas or self.map).screenshot())).convert("RGB"), dtype=float)
        palette = {ink: 255 * np.array(to_rgb(ink)) for ink in style.OKABE_ITO}
        near = {ink: (np.abs(pixels - wanted).max(axis=2) < 12).sum() for ink, wanted in palette.items()}
        return {ink for ink, count in near.items() if count > 20}

    def until_colours(self, question: Callable[[set[str]], bool], *, seconds: float = 10) -> None:
        for _ in range(int(4 * seconds)):
            if question(self.colours()):
                return
            self.page.wait_for_timeout(250)
        raise AssertionError(f"the map shows {self.colours()}")


BURST = """(list, values) => {
    for (const value of values) { list.value = value; list.dispatchEvent(new Event("change", {bubbles: true})); }
}"""


def test_colours_of_the_map_are_those_of_the_session_after_quick_changes(shown: Shown) -> None:
    page, first, both = shown.page, {style.OKABE_ITO[0]}, set(style.OKABE_ITO[:2])
    axes, colour = page.get_by_label("axes"), page.get_by_label("colour by")
    assert shown.colours() == first
    # Selected particles keep their colour; the others are pale.
    drag(page, shown.map, LEFT)
    page.wait_for_timeout(1000)
    assert first <= shown.colours()
    shown.click("Clear")
    shown.tick(0)
    shown.click("Split")
    page.wait_for_timeout(2500)
    assert shown.colours() == both
    before = shown.map.screenshot()
    # In each pair the second change comes while the first is drawn.
    shown.click("Undo")
    shown.click("Redo")
    page.wait_for_timeout(1500)
    assert shown.map.screenshot() == before
    colour.evaluate(BURST, ["score", "cluster", "label", "score", "cluster"])
    page.wait_for_timeout(1500)
    assert shown.map.screenshot() == before
    # As on a slow machine or in a window that is not seen: a frame takes long.
    page.evaluate("window.requestAnimationFrame = draw => setTimeout(() => draw(performance.now()), 300)")
    page.locator(".jp-CodeCell .cm-content").last.click()
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(4000)
    assert shown.map.screenshot() == before
    shown.click("Undo")
    page.wait_for_timeout(1500)
    assert shown.colours() == first
    # Particles that have moved have the colours of now, and stay where the mouse finds them.
    axes.select_option("PC 1, 2")
    shown.click("Redo")
    page.wait_for_timeout(1500)
    assert shown.colours() == both
    axes.evaluate(BURST, ["PC 2, 3", "map"])
    colour.evaluate(BURST, ["score", "cluster"])
    page.wait_for_timeout(1500)
    assert shown.map.screenshot() == before
    drag(page, shown.map, LEFT)
    shown.expect("^\\s*16 of 32 particles selected")


def test_keys_act_only_where_the_inspector_has_the_focus(shown: Shown) -> None:
    page = shown.page
    drag(page, shown.map, LEFT)
    shown.expect("^\\s*16 of 32 particles selected")
    page.locator(".jp-CodeCell .cm-content").last.click()
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    page.wait_for_timeout(1000)
    shown.expect("^\\s*16 of 32 particles selected")
    assert shown.table.locator("input.tick").count() == 1
    # In the inspector the same key does it.
    shown.table.locator("input.tick").first.focus()
    page.keyboard.press("Escape")
    shown.expect("^\\s*0 of 32 particles selected")


def test_the_keyboard_alone_draws_a_box_in_the_map_and_adds_and_removes(shown: Shown) -> None:
    page = shown.page

    def press(**keys: int) -> None:
        for key, times in keys.items():
            for _ in range(times):
                page.keyboard.press(key.replace("_", "+"))

    # Also where the mouse would move the map.
    page.locator(".tomolab-map button").first.click()
    shown.map.focus()
    press(ArrowUp=40, Shift_ArrowLeft=40, Shift_ArrowDown=60)
    photograph(page, "keyboard-box")
    page.keyboard.press("Enter")
    shown.expect(r"^\s*16 of 32 particles selected.*lasso in the map, replace")
    press(ArrowRight=80, Shift_ArrowLeft=20, Shift_ArrowUp=60)
    page.keyboard.press("Shift+Enter")
    shown.expect(r"^\s*32 of 32 particles selected.*add")
    press(ArrowRight=80, Shift_ArrowLeft=20, Shift_ArrowDown=60)
    page.keyboard.press("Control+Enter")
    shown.expect(r"^\s*16 of 32 particles selected")
    # In the circle, where there is no particle.
    press(ArrowUp=30)
    page.keyboard.press("Space")
    shown.expect(r"^\s*0 of 32 particles selected")


def test_what_is_exported_is_said_and_no_file_is_replaced_unasked(shown: Shown) -> None:
    page, write = shown.page, shown.page.get_by_role("button", name="Write")
    drag(page, shown.map, LEFT)
    shown.expect("^\\s*16 of 32 particles selected")
    page.get_by_role("tab", name="Export", exact=True).click()
    page.get_by_text("of the 16 selected").last.wait_for()
    write.click()
    page.get_by_text("16 particles are in chosen.star").wait_for()
    first = (shown.run / "chosen.star").read_bytes()
    # Hidden particles are on no view and in no list.
    shown.table.locator("input.shown").first.uncheck()
    shown.expect("^\\s*0 of 0 particles selected, 32 hidden")
    page.wait_for_timeout(1500)
    assert shown.colours() == set()
    shown.table.locator("input.shown").first.check()
    shown.expect("^\\s*16 of 32 particles selected")
    shown.click("Clear")
    page.get_by_text("all 32", exact=True).wait_for()
    write.click()
    shown.expect("chosen.star is there already")
    assert (shown.run / "chosen.star").read_bytes() == first
    page.get_by_label("replace a file of this name").check()
    write.click()
    page.get_by_text("32 particles are in chosen.star").wait_for()
    shown.expect("^\\s*0 of 32 particles selected")


def test_many_jobs_keep_their_names_and_buttons_and_failed_ones_are_red_and_removed(shown: Shown) -> None:
    page = shown.page
    page.get_by_role("tab", name="Averages").click()
    shown.tick(0)
    page.get_by_label("classes").fill("9")
    page.keyboard.press("Tab")
    for count in range(1, 7):
        shown.click("Average")
        page.get_by_text("failed: a classification needs").nth(count - 1).wait_for()
    removes = page.get_by_role("button", name="Remove")
    named = page.locator(".tomolab-inspector").get_by_text(re.compile(r"^cluster 0( \(\d\))?$")).filter(visible=True)
    for one in [*removes.all(), *named.all()]:
        frame = one.bounding_box()
        assert frame is not None
        assert frame["height"] > 12
        assert frame["width"] > 30
    assert removes.count() == 6
    said = page.get_by_text("failed: a classification needs 2 classes or more with 8 particles each").first
    red, green, blue = map(int, re.findall(r"\d+", said.evaluate("element => getComputedStyle(element).color"))[:3])
    assert red > 1.5 * max(green, blue)
    photograph(page, "six-jobs")
    for left in range(5, -1, -1):
        removes.first.click()
        page.wait_for_function(f"document.querySelectorAll('.tomolab-inspector .widget-hprogress').length === {left}")


def test_a_notebook_that_is_opened_without_its_kernel_shows_a_picture(shown: Shown) -> None:
    page, picture = shown.page, shown.page.locator(".tomolab-picture")
    assert picture.count() == 1
    assert not picture.is_visible()
    page.keyboard.press("Control+s")
    page.wait_for_timeout(2000)
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Shut Down Kernel", exact=True).click()
    page.wait_for_timeout(2000)
    page.goto(page.url.split("?")[0], timeout=90_000)
    picture.wait_for(timeout=90_000)
    assert "Run the cell to open it" in picture.inner_text()
    assert "cluster 0: 32" in picture.inner_text()
    assert picture.locator("img").evaluate("image => image.naturalWidth") > 300
    page.wait_for_timeout(5000)
    assert not page.get_by_text("model not found").is_visible()


def test_ctrl_takes_away_from_a_selection_as_alt_does(shown: Shown) -> None:
    page = shown.page
    drag(page, shown.map, LEFT)
    shown.expect("^\\s*16 of 32 particles selected")
    drag(page, shown.map, RIGHT, key="Shift")
    shown.expect("^\\s*32 of 32 particles selected")
    drag(page, shown.map, LEFT, key="Control")
    shown.expect("^\\s*16 of 32 particles selected")
    drag(page, shown.map, RIGHT, key="Alt")
    shown.expect("^\\s*0 of 32 particles selected")
    drag(page, shown.slice, LEFT)
    shown.expect("lasso in the tomogram, replace")
    drag(page, shown.slice, LEFT, key="Control")
    shown.expect("^\\s*0 of 32 particles selected.*remove")


AVERAGED = """table = view.session.table([0])
from tomolab.averaging import Average
import numpy as np, pandas as pd
from tomolab.volumes import Volume
z, y, x = np.indices((20, 20, 20)) - 10
ball = Volume(np.exp(-(z**2 + y**2 + x**2) / 18).astype("float32"), 20.0)
view.inspection.add_average("ball", Average(ball, ball, ball, pd.DataFrame({"resolution": [40.0], "fsc": [1.0]}), table, {}))"""


@pytest.mark.parametrize("shown", [AVERAGED], indirect=True)
def test_histogram_click_in_the_map_keys_and_the_view_in_3d(shown: Shown) -> None:
    page = shown.page
    # A range drawn in the histogram is the range of the session.
    page.get_by_role("tab", name="Filters").click()
    page.get_by_label("column").select_option("score")
    plot = page.locator(".tomolab-filter canvas")
    drag_along(page, plot, 0.25, 0.55)
    shown.expect(r"^\s*0 of \d+ particles selected, 2[0-4] hidden · show score from 7\.\d+ to 1[67]")
    # After a click in the map the keys are those of the inspector, though JupyterLab gives the focus to the cell.
    shown.map.click(position={"x": 250, "y": 20})
    page.wait_for_timeout(500)
    page.keyboard.press("Shift+O")
    shown.expect(r"^\s*0 of 32 particles selected · show all")
    page.keyboard.press("Control+a")
    shown.expect(r"^\s*32 of 32 particles selected · select 32 particles \(all that are shown")
    page.get_by_label("particle", exact=True).fill("4")
    page.keyboard.press("Enter")
    shown.expect(r"^\s*1 of 32 particles selected · select 1 particle \(id")
    page.locator(".tomolab-particle b").get_by_text("4", exact=True).wait_for()
    # The surface is drawn by the browser, and follows the slider without the kernel.
    page.get_by_role("tab", name="3-D").click()
    surface = page.locator(".tomolab-surface canvas").first
    surface.wait_for(timeout=60_000)
    assert is_drawn(surface)
    photograph(page, "in-3d")
    page.get_by_role("tab", name="Positions").click()
    balls = page.locator(".tomolab-positions canvas").first
    assert is_drawn(balls)
    page.get_by_text("1 of 32 particles selected here").wait_for()
    before = balls.screenshot()
    page.get_by_label("colour by").select_option("score")
    page.wait_for_timeout(1500)
    photograph(page, "positions")
    assert balls.screenshot() != before


def drag_along(page: Page, canvas: Locator, first: float, last: float) -> None:
    canvas.scroll_into_view_if_needed()
    frame = canvas.bounding_box()
    assert frame is not None
    height = frame["y"] + 0.5 * frame["height"]
    page.mouse.move(frame["x"] + first * frame["width"], height)
    page.mouse.down()
    page.mouse.move(frame["x"] + last * frame["width"], height, steps=6)
    page.mouse.up()
