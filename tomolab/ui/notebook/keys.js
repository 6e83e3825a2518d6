// Lets the keyboard select in the map. Sends whether the page is dark, which of shift, alt and ctrl were held at the last use of the mouse, and the keys pressed while the inspector has the focus and no text field has.
const HINT = "arrows move · Shift+arrows: box · Space or Enter selects what is inside · Shift adds, Ctrl removes";
const REACH = 12, STEP = 12;
const WHITE_ARROW = `url("data:image/svg+xml,${encodeURIComponent('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 18 18"><path d="M5.2 5.9 9 9.7l3.8-3.8L14 7.1l-5 5-5-5z" fill="white"/></svg>')}")`;

// A circle that the arrows move over a map, or the box that they draw: its lasso is that of the mouse, point by point.
function keyboardLasso(map, setMode) {
  const [mark, hint] = ["div", "div"].map(kind => document.createElement(kind));
  mark.style.cssText = "position:absolute; box-sizing:border-box; border:2px solid #d55e00; box-shadow:0 0 0 1px white, inset 0 0 0 1px white; pointer-events:none";
  hint.style.cssText = "position:absolute; left:3px; bottom:3px; padding:1px 4px; font-size:11px; background:var(--jp-layout-color0, white); color:var(--jp-ui-font-color1, black); pointer-events:none";
  hint.textContent = HINT;
  map.tabIndex = 0;
  map.setAttribute("role", "application");
  map.ariaLabel = `map of the particles: ${HINT}`;
  map.parentElement.append(mark, hint);
  let at = null, from = null;

  const box = () => {
    const [a, b] = from ? [from, at] : [at.map(one => one - REACH), at.map(one => one + REACH)];
    return [0, 1].map(axis => [Math.min(a[axis], b[axis]), Math.max(a[axis], b[axis])]);
  };
  const draw = () => {
    mark.hidden = hint.hidden = !at || document.activeElement !== map;
    if (mark.hidden) return;
    const [[left, right], [top, bottom]] = box();
    const edges = { left: map.offsetLeft + left, top: map.offsetTop + top, width: right - left, height: bottom - top };
    for (const [name, length] of Object.entries(edges)) mark.style[name] = `${length}px`;
    mark.style.borderRadius = from ? "0" : "50%";
  };
  const select = async ({ shiftKey, ctrlKey, altKey }) => {
    await setMode();
    const [[left, right], [top, bottom]] = box(), frame = map.getBoundingClientRect();
    const fire = (kind, type, x, y) => map.dispatchEvent(new kind(type, {
      bubbles: true, cancelable: true, view: window, buttons: type.endsWith("up") ? 0 : 1, clientX: frame.left + x, clientY: frame.top + y, shiftKey, ctrlKey, altKey,
    }));
    fire(PointerEvent, "pointerdown", left, top);
    fire(MouseEvent, "mousedown", left, top);
    for (const [x, y] of [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]) {
      fire(MouseEvent, "mousemove", x, y);
      // The scatter takes one point of a lasso at a time.
      await new Promise(done => setTimeout(done, 40));
    }
    fire(PointerEvent, "pointerup", left, top);
    fire(MouseEvent, "mouseup", left, top);
    from = null;
    draw();
  };
  const centre = () => [map.clientWidth / 2, map.clientHeight / 2];
  map.addEventListener("focus", () => { if (map.matches(":focus-visible")) at ??= centre(); draw(); });
  map.addEventListener("blur", draw);
  draw();

  // Whether it has taken the key.
  return event => {
    const by = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (by) {
      at ??= centre();
      from = event.shiftKey ? from ?? [...at] : null;
      const ends = [map.clientWidth, map.clientHeight];
      at = at.map((one, axis) => Math.min(Math.max(one + by[axis], 0), ends[axis]));
      draw();
    } else if ([" ", "Enter"].includes(event.key) && at) {
      select(event);
    }
    return Boolean(by) || [" ", "Enter"].includes(event.key);
  };
}

export default {
  render({ model, el }) {
    el.style.display = "none";
    // The buttons of the scatter would stay white in a dark theme, and titles of tabs would be cut in a narrow window.
    const sheet = document.createElement("style");
    sheet.textContent = ".tomolab-map [class*='jss:w-9'] { background: transparent !important; }"
      + ".tomolab-inspector .widget-tab > .lm-TabBar .lm-TabBar-tab { flex: 1 1 auto; min-width: max-content; padding: 0 6px; }";
    el.append(sheet);
    let used = false, moved = 0, again = null, map = null, lasso = null;
    // The scatter comes after this.
    const finding = model.get("scatter") && setInterval(() => {
      map = el.closest(".tomolab-inspector")?.querySelector(".tomolab-map canvas");
      if (!map) return;
      clearInterval(finding);
      lasso = keyboardLasso(map, async () => {
        const scatter = await model.widget_manager.get_model(model.get("scatter"));
        if (scatter.get("mouse_mode") === "lasso") return;
        scatter.set("mouse_mode", "lasso");
        scatter.save_changes();
        await new Promise(done => setTimeout(done, 100));
      });
    }, 300);
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
      if (event.target === map && lasso(event)) {
        event.preventDefault();
        event.stopImmediatePropagation();
        return;
      }
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
      if (!el.isConnected) return setTimeout(theme, 100);
      const [red, green, blue] = getComputedStyle(el).color.match(/[\d.]+/g).map(Number);
      const dark = red + green + blue < 384;
      // The arrows of lists are black in every theme.
      el.closest(".tomolab-inspector")?.style.setProperty("--jp-widgets-dropdown-arrow", dark ? WHITE_ARROW : "");
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
      clearInterval(finding);
      themes.disconnect();
      system.removeEventListener("change", theme);
      for (const [name, listener] of listeners) window.removeEventListener(name, listener, true);
    };
  },
};
