"""What a person looks for in the inspector: filters, counts, similar particles, one by its id, and the looks of views."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from conftest import divide_run
from ipywidgets import HTML, HTMLMath
from test_exports import average_of
from test_inspector import circles, draw, picture, said, tell

from tomolab import inspection, io, jobs
from tomolab.inspection import Inspection, Session
from tomolab.subtomograms import Subtomograms
from tomolab.ui import style, view_figure
from tomolab.ui.notebook import inspector
from tomolab.ui.notebook.inspector import Inspector

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")


@pytest.fixture
def view(folder: Path) -> Inspector:
    """The run folder with particles in two tomograms, in clusters of their kinds, and with a mask."""
    divide_run(folder)
    inspection.write_mask(folder, "membrane", lambda volume: np.arange(80) < 30 * np.ones(volume.shape))
    return inspector.open(folder)


def ids(view: Inspector, rows: Any) -> list[int]:
    return view.session.ids[rows].tolist()


def test_a_histogram_is_brushed_and_values_are_ticked(view: Inspector) -> None:
    filters, session = view.filters, view.session
    assert {"tomogram", "label", "score", "depth", "in_membrane", "map_density"} <= set(filters.column.options)
    filters.column.value = "score"
    plot = filters.plot
    assert (plot.kind, plot.low, plot.high, sum(plot.counts), sum(plot.shown)) == ("range", 0.0, 31.0, 32, 32)
    tell(plot, range=[3.5, 9.5])
    assert np.flatnonzero(session.visible).tolist() == [4, 5, 6, 7, 8, 9]
    assert (sum(plot.counts), sum(plot.shown), plot.range) == (32, 6, [3.5, 9.5])
    assert filters.range.value == (3.5, 9.5)
    assert "score from 3.5 to 9.5" in filters.text.value
    filters.column.value = "tomogram"
    assert [(row["value"], row["count"], row["shown"], row["on"]) for row in plot.rows] == [
        ("cell", 16, 3, True),
        ("other", 16, 3, True),
    ]
    tell(plot, values=["other"])
    assert np.flatnonzero(session.visible).tolist() == [5, 7, 9]
    tell(plot, values=[])
    assert "tomogram holds none of []" in said(view)
    assert [row["on"] for row in plot.rows] == [False, True]
    filters.all.click()
    assert list(session.filters) == ["score"]
    filters.column.value = "cluster"
    assert [row["title"] for row in plot.rows] == ["cluster 0", "cluster 1"]
    tell(plot, values=["1"])
    assert [one.hidden for one in session.clusters.values()] == [True, False]
    tell(plot, values=[])
    assert "one cluster at least must be shown" in said(view)
    # One step shows everything again, and another brings all of it back.
    view.buttons["all"].click()
    assert session.visible.all()
    assert view.buttons["all"].disabled
    tell(view.keyboard, key="U")
    assert (list(session.filters), session.clusters[0].hidden) == (["score"], True)


def test_clusters_are_counted_by_tomogram_and_measured_by_depth(view: Inspector, folder: Path) -> None:
    counts, table = view.counts, view.session.particles
    expected = pd.crosstab(view.session.labels.to_numpy(), table["tomogram"].to_numpy())
    assert counts.found[["cell", "other"]].to_numpy().tolist() == expected.to_numpy().tolist()
    assert counts.found["all"].tolist() == [16, 16]
    # It is not drawn where nobody sees it.
    assert counts.table.value == ""
    view.tabs.selected_index = view.tabs.children.index(counts)
    assert "TS" not in counts.table.value
    assert f">{expected.loc[0, 'other']}<" in counts.table.value
    counts.button.click()
    written = pd.read_csv(folder / "clusters_by_tomogram.csv", index_col=0)
    assert written.index.tolist() == ["cluster 0", "cluster 1"]
    assert written["cell"].tolist() == expected["cell"].tolist()
    counts.column.value = "depth"
    inside = (view.session.labels == 1).to_numpy()
    assert counts.found.loc[1, "median"] == pytest.approx(table["depth"][inside].median())
    view.session.filter_values("tomogram", ["other"])
    # Only the first tomogram has an image, and so a depth.
    assert counts.found["median"].isna().all()


def test_similar_particles_are_those_nearest_in_features(view: Inspector, boxes: Subtomograms) -> None:
    session, work = view.session, view.inspection
    tell(view.keyboard, key="F")
    assert "select a particle first" in said(view)
    draw(view, [3])
    view.n_similar.value = 15
    tell(view.keyboard, key="F")
    kind = boxes.particles["label"].to_numpy()
    assert np.flatnonzero(session.selected).tolist() == np.flatnonzero(kind == kind[3]).tolist()
    assert session.history.past[-1].what == "select 16 particles (similar to 1 particle, replace)"
    # By hand: angles between vectors.
    vectors = work.features.take(session.ids).vectors.astype(float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = np.argsort(-(vectors @ vectors[3]))[1:6]
    assert work.similar(ids(view, [3]), 5).tolist() == ids(view, nearest)
    session.filter("score", high=20.0)
    assert set(work.similar(ids(view, [3]), 100)) == set(session.ids[session.visible]) - set(ids(view, [3]))
    with pytest.raises(ValueError, match="1 of 1 particles are unknown"):
        work.similar([-5], 3)


def test_a_particle_is_found_by_its_id_and_a_click_in_the_map_goes_to_it(view: Inspector) -> None:
    session, section, card = view.session, view.section, view.card
    row = int(np.flatnonzero(session.particles["tomogram"] == "cell")[2])
    z = session.particles["z"].iloc[row]
    card.id.value = str(session.ids[row])
    assert np.flatnonzero(session.selected).tolist() == [row]
    assert section.at.value == pytest.approx(z, abs=10)
    assert f"<b>{session.ids[row]}</b>" in card.text.value
    assert session.title(int(session.labels.iloc[row])) in card.text.value
    assert "distance_to_membrane" in card.text.value
    assert picture(card.image.value).std() > 1
    card.id.value = "99999"
    assert "there is no particle &#x27;99999&#x27;" in said(view)
    other = int(np.flatnonzero(session.particles["tomogram"] == "cell")[5])
    draw(view, [other])
    assert section.at.value == pytest.approx(session.particles["z"].iloc[other], abs=10)
    # The mouse over the map and over the slice shows a particle, and selects nothing.
    view.lasso.widget.hovering = row
    assert f"<b>{session.ids[row]}</b>" in card.text.value
    at = int(np.flatnonzero(section.rows == other)[0])
    tell(section.slice, type="hover", index=at)
    assert f"<b>{session.ids[other]}</b>" in card.text.value
    tell(section.slice, type="hover", index=999)
    assert np.flatnonzero(session.selected).tolist() == [other]


def test_all_that_is_shown_is_selected_and_only_ticked_clusters_are_shown(view: Inspector) -> None:
    session = view.session
    session.filter("score", high=9.0)
    tell(view.keyboard, key="Ctrl+A")
    assert np.flatnonzero(session.selected).tolist() == list(range(10))
    tell(view.keyboard, key="O")
    assert "tick one cluster or more" in said(view)
    view.table.ticked = [1]
    tell(view.keyboard, key="O")
    assert session.visible.tolist() == ((session.labels == 1).to_numpy() & (np.arange(32) < 10)).tolist()
    tell(view.keyboard, key="Shift+O")
    assert session.visible.all()


def test_slices_have_a_thickness_and_a_contrast_and_points_a_size(view: Inspector) -> None:
    section, widget = view.section, view.lasso.widget
    thin = picture(section.slice.picture)
    marks, _ = circles(section)
    section.thickness.value = 400.0
    thick = picture(section.slice.picture)
    # The mean of many slices of noise, in limits of its own: another picture, with the particles where they were.
    assert np.abs(np.corrcoef(thin.ravel(), thick.ravel())[0, 1]) < 0.6
    assert (circles(section)[0] == marks).all()
    section.contrast.value = (30.0, 70.0)
    hard = picture(section.slice.picture)
    assert (hard == 0).mean() > 0.25
    assert (hard == 255).mean() > 0.25
    view.size.value = 12.0
    assert widget.size == 12
    view.size.value = 0.0
    assert widget.size == 8
    view.opacity.value = 0.2
    assert (widget.opacity_by, widget.opacity) == (None, 0.2)
    view.opacity.value = 0.0
    assert widget.opacity_by == "density"


def test_a_dark_page_has_a_dark_map_and_legends_have_titles(view: Inspector) -> None:
    widget = view.lasso.widget
    assert tuple(widget.background_color) == (1, 1, 1, 1)
    view.keyboard.dark = True
    assert max(widget.background_color[:3]) < 0.1
    assert not widget.legend
    view.colour.value = "map_density"
    assert widget.legend
    assert widget.legend_encoding["color"]["variable"] == "map_density"
    assert min(widget.legend_color) == 1
    view.size.value = 5.0
    assert widget.legend_encoding["color"]["variable"] == "map_density"
    view.keyboard.dark = False
    assert tuple(widget.background_color) == (1, 1, 1, 1)


def test_the_whole_view_is_written_as_a_figure_and_the_methods_as_words(view: Inspector, folder: Path) -> None:
    export, work = view.export, view.inspection
    members = work.session.members(1)
    work.add_average("rings", average_of(work.session.table([1]), turn=0.0), cluster=1, members=members.ids)
    work.session.describe(1, name="$x^{$ rings")
    view.section.at.value = 300.0
    export.figure_button.click()
    assert "the figure is in view.png and view.pdf" in export.text.value
    first = (folder / "view.png").read_bytes()
    assert picture(first).shape[1] == 2000
    assert (folder / "view.pdf").read_bytes().startswith(b"%PDF")
    work.session.describe(0, hidden=True)
    export.figure_button.click()
    assert "view.png and view.pdf is there already" in said(view)
    assert (folder / "view.png").read_bytes() == first
    export.replace.value = True
    export.figure_button.click()
    assert (folder / "view.png").read_bytes() != first
    export.methods_button.click()
    assert "32 particles were taken from a list in 2 tomograms" in export.methods.value
    assert "$x^{$ rings (16)" in export.methods.value
    with pytest.raises(ValueError, match="there is no tomogram 'TS_9'; there are cell"):
        view_figure.draw(work, tomogram="TS_9")
    bare = Inspection(Session(work.session.particles), diameter=250.0)
    assert len(view_figure.draw(bare).axes) == 2


def test_all_particles_can_be_hidden(view: Inspector) -> None:
    for number in view.session.clusters:
        view.session.describe(number, hidden=True)
    view.counts.show()
    for panel in view.counts, view.filters:
        for column in panel.column.options:
            panel.column.value = column
    for column in view.colour.options:
        view.colour.value = column
    assert "<b>0</b> of 0 particles selected, 32 hidden" in said(view)
    view.session.show_only()
    assert "of 32 particles selected" in said(view)


HOSTILE = "<img src='secret.png'><script>1</script> & <b>bold</b>"


def markup(view: Inspector) -> list[tuple[str, dict[str, str | None]]]:
    """All elements in what the inspector gives the browser as HTML."""
    found: list[tuple[str, dict[str, str | None]]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, dict(attributes)))  # type: ignore[method-assign]
    left, seen = [view], set()
    while left:
        one = left.pop()
        seen.add(one.model_id)
        left += [child for child in getattr(one, "children", ()) if child.model_id not in seen]
        if isinstance(one, HTML | HTMLMath):
            parser.feed(one.value)
        assert not getattr(one, "description_allow_html", False)
    return found


def test_names_of_files_are_shown_letter_by_letter(folder: Path) -> None:
    """Names of clusters, labels, tomograms, columns and jobs, notes and errors may look like HTML."""
    table = io.read_particles(folder / "clusters.csv")
    table = table.assign(tomogram=f"TS {HOSTILE}", label=[HOSTILE, "b"] * (len(table) // 2), **{f"a {HOSTILE}": "c"})
    io.write_particles(table, folder / "clusters.csv")
    view = inspector.open(folder)
    session, work = view.session, view.inspection
    session.describe(0, name=f"class {HOSTILE}", note=HOSTILE)
    session.select(session.ids[:4], HOSTILE)
    view.filters.column.value = "label"
    tell(view.filters.plot, values=[HOSTILE])
    work.colour_by = "label"
    view.card.id.value = str(session.ids[0])
    work.add_average(f"average {HOSTILE}", average_of(session.particles[:8], turn=10.0))
    work.jobs.append(jobs.start(f"job {HOSTILE}", lambda **_: (_ for _ in ()).throw(ValueError(HOSTILE))))
    work.changed.emit({"jobs"})
    with pytest.raises(ValueError, match="secret"):
        work.jobs[-1].result()
    view.counts.column.value = "label"
    view.say(f"cannot be read: {HOSTILE}")
    for number in range(len(view.tabs.children)):
        view.tabs.selected_index = number
    found = markup(view)
    assert len(found) > 12
    assert not [tag for tag, about in found if tag == "script" or "secret.png" in (about.get("src") or "")]


def test_what_is_not_saved_is_red_until_it_is(view: Inspector, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (OSError("no space"), RuntimeError("odd")):
        with monkeypatch.context() as patched:
            patched.setattr(np, "savez", Mock(side_effect=error))
            with pytest.warns(UserWarning, match="could not be saved"):
                view.session.select(view.session.ids[:3])
            view.act("merge")
            view.say("another error")
        assert f"NOT SAVED: the session: {error}" in view.status.value
        assert "another error" in view.status.value
        assert style.ERROR_TEXT in view.status.value
        view.inspection.save()
        assert "NOT SAVED" not in view.status.value
        view.session.select([])


def test_a_table_of_counts_takes_the_place_of_another_when_it_is_asked_twice(view: Inspector, folder: Path) -> None:
    place = folder / "clusters_by_tomogram.csv"
    place.write_text("dear")
    view.counts.button.click()
    assert "click again to replace it" in view.status.value
    assert place.read_text() == "dear"
    view.counts.button.click()
    assert "before: clusters_by_tomogram.csv.~1~" in view.counts.text.value
    assert (folder / "clusters_by_tomogram.csv.~1~").read_text() == "dear"
    assert pd.read_csv(place, index_col=0).index.tolist() == ["cluster 0", "cluster 1"]
