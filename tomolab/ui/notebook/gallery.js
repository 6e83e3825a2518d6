// Boxes in rows and columns; a click on one is sent to Python.
export default {
  render({ model, el }) {
    const canvas = document.createElement("canvas");
    canvas.style.cssText = "display:block; cursor:pointer; border-radius:3px; max-width:100%";
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.ariaLabel = "boxes of particles; arrows move, Enter selects";
    el.append(canvas);
    const context = canvas.getContext("2d");
    let image = null, marked = -1;

    function draw() {
      const ratio = window.devicePixelRatio || 1, { columns, rows, cell } = model.get("grid");
      const flags = model.get("flags");
      canvas.style.width = `${columns * cell}px`;
      canvas.style.height = `${rows * cell}px`;
      canvas.width = columns * cell * ratio;
      canvas.height = rows * cell * ratio;
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      if (image && columns) context.drawImage(image, 0, 0, columns * cell, rows * cell);
      const frame = (i, ink, width) => {
        context.lineWidth = width;
        context.strokeStyle = ink;
        context.strokeRect((i % columns) * cell + 2, Math.floor(i / columns) * cell + 2, cell - 4, cell - 4);
      };
      flags.forEach((ink, i) => ink && frame(i, ink, 3));
      if (marked >= 0 && marked < flags.length && document.activeElement === canvas) frame(marked, "white", 1.5);
    }

    async function load() {
      const picture = model.get("picture");
      image = picture.byteLength ? await createImageBitmap(new Blob([picture], { type: "image/png" })) : null;
      draw();
    }

    canvas.addEventListener("click", event => {
      const frame = canvas.getBoundingClientRect(), { columns, rows } = model.get("grid");
      const [across, down] = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
      const index = Math.floor(across * columns) + columns * Math.floor(down * rows);
      model.send({ index, how: event.shiftKey ? "add" : event.altKey || event.ctrlKey ? "remove" : "replace" });
    });
    canvas.addEventListener("keydown", event => {
      const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -model.get("grid").columns, ArrowDown: model.get("grid").columns }[event.key];
      if (by) marked = Math.min(Math.max(marked + by, 0), model.get("flags").length - 1);
      else if (event.key === "Enter" && marked >= 0) model.send({ index: marked, how: event.shiftKey ? "add" : event.ctrlKey ? "remove" : "replace" });
      else return;
      event.preventDefault();
      event.stopPropagation();
      draw();
    });
    canvas.addEventListener("focus", draw);
    canvas.addEventListener("blur", draw);
    model.on("change:picture", load);
    model.on("change:flags", draw);
    load();
    return () => { model.off("change:picture", load); model.off("change:flags", draw); };
  },
};
