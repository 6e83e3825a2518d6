// Boxes in rows and columns; a click on one is sent to Python.
export default {
  render({ model, el }) {
    const canvas = document.createElement("canvas");
    canvas.style.cssText = "display:block; cursor:pointer; border-radius:3px";
    el.append(canvas);
    const context = canvas.getContext("2d");
    let image = null;

    function draw() {
      const ratio = window.devicePixelRatio || 1, { columns, rows, cell } = model.get("grid");
      const flags = model.get("flags");
      canvas.style.width = `${columns * cell}px`;
      canvas.style.height = `${rows * cell}px`;
      canvas.width = columns * cell * ratio;
      canvas.height = rows * cell * ratio;
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      if (image && columns) context.drawImage(image, 0, 0, columns * cell, rows * cell);
      flags.forEach((ink, i) => {
        if (!ink) return;
        context.lineWidth = 3;
        context.strokeStyle = ink;
        context.strokeRect((i % columns) * cell + 2, Math.floor(i / columns) * cell + 2, cell - 4, cell - 4);
      });
    }

    async function load() {
      const picture = model.get("picture");
      image = picture.byteLength ? await createImageBitmap(new Blob([picture], { type: "image/png" })) : null;
      draw();
    }

    canvas.addEventListener("click", event => {
      const frame = canvas.getBoundingClientRect(), { columns, cell } = model.get("grid");
      const index = Math.floor((event.clientX - frame.left) / cell) + columns * Math.floor((event.clientY - frame.top) / cell);
      model.send({ index, how: event.shiftKey ? "add" : event.altKey || event.ctrlKey ? "remove" : "replace" });
    });
    model.on("change:picture", load);
    model.on("change:flags", draw);
    load();
    return () => { model.off("change:picture", load); model.off("change:flags", draw); };
  },
};
