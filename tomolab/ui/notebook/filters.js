// Draws the distribution of a column: a histogram with a range that is drawn by dragging, or values as rows to tick.
const STYLE = `
.tomolab-values { max-height: 190px; overflow-y: auto; font-size: 13px; color: var(--jp-ui-font-color1, #222); outline: none; }
.tomolab-values table { border-collapse: collapse; width: 100%; }
.tomolab-values td { padding: 1px 4px; border-top: 1px solid var(--jp-border-color2, #e0e0e0); }
.tomolab-values td { text-align: left; }
.tomolab-values td:first-child { width: 24px; }
.tomolab-values .bar { height: 9px; border-radius: 2px; min-width: 1px; background: var(--jp-brand-color1, #1976d2); }
.tomolab-values .all { background: var(--jp-layout-color3, #d9d9d9); border-radius: 2px; }
.tomolab-values td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; color: var(--jp-ui-font-color2, #6b6b6b); }
.tomolab-values button { border: none; background: none; color: inherit; padding: 0; cursor: pointer; font-size: 13px; text-align: left;
  max-width: 220px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.tomolab-values button:hover { text-decoration: underline; }
`;
const NEAR = 6;

export default {
  render({ model, el }) {
    const sheet = document.createElement("style");
    sheet.textContent = STYLE;
    const box = document.createElement("div");
    el.append(sheet, box);
    const make = (tag, options = {}) => Object.assign(document.createElement(tag), options);
    let canvas = null, from = null, drawn = null;

    function values() {
      const rows = model.get("rows"), most = Math.max(1, ...rows.map(row => row.count)), table = make("table");
      for (const row of rows) {
        const tr = make("tr"), add = (cell, className = "") => { const td = make("td", { className }); td.append(cell); tr.append(td); };
        const tick = make("input", { type: "checkbox", checked: row.on, ariaLabel: `show ${row.title}` });
        tick.addEventListener("change", () => model.send({ values: rows.filter(one => one === row ? tick.checked : one.on).map(one => one.value) }));
        const only = make("button", { textContent: row.title, title: `show only ${row.title}` });
        only.addEventListener("click", () => model.send({ values: [row.value] }));
        const all = make("div", { className: "all" }), bar = make("div", { className: "bar" });
        all.style.width = `${100 * row.count / most}%`;
        bar.style.width = `${100 * row.shown / Math.max(1, row.count)}%`;
        if (row.ink) bar.style.background = row.ink;
        all.append(bar);
        add(tick);
        add(only);
        add(row.shown < row.count ? `${row.shown.toLocaleString("en")} of ${row.count.toLocaleString("en")}` : row.count.toLocaleString("en"), "number");
        add(all);
        tr.lastChild.style.width = "45%";
        table.append(tr);
      }
      const focus = box.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
      const held = make("div", { className: "tomolab-values" }), at = box.firstChild?.scrollTop ?? 0;
      held.append(table);
      box.replaceChildren(held);
      held.scrollTop = at;
      if (focus) box.querySelector(`[aria-label="${focus.replace(/["\\]/g, "\\$&")}"]`)?.focus({ preventScroll: true });
    }

    const toX = value => (value - model.get("low")) / (model.get("high") - model.get("low")) * canvas.clientWidth;
    const toValue = x => model.get("low") + Math.min(Math.max(x / canvas.clientWidth, 0), 1) * (model.get("high") - model.get("low"));

    function histogram() {
      if (!canvas?.isConnected) {
        canvas = make("canvas", { title: "drag: the range to show · double click: all" });
        canvas.style.cssText = "display:block; width:100%; height:90px; cursor:crosshair; touch-action:none";
        canvas.setAttribute("role", "img");
        canvas.ariaLabel = "histogram; the slider below sets the range by keyboard";
        listen();
        box.replaceChildren(canvas);
        watcher.observe(canvas);
      }
      const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
      const colour = (name, other) => getComputedStyle(canvas).getPropertyValue(name) || other;
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      const context = canvas.getContext("2d"), counts = model.get("counts"), shown = model.get("shown");
      context.scale(ratio, ratio);
      const most = Math.max(1, ...counts), step = width / counts.length;
      const bars = (numbers, ink) => {
        context.fillStyle = ink;
        numbers.forEach((count, i) => { const tall = count && Math.max(1, count / most * (height - 4)); context.fillRect(i * step + 0.5, height - tall, Math.max(1, step - 1), tall); });
      };
      bars(counts, colour("--jp-layout-color3", "#d0d0d0"));
      bars(shown, colour("--jp-brand-color1", "#1976d2"));
      const [low, high] = (drawn ?? model.get("range")).map(toX);
      context.fillStyle = colour("--jp-ui-font-color1", "#222");
      if (high - low < width - 1) {
        context.globalAlpha = 0.12;
        context.fillRect(low, 0, high - low, height);
        context.globalAlpha = 1;
        for (const x of [low, high]) context.fillRect(Math.min(Math.max(x - 1, 0), width - 2), 0, 2, height);
      }
    }

    function listen() {
      const place = event => event.clientX - canvas.getBoundingClientRect().left;
      canvas.addEventListener("pointerdown", event => {
        const x = place(event), [low, high] = model.get("range").map(toX), whole = high - low > canvas.clientWidth - 1;
        canvas.setPointerCapture(event.pointerId);
        // An end is moved, the range is moved, or a new one begins.
        if (!whole && Math.abs(x - low) < NEAR) from = { fixed: high };
        else if (!whole && Math.abs(x - high) < NEAR) from = { fixed: low };
        else if (!whole && x > low && x < high) from = { at: x, low, high };
        else from = { fixed: x };
      });
      canvas.addEventListener("pointermove", event => {
        if (!from) return;
        const x = place(event), width = canvas.clientWidth;
        if ("fixed" in from) drawn = [from.fixed, x].sort((a, b) => a - b).map(toValue);
        else {
          const by = Math.min(Math.max(x - from.at, -from.low), width - from.high);
          drawn = [from.low + by, from.high + by].map(toValue);
        }
        histogram();
      });
      canvas.addEventListener("pointerup", () => {
        if (drawn && toX(drawn[1]) - toX(drawn[0]) > 2) model.send({ range: drawn });
        from = drawn = null;
        histogram();
      });
      canvas.addEventListener("dblclick", () => model.send({ range: [model.get("low"), model.get("high")] }));
    }

    const draw = () => model.get("kind") === "range" ? histogram() : values();
    const watcher = new ResizeObserver(() => { if (model.get("kind") === "range" && canvas?.isConnected) histogram(); });
    model.on("change", draw);
    draw();
    return () => { watcher.disconnect(); model.off("change", draw); };
  },
};
