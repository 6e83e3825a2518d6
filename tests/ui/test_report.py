"""The record of a run folder: its counts are those of the folder, hostile names stay text, and the page needs nothing else."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_exports import average_of

from tomolab import inspection, subtomograms
from tomolab import io as tomolab_io
from tomolab.inspection import Selection, run_contents
from tomolab.io.run_folder import Run
from tomolab.subtomograms import Subtomograms
from tomolab.ui import report

HOSTILE = "<script>alert('1')</script> \"a\" & $x^{$ 5%"
HAND = {"verdict": "mirrored", "resolution": 80.5, "mirrored": f"36{HOSTILE}"}


class Page(HTMLParser):
    """What a page consists of: tags, with their attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def pictures(self) -> dict[str, Image.Image]:
        """By what they are said to show."""
        shown = {}
        for tag, attributes in self.tags:
            if tag == "img":
                assert attributes["src"].startswith("data:image/png;base64,")
                shown[attributes["alt"]] = Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2])))
        return shown


@pytest.fixture
def run(folder: Path, boxes: Subtomograms) -> Path:
    """A run folder with picks, clusters of which one is hostile, selections, averages, and a manifest."""
    work = inspection.open(folder, diameter=250)
    work.split(0)
    work.session.describe(1, name=HOSTILE, note=HOSTILE, colour="#123456")
    work.session.select(work.session.ids[:4], "list")
    work.session.new_cluster("few")
    work.session.unassign(2)
    table = work.session.table([1])
    work.add_average(HOSTILE, average_of(table[:12], turn=40.0, seed=3, seconds=2.0))
    work.add_average(
        "from a map", average_of(table[6:], turn=40.0, start={"map": f"ribosome {HOSTILE}", "poses": ""}, hand=HAND)
    )
    Selection("some", boxes.ids[:5], "lasso").save(folder / "selections" / "some.json")
    tomolab_io.write_particles(
        pd.concat([boxes.particles, boxes.particles[:3].assign(particle_id=[900, 901, 902])]),
        folder / "picks.star",
        voxel_size=20.0,
    )
    about = {"diameter": 250.0, "what": HOSTILE, "long": list(range(1000))}
    Run(folder).record("03_subtomograms", parameters=about, files=["picks.star", "tomogram.mrc"], seed=2)
    return folder


def test_the_counts_are_those_of_the_folder(run: Path) -> None:
    path = report.write(run)
    assert path == run / "report.html"
    assert path.stat().st_size < 2_000_000
    page = Page(path.read_text(encoding="utf-8"))
    rows = re.findall(r'<td class="name">([^<]*)</td><td class="number">([\d,]+)</td>', path.read_text(encoding="utf-8"))
    inside = int(inspection.open(run).session.counts().sum())
    expected = {"picked": 35, "cut out": 32, "embedded": 32, "in clusters": inside, "selected": 5, "averaged": 32 - inside}
    session = inspection.open(run).session
    expected["averaged"] = len(session.table([1]))
    assert {name: int(count) for name, count in rows} == expected
    assert inside == 28
    assert "3 have no box, for an unrecorded reason" in page.text
    assert "2 clusters; 4 in none" in page.text
    assert "particles12" in page.text.replace(" ", "")
    assert "halves agree to" in page.text
    assert re.search(r"\d+ \w+ \d{4}, \d\d:\d\d UTC", page.text)
    assert (run / "picks.star").is_file()


