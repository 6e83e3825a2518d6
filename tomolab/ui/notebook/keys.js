// Sends which of shift and alt were held at the last use of the mouse, and the keys pressed while the inspector has the focus and no text field has.
export default {
  render({ model, el }) {
    el.style.display = "none";
    let used = false, moved = 0;
    const hold = event => {
      if (event.type === "pointerdown") moved = 0;
      used = Boolean(event.target.closest?.(".tomolab-inspector"));
      const held = event.shiftKey ? "add" : event.altKey ? "remove" : "replace";
      if (held === model.get("how")) return;
      model.set("how", held);
      model.save_changes();
    };
    const press = event => {
      // Buttons that become disabled and rows that are drawn anew leave the focus to the page.
      const inside = event.target.closest?.(".tomolab-inspector") || (used && event.target === document.body);
      if (!inside || event.target.matches("input[type=text], input[type=number], textarea, select")) return;
      const key = (event.ctrlKey || event.metaKey ? "Ctrl+" : "") + (event.shiftKey ? "Shift+" : "") + (event.key === "Escape" ? "Esc" : event.key.length > 1 ? event.key : event.key.toUpperCase());
      if (!model.get("watched").includes(key)) return;
      // JupyterLab would take the same keys as commands for the notebook.
      event.preventDefault();
      event.stopImmediatePropagation();
      model.send({ key });
    };
    // JupyterLab would take the mouse with shift to mean a range of cells, and keep its moves to itself.
    const grab = event => { if (event.shiftKey && event.target.matches?.(".tomolab-inspector canvas")) event.preventDefault(); };
    // A scatter would take the end of a lasso that closes where it began for a click on the particle there.
    const move = event => { moved += Math.abs(event.movementX) + Math.abs(event.movementY); };
    const click = event => {
      if (moved > 12 && event.target.matches?.(".tomolab-inspector canvas")) event.stopImmediatePropagation();
    };
    // A scatter reports a lasso some time after the release of the mouse, and perhaps of the key.
    const moves = ["pointerdown", "pointerup"];
    window.addEventListener("keydown", press, true);
    const others = { mousedown: grab, pointermove: move, click };
    for (const [name, listener] of Object.entries(others)) window.addEventListener(name, listener, true);
    moves.forEach(name => window.addEventListener(name, hold, true));
    return () => {
      window.removeEventListener("keydown", press, true);
      for (const [name, listener] of Object.entries(others)) window.removeEventListener(name, listener, true);
      moves.forEach(name => window.removeEventListener(name, hold, true));
    };
  },
};
