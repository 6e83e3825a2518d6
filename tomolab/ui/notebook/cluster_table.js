// The clusters of a session: a row each, with what can be said of it; every change is sent to Python, which sends rows back.
const STYLE = `
.tomolab-roster { font-size: 13px; color: var(--jp-ui-font-color1, #222); overflow-y: auto; outline: none; }
.tomolab-roster table { border-collapse: collapse; width: 100%; }
.tomolab-roster th { position: sticky; top: 0; z-index: 1; background: var(--jp-layout-color1, white); text-align: left;
  font-weight: 600; font-size: 11px; color: var(--jp-ui-font-color2, #6b6b6b); padding: 2px 4px; cursor: pointer; white-space: nowrap; }
.tomolab-roster td { padding: 1px 4px; border-top: 1px solid var(--jp-border-color2, #e0e0e0); height: 26px; }
.tomolab-roster tr.ticked td { background: var(--jp-layout-color2, #eeeeee); }
.tomolab-roster tr.hidden td { opacity: 0.45; }
.tomolab-roster input[type=text] { border: 1px solid transparent; background: transparent; width: 100%; font-size: 13px;
  color: inherit; padding: 1px 3px; box-sizing: border-box; }
.tomolab-roster input.name::placeholder { color: inherit; opacity: 1; }
.tomolab-roster input[type=text]:hover { border-color: var(--jp-border-color1, #bdbdbd); }
.tomolab-roster input[type=text]:focus { border-color: var(--jp-brand-color1, #1976d2); outline: none; background: var(--jp-layout-color0, white); }
.tomolab-roster input[type=color] { width: 20px; height: 20px; padding: 0; border: none; background: none; cursor: pointer; }
.tomolab-roster button { border: none; background: none; cursor: pointer; padding: 0 2px; color: inherit; font-size: 13px;
  font-variant-numeric: tabular-nums; }
.tomolab-roster button:hover { text-decoration: underline; }
.tomolab-roster .number { text-align: right; }
.tomolab-roster img { height: 24px; display: block; border-radius: 2px; }
`;
const HEADS = [["", ""], ["", ""], ["name", "name"], ["count", "particles"], ["selected", "selected"], ["", "average"], ["note", "note"], ["", ""]];

export default {
  render({ model, el }) {
    const sheet = document.createElement("style");
    sheet.textContent = STYLE;
    const box = document.createElement("div");
    box.className = "tomolab-roster";
    box.style.height = `${model.get("height")}px`;
    el.append(sheet, box);
    let order = "", down = false;

    const make = (kind, options = {}) => Object.assign(document.createElement(kind), options);
    const tell = (cluster, change) => model.send({ cluster, ...change });

    function ticked(cluster, on) {
      const others = model.get("ticked").filter(one => one !== cluster);
      model.set("ticked", on ? [...others, cluster] : others);
      model.save_changes();
    }

    function text(row, field, hint) {
      const input = make("input", { type: "text", className: field, value: row[field], placeholder: hint });
      input.setAttribute("aria-label", `${field} of ${row.title}`);
      input.addEventListener("change", () => tell(row.cluster, { [field]: input.value }));
      input.addEventListener("keydown", event => { event.stopPropagation(); if (event.key === "Enter") input.blur(); });
      return input;
    }

    function line(row) {
      const tick = make("input", { type: "checkbox", checked: model.get("ticked").includes(row.cluster), title: "tick to merge, split, average" });
      tick.setAttribute("aria-label", `tick ${row.title}`);
      tick.addEventListener("change", () => ticked(row.cluster, tick.checked));
      const ink = make("input", { type: "color", value: row.ink, title: `colour of ${row.title}`, ariaLabel: `colour of ${row.title}` });
      ink.addEventListener("change", () => tell(row.cluster, { colour: ink.value }));
      const count = make("button", { textContent: row.count.toLocaleString("en"), title: `select all of ${row.title} (shift adds)`, ariaLabel: `select ${row.title}` });
      count.addEventListener("click", event => tell(row.cluster, { select: event.shiftKey ? "add" : "replace" }));
      const eye = make("button", { textContent: row.hidden ? "show" : "hide", title: `${row.hidden ? "show" : "hide"} ${row.title} in all views`, ariaLabel: `hide ${row.title}` });
      eye.addEventListener("click", () => tell(row.cluster, { hidden: !row.hidden }));
      const image = row.image ? make("img", { src: row.image, title: row.about, alt: row.about }) : "";
      const chosen = row.selected ? row.selected.toLocaleString("en") : "";
      const cells = [tick, ink, text(row, "name", row.title), count, chosen, image, text(row, "note", "note"), eye];
      const tr = make("tr", { className: `${tick.checked ? "ticked" : ""} ${row.hidden || !row.count ? "hidden" : ""}` });
      cells.forEach((cell, i) => {
        const td = make("td", { className: i === 3 || i === 4 ? "number" : "" });
        td.append(cell);
        tr.append(td);
      });
      return tr;
    }

    function sorted() {
      const rows = [...model.get("rows")], sign = down ? -1 : 1;
      const value = row => order === "name" ? row.name || row.title : row[order];
      if (order) rows.sort((a, b) => sign * (typeof value(a) === "number" ? value(a) - value(b) : value(a).localeCompare(value(b), "en", { numeric: true })));
      return rows;
    }

    function draw() {
      const table = make("table"), head = make("tr"), at = box.scrollTop;
      const focus = box.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
      for (const [key, title] of HEADS) {
        const th = make("th", { textContent: title + (key && key === order ? (down ? " ▾" : " ▴") : "") });
        if (key) th.addEventListener("click", () => { down = order === key ? !down : key !== "name"; order = key; draw(); });
        head.append(th);
      }
      ["22px", "24px", "27%", "68px", "60px", "74px", "", "38px"].forEach((width, i) => { head.children[i].style.width = width; });
      table.append(head, ...sorted().map(line));
      box.replaceChildren(table);
      box.scrollTop = at;
      if (focus) box.querySelector(`[aria-label="${focus.replace(/["\\]/g, "\\$&")}"]`)?.focus({ preventScroll: true });
    }

    model.on("change:rows", draw);
    model.on("change:ticked", draw);
    draw();
    return () => { model.off("change:rows", draw); model.off("change:ticked", draw); };
  },
};
