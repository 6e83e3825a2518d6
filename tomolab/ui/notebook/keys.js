// Sends whether the page is dark, which of shift, alt and ctrl were held at the last use of the mouse, and the keys pressed while the inspector has the focus and no text field has.
export default {
  render({ model, el }) {
    el.style.display = "none";
    // The buttons of the scatter would stay white in a dark theme.
    const sheet = document.createElement("style");
    sheet.textContent = ".tomolab-map [class*='jss:w-9'] { background: transparent !important; }";
    el.append(sheet);
    let used = false, moved = 0, again = null;
    // Another inspector of the page has keys of its own.
    const own = target => Boolean(target.closest?.(".tomolab-inspector")?.contains(el));
    const drawn = target => own(target) && target.matches?.("canvas");
    const hold = event => {
      if (event.type === "pointerdown") moved = 0;
      used = own(event.target);
      const held = event.shiftKey ? "add" : event.altKey || event.ctrlKey ? "remove" : "replace";
      if (held === model.get("how")) return;
      model.set("how", held);
      model.save_changes();
    };
    const press = event => {
      // Buttons that become disabled and rows that are drawn anew leave the focus to the page, and a click in the map leaves it to
      // the cell, until a key is pressed or the mouse used elsewhere.
      used = own(event.target) || (used && event.target.contains(el));
      if (!used || event.target.matches("input[type=text], input[type=number], textarea, select")) return;
      const key = (event.ctrlKey || event.metaKey ? "Ctrl+" : "") + (event.shiftKey ? "Shift+" : "") + (event.key === "Escape" ? "Esc" : event.key.length > 1 ? event.key : event.key.toUpperCase());
      if (!model.get("watched").includes(key)) return;
      // JupyterLab would take the same keys as commands for the notebook.
      event.preventDefault();
      event.stopImmediatePropagation();
      model.send({ key });
    };
    // JupyterLab would take the mouse with shift to mean a range of cells, and keep its moves to itself.
    const grab = event => {
      if (event.shiftKey && drawn(event.target)) event.preventDefault();
      asAlt(event);
    };
    // A scatter removes with alt alone, which many window managers keep to themselves.
    const asAlt = event => {
      if (event.ctrlKey && used) Object.defineProperty(event, "altKey", { value: true });
    };
    // A scatter would take the end of a lasso that closes where it began for a click on the particle there.
    const move = event => { moved += Math.abs(event.movementX) + Math.abs(event.movementY); };
    const click = event => {
      if (moved > 12 && drawn(event.target)) event.stopImmediatePropagation();
      asAlt(event);
    };
    // A scatter refuses a change while it still draws the one before. It then draws the latest state as soon as it can.
    const refused = event => {
      if (!event.reason?.message?.startsWith("Ignoring draw call")) return;
      event.preventDefault();
      again ??= setTimeout(redraw, 50);
    };
    const redraw = async () => {
      again = null;
      const scatter = model.get("scatter") && await model.widget_manager.get_model(model.get("scatter"));
      if (!scatter) return;
      // The refused change may have moved particles.
      const still = scatter.get("non_spatial_points_update");
      scatter.attributes.non_spatial_points_update = false;
      scatter.trigger("change:points", scatter, scatter.get("points"));
      scatter.attributes.non_spatial_points_update = still;
    };
    // A scatter reports a lasso some time after the release of the mouse, and perhaps of the key.
    const listeners = [
      ["keydown", press], ["mousedown", grab], ["mouseup", asAlt], ["pointermove", move], ["click", click],
      ["pointerdown", hold], ["pointerup", hold], ["unhandledrejection", refused],
    ];
    for (const [name, listener] of listeners) window.addEventListener(name, listener, true);
    // The background that the page has now, in JupyterLab and in the page of one inspector, which follows the system.
    el.style.color = "var(--jp-layout-color0, white)";
    const theme = () => {
      const [red, green, blue] = getComputedStyle(el).color.match(/[\d.]+/g).map(Number);
      const dark = red + green + blue < 384;
      if (dark === model.get("dark")) return;
      model.set("dark", dark);
      model.save_changes();
    };
    // The colours come after the name of the theme.
    const themes = new MutationObserver(() => setTimeout(theme, 500)), system = window.matchMedia("(prefers-color-scheme: dark)");
    themes.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
    system.addEventListener("change", theme);
    theme();
    return () => {
      clearTimeout(again);
      themes.disconnect();
      system.removeEventListener("change", theme);
      for (const [name, listener] of listeners) window.removeEventListener(name, listener, true);
    };
  },
};
