// Draws a slice of a tomogram with the circles of the particles that it cuts; sends lassos and clicks to Python.
const HINT = "drag: lasso · shift adds, ctrl or alt removes · wheel zooms · right drag pans · ↑ ↓ slices";

function values(view, TypedArray) {
  return new TypedArray(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

function how(event) {
  return event.shiftKey ? "add" : event.altKey || event.ctrlKey ? "remove" : "replace";
}

export default {
  render({ model, el }) {
    const canvas = document.createElement("canvas");
    const hint = document.createElement("div");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.style.cssText = "display:block; width:100%; background:#202020; cursor:crosshair; touch-action:none; border-radius:3px";
    hint.style.cssText = "font-size:11px; color:var(--jp-ui-font-color2, #6b6b6b); padding-top:2px";
    hint.textContent = HINT;
    canvas.title = "double click: the whole slice again";
    el.append(canvas, hint);
    const context = canvas.getContext("2d");
    let image = null, scale = 1, left = 0, top = 0, fitted = true, trail = [], from = null, under = -1;

    const size = () => model.get("size");
    const place = event => {
      const frame = canvas.getBoundingClientRect();
      return [event.clientX - frame.left, event.clientY - frame.top];
    };
    const toVoxels = ([x, y]) => [(x - left) / scale, (y - top) / scale];

    function fit() {
      const [height, width] = size();
      scale = Math.min(canvas.clientWidth / width, canvas.clientHeight / height);
      left = (canvas.clientWidth - width * scale) / 2;
      top = (canvas.clientHeight - height * scale) / 2;
      fitted = true;
    }

    function resize() {
      const ratio = window.devicePixelRatio || 1;
      canvas.style.height = `${model.get("height")}px`;
      canvas.width = Math.round(canvas.clientWidth * ratio);
      canvas.height = Math.round(canvas.clientHeight * ratio);
      if (fitted) fit();
      draw();
    }

    function circles() {
      const marks = values(model.get("marks"), Float32Array), inks = values(model.get("inks"), Uint8Array);
      for (let i = 0; i < marks.length / 3; i++) {
        const [x, y, radius] = marks.subarray(3 * i, 3 * i + 3);
        const [red, green, blue, selected] = inks.subarray(4 * i, 4 * i + 4);
        context.beginPath();
        context.arc(left + x * scale, top + y * scale, Math.max(2, radius * scale), 0, 2 * Math.PI);
        if (selected) {
          context.fillStyle = `rgba(${red}, ${green}, ${blue}, 0.45)`;
          context.fill();
          context.lineWidth = 4;
          context.strokeStyle = "white";
          context.stroke();
        }
        context.lineWidth = 1.6;
        context.strokeStyle = `rgb(${red}, ${green}, ${blue})`;
        context.stroke();
      }
    }

    function bar() {
      const voxel = model.get("voxel_size"), most = 0.3 * canvas.clientWidth / scale * voxel;
      const power = 10 ** Math.floor(Math.log10(most));
      const length = [5, 2, 1].map(step => step * power).find(step => step <= most);
      const pixels = length / voxel * scale, y = canvas.clientHeight - 12;
      context.fillStyle = "white";
      context.shadowColor = "black";
      context.shadowBlur = 3;
      context.fillRect(12, y, pixels, 3);
      context.font = "bold 12px sans-serif";
      context.fillText(`${length.toLocaleString("en")} Å`, 12, y - 5);
      context.shadowBlur = 0;
    }

    function draw() {
      const ratio = window.devicePixelRatio || 1;
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
      if (!image) return;
      const [height, width] = size();
      context.drawImage(image, left, top, width * scale, height * scale);
      circles();
      bar();
      if (trail.length > 1) {
        context.beginPath();
        trail.forEach(([x, y]) => context.lineTo(left + x * scale, top + y * scale));
        context.closePath();
        context.fillStyle = "rgba(255, 255, 255, 0.15)";
        context.fill();
        context.lineWidth = 1.5;
        context.strokeStyle = "white";
        context.stroke();
      }
    }

    async function load() {
      const picture = model.get("picture");
      if (!picture.byteLength) return;
      image = await createImageBitmap(new Blob([picture], { type: "image/png" }));
      draw();
    }

    canvas.addEventListener("pointerdown", event => {
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      from = { at: place(event), moves: event.button !== 0 };
      trail = from.moves ? [] : [toVoxels(from.at)];
    });
    // The particle under the mouse, if it is another one than before.
    function hover(event) {
      const [x, y] = toVoxels(place(event)), marks = values(model.get("marks"), Float32Array);
      let nearest = -1, least = Infinity;
      for (let i = 0; i < marks.length / 3; i++) {
        const away = Math.hypot(marks[3 * i] - x, marks[3 * i + 1] - y);
        if (away < Math.max(marks[3 * i + 2], 4 / scale) && away < least) [nearest, least] = [i, away];
      }
      if (nearest !== under && nearest >= 0) model.send({ type: "hover", index: nearest });
      under = nearest;
    }

    canvas.addEventListener("pointermove", event => {
      if (!from) return hover(event);
      const at = place(event);
      if (from.moves) {
        left += at[0] - from.at[0];
        top += at[1] - from.at[1];
        from.at = at;
        fitted = false;
      } else trail.push(toVoxels(at));
      draw();
    });
    canvas.addEventListener("pointerup", event => {
      if (!from) return;
      const moved = Math.hypot(...place(event).map((one, i) => one - from.at[i])) > 4 || trail.length > 8;
      if (!from.moves) model.send(moved ? { type: "lasso", at: trail, how: how(event) } : { type: "click", at: trail, how: how(event) });
      from = null;
      trail = [];
      draw();
    });
    canvas.addEventListener("contextmenu", event => event.preventDefault());
    canvas.addEventListener("dblclick", () => { fit(); draw(); });
    canvas.addEventListener("wheel", event => {
      event.preventDefault();
      const [x, y] = place(event), factor = Math.exp(-event.deltaY * 0.0015);
      left = x - (x - left) * factor;
      top = y - (y - top) * factor;
      scale *= factor;
      fitted = false;
      draw();
    }, { passive: false });
    canvas.addEventListener("keydown", event => {
      const by = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      model.send({ type: "step", by });
    });

    const onSize = () => { if (fitted) fit(); draw(); };
    model.on("change:picture", load);
    model.on("change:size", onSize);
    model.on("change:marks", draw);
    model.on("change:inks", draw);
    const watcher = new ResizeObserver(resize);
    watcher.observe(canvas);
    load();
    return () => {
      watcher.disconnect();
      model.off("change:picture", load);
      model.off("change:size", onSize);
      model.off("change:marks", draw);
      model.off("change:inks", draw);
    };
  },
};
