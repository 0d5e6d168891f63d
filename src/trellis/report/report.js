"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg", W = 320, H = 150, LEFT = 44, RIGHT = 6, TOP = 6, BOTTOM = 18;

const make = (kind, attributes, parent) => {
  const node = document.createElementNS(SVG, kind);
  for (const name in attributes) node.setAttribute(name, attributes[name]);
  if (parent) parent.append(node);
  return node;
};
const colour = (group) => `var(--c${group % 8})`;
const short = (x) => x !== 0 && (Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3) ? x.toExponential(1) : String(+x.toPrecision(4));
const path = (xs, ys) => "M" + xs.map((x, i) => x.toFixed(1) + " " + ys[i].toFixed(1)).join("L");

function ticks(low, high) {
  const raw = (high - low) / 4, size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * size).find((k) => k >= raw);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(+(k * step).toPrecision(12));
  return found;
}

function range(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) { if (v < low) low = v; if (v > high) high = v; }
  const pad = high > low ? (high - low) * 0.04 : Math.abs(high) * 0.1 || 1;
  return [low - pad, high + pad];
}

function draw(box) {
  if (box.querySelector("svg")) return;
  const panel = data.panels[+box.dataset.panel], curves = panel.curves;
  const [y0, y1] = range(curves.flatMap((c) => [...(c.low || c.mean), ...(c.high || c.mean)]));
  const all = curves.flatMap((c) => [c.x[0], c.x[c.x.length - 1]]), x0 = Math.min(...all), x1 = Math.max(...all, x0 + 1);
  const px = (x) => LEFT + (x - x0) / (x1 - x0) * (W - LEFT - RIGHT), py = (y) => H - BOTTOM - (y - y0) / (y1 - y0) * (H - TOP - BOTTOM);
  const svg = make("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": panel.name }, box);
  for (const y of ticks(y0, y1)) {
    make("line", { class: "axis", x1: LEFT, x2: W - RIGHT, y1: py(y), y2: py(y) }, svg);
    make("text", { x: LEFT - 4, y: py(y) + 3, "text-anchor": "end" }, svg).textContent = short(y);
  }
  for (const x of ticks(x0, x1)) make("text", { x: px(x), y: H - 5, "text-anchor": "middle" }, svg).textContent = short(x);
  for (const [group, step, name] of data.marks) {
    if (step < x0 || step > x1 || !curves.some((c) => c.group === group)) continue;
    const line = make("line", { class: "mark", x1: px(step), x2: px(step), y1: TOP, y2: H - BOTTOM }, svg);
    make("title", {}, line).textContent = `${name}, step ${step}`;
  }
  for (const c of curves) {
    const xs = c.x.map(px);
    if (c.low) {
      const edge = path([...xs, ...[...xs].reverse()], [...c.high.map(py), ...c.low.map(py).reverse()]) + "Z";
      make("path", { class: "band", d: edge, fill: colour(c.group) }, svg);
    }
    make("path", { class: "mean", d: path(xs, c.mean.map(py)), stroke: colour(c.group) }, svg);
  }
  read(svg, box.querySelector("output"), curves, px);
}

function read(svg, output, curves, px) {
  const cursor = make("line", { class: "cursor", y1: TOP, y2: H - BOTTOM, visibility: "hidden" }, svg);
  svg.addEventListener("pointermove", (event) => {
    const at = (event.clientX - svg.getBoundingClientRect().left) / svg.clientWidth * W;
    const said = curves.map((c) => {
      let best = 0;
      c.x.forEach((x, i) => { if (Math.abs(px(x) - at) < Math.abs(px(c.x[best]) - at)) best = i; });
      return [c.x[best], short(c.mean[best])];
    });
    cursor.setAttribute("x1", px(said[0][0]));
    cursor.setAttribute("x2", px(said[0][0]));
    cursor.setAttribute("visibility", "visible");
    output.textContent = `${short(said[0][0])}: ${said.map(([, y]) => y).join(" · ")}`;
  });
  svg.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); output.textContent = ""; });
}

const more = document.getElementById("more");
for (const box of document.querySelectorAll(".chart")) if (!more || !more.contains(box)) draw(box);
if (more) more.addEventListener("toggle", () => { for (const box of more.querySelectorAll(".chart")) draw(box); });
document.documentElement.dataset.drawn = performance.now().toFixed(0);
