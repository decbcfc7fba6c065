// A black square to draw on in white, by mouse, finger or keyboard; its value is the drawing as a PNG data URL.
const canvas = element.querySelector("canvas");
const size = 280;
canvas.width = canvas.height = size;
const drawn = canvas.getContext("2d");
const sheet = document.createElement("canvas"); // what is drawn, without the pen's mark
sheet.width = sheet.height = size;
const ink = sheet.getContext("2d");
let pen = { x: size / 2, y: size / 2, down: false, shown: false };
let empty = true;

function show() {
  drawn.drawImage(sheet, 0, 0);
  if (!pen.shown) return;
  drawn.lineWidth = 3;
  drawn.strokeStyle = pen.down ? "#ffd54a" : "#7db8f5";
  drawn.strokeRect(pen.x - 14, pen.y - 14, 28, 28);
}

function clear() {
  ink.fillStyle = "#000";
  ink.fillRect(0, 0, size, size);
  empty = true;
  show();
}

function line(from, to) {
  ink.strokeStyle = "#fff";
  ink.lineCap = ink.lineJoin = "round";
  ink.lineWidth = size / 8;
  ink.beginPath();
  ink.moveTo(from.x, from.y);
  ink.lineTo(to.x + 0.01, to.y); // a dot is a line too
  ink.stroke();
  empty = false;
  show();
}

function say() {
  props.value = empty ? "" : sheet.toDataURL("image/png");
  trigger("change");
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return { x: ((event.clientX - box.left) / box.width) * size, y: ((event.clientY - box.top) / box.height) * size };
}

let last = null;
canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pen.shown = false;
  last = place(event);
  line(last, last);
});
canvas.addEventListener("pointermove", (event) => {
  if (last === null) return;
  const now = place(event);
  line(last, now);
  last = now;
});
for (const end of ["pointerup", "pointercancel"])
  canvas.addEventListener(end, () => {
    if (last !== null) say();
    last = null;
  });

const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  const way = ways[event.key];
  if (!way && event.key !== " ") return;
  event.preventDefault();
  pen.shown = true;
  if (way) {
    const step = size / 28;
    const to = {
      x: Math.min(size, Math.max(0, pen.x + way[0] * step)),
      y: Math.min(size, Math.max(0, pen.y + way[1] * step)),
    };
    if (pen.down) line(pen, to);
    pen = { ...pen, ...to };
  } else {
    pen.down = !pen.down;
    if (pen.down) line(pen, pen);
    else say();
  }
  show();
});
canvas.addEventListener("focus", () => {
  pen.shown = canvas.matches(":focus-visible");
  show();
});
canvas.addEventListener("blur", () => {
  if (pen.down) say();
  pen.shown = pen.down = false;
  show();
});
element.querySelector(".clear").addEventListener("click", () => {
  clear();
  say();
});
clear();