def test_names_from_data_stay_text(run: Path) -> None:
    page = Page(report.write(run).read_text(encoding="utf-8"))
    assert page.text.count(HOSTILE) >= 5
    kinds = {tag for tag, _ in page.tags}
    assert kinds <= {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "header",
            "h1",
            "h2",
            "h3",
            "div",
            "p",
            "table",
            "tr",
            "th",
            "td",
            "img",
        ),
        *("figure", "figcaption", "span", "b", "br", "dl", "dt", "dd", "ol", "li", "small", "code", "footer"),
    }
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("href", "srcset")]
    assert "elsewhere" not in "".join(attributes.get("style") or "" for _, attributes in page.tags)
    policy = next(attributes["content"] for _, attributes in page.tags if attributes.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_pictures_show_something(run: Path) -> None:
    pictures = Page(report.write(run).read_text(encoding="utf-8")).pictures
    for about in (
        "slice of the tomogram with its particles",
        "map of the particles",
        f"boxes of {HOSTILE}",
        f"slices of {HOSTILE}",
    ):
        assert np.asarray(pictures[about].convert("L")).std() > 5, about
    # In the colour of the cluster, and not in that which is no colour.
    colours = np.asarray(pictures["map of the particles"].convert("RGB")).reshape(-1, 3)
    assert (np.abs(colours.astype(int) - [0x12, 0x34, 0x56]).max(axis=1) < 60).sum() > 50


def test_an_average_from_a_map_says_so(run: Path) -> None:
    page = Page(report.write(run).read_text(encoding="utf-8"))
    assert f"template-based: started from map: ribosome {HOSTILE}" in page.text
    assert page.text.count("template-based") == 1
    assert f"mirrored (FSC 0.5 with a known map: 80.5 Å, with its mirror image: 36{HOSTILE} Å)" in page.text
    assert run_contents.average_hand({"hand": "left"}) == run_contents.average_hand({}) == ""
    assert run_contents.average_start({"parameters": {"given": True}}) == "the angles of the particle table"
    assert (
        run_contents.average_start({"program": "RELION", "parameters": {"reference": "ab12"}})
        == "a map that was given to RELION"
    )
    assert run_contents.average_start({"start": True}) == "a given start"
    for none in (
        {},
        {"start": None},
        {"start": "random"},
        {"start": {"map": None}},
        {"parameters": {"given": False, "reference": None}},
    ):
        assert run_contents.average_start(none) == ""


def test_files_that_have_changed_are_named(run: Path) -> None:
    assert "changed since, or gone" not in report.write(run).read_text(encoding="utf-8")
    with (run / "picks.star").open("a") as file:
        file.write("# touched\n")
    page = Page(report.write(run).read_text(encoding="utf-8"))
    assert re.search(r"picks\.star[0-9a-f]{16}… changed since, or gone", page.text)
    assert page.text.count("changed since") == 1
    assert "Files were not compared." in report.write(run, verify=False).read_text(encoding="utf-8")


def test_any_stage_is_shown_and_nothing_is_invented(tmp_path: Path, boxes: Subtomograms) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        report.write(tmp_path / "none")
    page = Page(report.write(tmp_path).read_text(encoding="utf-8"))
    assert "holds no particles yet" in page.text
    assert not page.pictures
    tomolab_io.write_particles(boxes.particles, tmp_path / "picks.star", voxel_size=20.0)
    assert [step.title for step in run_contents.read(tmp_path).steps] == ["picked"]
    boxes.save(tmp_path / "subtomograms.zarr")
    text = report.write(tmp_path).read_text(encoding="utf-8")
    assert [step.title for step in run_contents.read(tmp_path).steps] == ["picked", "cut out"]
    assert "Clusters" not in text
    assert "Averages" not in text
    (tmp_path / "embedding").write_bytes(b"broken")
    assert '<p class="fault">' in report.write(tmp_path).read_text(encoding="utf-8")


def test_a_session_of_other_clusters_is_told_and_left_where_it_is(run: Path) -> None:
    table = tomolab_io.read_particles(run / "clusters.csv")
    tomolab_io.write_particles(table[:-1].assign(cluster=4), run / "clusters.csv")
    before = (run / "session.npz").read_bytes()
    page = Page(report.write(run).read_text(encoding="utf-8"))
    assert "cannot be read as a session of these 31 particles" in page.text
    assert "cluster 4" in page.text
    assert (run / "session.npz").read_bytes() == before


def test_reasons_for_which_particles_were_skipped_are_kept(folder: Path, tmp_path: Path, boxes: Subtomograms) -> None:
    volume = tomolab_io.read_volume(folder / "tomogram.mrc")
    for path in (None, tmp_path / "subtomograms.zarr"):
        with pytest.warns(UserWarning, match="particles skipped"):
            cut = subtomograms.extract(volume, boxes.particles, box=20, path=path)
        if path is None:
            cut.save(tmp_path / "subtomograms.zarr")
        again = subtomograms.open(tmp_path / "subtomograms.zarr")
        pd.testing.assert_frame_equal(again.skipped, cut.skipped)
        assert len(again) + len(again.skipped) == 32
        text = report.write(tmp_path).read_text(encoding="utf-8")
        assert f"{len(cut.skipped)} skipped: the box leaves the tomogram ({len(cut.skipped)})" in text


@pytest.mark.browser
def test_chromium_shows_all_of_it_and_asks_for_nothing(run: Path) -> None:
    from test_jupyterlab import opened

    path = report.write(run)
    with opened() as chromium:
        page = chromium.new_page(viewport={"width": 1120, "height": 800})
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(path.as_uri())
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert said == []
        widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(widths) >= 6
        assert min(widths) > 50
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.set_viewport_size({"width": 420, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_surroundings_of_clusters_and_their_counts_in_each_tomogram_are_told(run: Path, boxes: Subtomograms) -> None:
    table = tomolab_io.read_particles(run / "clusters.csv")
    table["tomogram"] = ["cell", "other"] * 16
    tomolab_io.write_particles(table, run / "clusters.csv")
    (run / "tomograms").mkdir()
    (run / "tomogram.mrc").rename(run / "tomograms" / "cell.mrc")
    inspection.write_mask(
        run, "membrane", lambda volume: np.arange(volume.shape[1])[None, :, None] * np.ones(volume.shape) < 30
    )
    found = run_contents.read(run)
    page = Page(report.page(found))
    assert found.session is not None
    inside = found.session.table([0])
    assert f"median depth {inside['depth'].median():,.0f} Å" in page.text
    share = 100 * inside["in_membrane"].dropna().astype(bool).mean()
    assert f"{share:.0f} % in membrane" in page.text
    counts = inside["tomogram"].value_counts()
    assert re.search(rf"cluster 0\s*{counts['cell']}\s*{counts['other']}\s*{len(inside)}", page.text)


def test_a_deleted_average_is_left_out(run: Path) -> None:
    work = inspection.open(run)
    work.delete_average("from a map")
    assert list(run_contents.read(run).averages) == [HOSTILE]
    work.session.undo()
    assert list(run_contents.read(run).averages) == [HOSTILE, "from a map"]
