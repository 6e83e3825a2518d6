// Draws the clusters of a session as rows; sends every edit to Python, which sends the rows back.
const STYLE = `
.tomolab-clusters { font-size: 13px; color: var(--jp-ui-font-color1, #222); overflow-y: auto; outline: none; }
.tomolab-clusters table { border-collapse: collapse; width: 100%; }
.tomolab-clusters th { position: sticky; top: 0; z-index: 1; background: var(--jp-layout-color1, white); text-align: left;
  font-weight: 600; font-size: 11px; color: var(--jp-ui-font-color2, #6b6b6b); padding: 2px 3px; cursor: pointer; white-space: nowrap; }
.tomolab-clusters td { padding: 1px 3px; border-top: 1px solid var(--jp-border-color2, #e0e0e0); height: 26px; }
.tomolab-clusters tr.ticked td { background: var(--jp-layout-color2, #eeeeee); }
.tomolab-clusters tr.hidden td { opacity: 0.45; }
.tomolab-clusters input[type=text] { border: 1px solid transparent; background: transparent; width: 100%; font-size: 13px;
  color: inherit; padding: 1px 3px; box-sizing: border-box; }
.tomolab-clusters input[type=text]:hover { border-color: var(--jp-border-color1, #bdbdbd); }
.tomolab-clusters input[type=text]:focus { border-color: var(--jp-brand-color1, #1976d2); outline: none; background: var(--jp-layout-color0, white); }
.tomolab-clusters input[type=color] { width: 20px; height: 20px; padding: 0; border: none; background: none; cursor: pointer; }
.tomolab-clusters button { border: none; background: none; cursor: pointer; padding: 0 2px; color: inherit; font-size: 13px;
  font-variant-numeric: tabular-nums; }
.tomolab-clusters button:hover { text-decoration: underline; }
.tomolab-clusters input.name { min-width: 84px; }
.tomolab-clusters input.note { min-width: 44px; }
.tomolab-clusters .plain { display: block; max-width: 150px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.tomolab-clusters .number { text-align: right; }
.tomolab-clusters img { height: 24px; display: block; border-radius: 2px; }
`;
const WIDTHS = { name: "27%", resolution: "36px", text: "", number: "60px", accepted: "58px", check: "44px" };

export default {
  render({ model, el }) {
    const sheet = document.createElement("style");
    sheet.textContent = STYLE;
    const box = document.createElement("div");
    box.className = "tomolab-clusters";
    const resize = () => { box.style.height = `${model.get("height")}px`; };
    resize();
    el.append(sheet, box);
    let order = "", down = false;

    const make = (tag, options = {}) => Object.assign(document.createElement(tag), options);
    const tell = (cluster, change) => model.send({ cluster, ...change });

    function ticked(cluster, on) {
      const others = model.get("ticked").filter(one => one !== cluster);
      model.set("ticked", on ? [...others, cluster] : others);
      model.save_changes();
    }

    function text(row, column) {
      const plain = row.texts[column.name];
      if (!column.edit) return make("span", { textContent: plain, title: row[column.name], className: "plain" });
      const input = make("input", { type: "text", className: column.name, value: row[column.name], placeholder: column.name });
      input.addEventListener("focus", () => input.select());
      input.addEventListener("change", () => tell(row.cluster, { column: column.name, value: input.value }));
      input.addEventListener("keydown", event => { event.stopPropagation(); if (event.key === "Enter") input.blur(); });
      return input;
    }

    function check(row, column) {
      const input = make("input", { type: "checkbox", className: column.name, checked: row[column.name] });
      input.addEventListener("change", () => tell(row.cluster, { column: column.name, value: input.checked }));
      return input;
    }

    function number(row, column) {
      if (column.name !== "count") return make("span", { textContent: row.texts[column.name] });
      const count = make("button", { textContent: row.texts.count, title: `select the visible particles of ${row.title} (shift adds)` });
      count.addEventListener("click", event => tell(row.cluster, { select: event.shiftKey ? "add" : "replace" }));
      return count;
    }

    const shown = () => model.get("columns").filter(one => !one.optional || model.get("rows").some(row => row.texts[one.name]));

    function line(row, columns, pictures) {
      const tick = make("input", { type: "checkbox", className: "tick", checked: model.get("ticked").includes(row.cluster), ariaLabel: `tick ${row.title}` });
      tick.addEventListener("change", () => ticked(row.cluster, tick.checked));
      const ink = make("input", { type: "color", value: row.ink, title: `colour of ${row.title}`, ariaLabel: `colour of ${row.title}` });
      ink.addEventListener("change", () => tell(row.cluster, { colour: ink.value }));
      const tr = make("tr", { className: `${tick.checked ? "ticked" : ""} ${row.shown && row.count ? "" : "hidden"}` });
      const add = (cell, type = "") => { const td = make("td", { className: type }); td.append(cell); tr.append(td); };
      add(tick);
      add(ink);
      for (const column of columns) {
        const cell = { text, check, number }[column.type](row, column);
        cell.ariaLabel = `${column.name} of ${row.title}`;
        add(cell, column.type);
      }
      if (pictures) add(row.image ? make("img", { src: row.image, title: row.about, alt: row.about }) : "");
      return tr;
    }

    function sorted() {
      const rows = [...model.get("rows")], sign = down ? -1 : 1;
      const value = row => row[order] === null ? Infinity : typeof row[order] === "boolean" ? Number(row[order]) : row[order];
      if (order) rows.sort((a, b) => sign * (typeof value(a) === "number" ? value(a) - value(b) : value(a).localeCompare(value(b), "en", { numeric: true })));
      return rows;
    }

    function draw() {
      const table = make("table"), head = make("tr"), at = box.scrollTop;
      const focus = box.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
      const columns = shown(), pictures = model.get("rows").some(row => row.image);
      const add = (width, options = {}) => { const th = make("th", options); th.style.width = width; head.append(th); return th; };
      add("22px");
      add("24px");
      for (const { name, title, tooltip, type } of columns) {
        const arrow = name === order ? (down ? " ▾" : " ▴") : "";
        const th = add(WIDTHS[name] ?? WIDTHS[type], { textContent: title + arrow, title: tooltip, className: type });
        const sort = () => { down = order === name ? !down : type !== "text"; order = name; draw(); };
        th.tabIndex = 0;
        th.ariaLabel = `sort by ${title}`;
        th.addEventListener("click", sort);
        th.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
      }
      if (pictures) add("74px", { textContent: "Average" });
      table.append(head, ...sorted().map(row => line(row, columns, pictures)));
      box.replaceChildren(table);
      box.scrollTop = at;
      if (focus) box.querySelector(`[aria-label="${focus.replace(/["\\]/g, "\\$&")}"]`)?.focus({ preventScroll: true });
    }

    model.on("change:rows", draw);
    model.on("change:ticked", draw);
    model.on("change:height", resize);
    draw();
    return () => { model.off("change:rows", draw); model.off("change:ticked", draw); };
  },
};
