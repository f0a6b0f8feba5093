// A drawing of boxes, hubs and lines in SVG. It is changed in place, so that what has the focus keeps it.
//
// It is one stop of the Tab key; arrow keys go from box to box, Enter or Space picks one. What is in it is in tables,
// too.

import { arrange, button, drawn, element, set } from "./elements.js";
import { quality } from "./words.js";

const MARGIN = 24;
const ZOOM = { least: 0.5, most: 4, step: 1.25 };
const CELL = { size: 8, gap: 3 };

export class Drawing {
  #groups = new Map();
  #zoom = 1;
  #size = [0, 0];

  constructor(label, onPick = () => {}) {
    this.onPick = onPick;
    this.lines = drawn("g");
    this.hubs = drawn("g");
    this.boxes = drawn("g");
    this.svg = drawn(
      "svg",
      { role: "group", "aria-label": label, class: "drawing" },
      this.lines,
      this.hubs,
      this.boxes,
    );
    this.svg.addEventListener("keydown", (event) => this.#key(event));
    this.svg.addEventListener("click", (event) => this.#pick(event.target.closest("[data-key]")));
    this.scroll = element("div", { class: "scroll canvas" }, this.svg);
    this.bar = element(
      "div",
      { class: "bar" },
      button("Zoom out", () => this.#scale(this.#zoom / ZOOM.step)),
      button("Zoom in", () => this.#scale(this.#zoom * ZOOM.step)),
      button("Fit", () => this.#scale(1)),
    );
    this.parts = [this.scroll, this.bar];
  }

  // boxes: { key, x, y, width, height, title, lines, state, said, mark, faint, picked, cells, level }
  // hubs: { key, x, y, width, height, title, faint, way };
  // lines: { key, from, to, bend, level, width, dashes, label, along, title, way, faint }
  show({ width, height, boxes, hubs, lines }) {
    this.#size = [width + 2 * MARGIN, height + 2 * MARGIN];
    set(this.svg, { viewBox: `${-MARGIN} ${-MARGIN} ${this.#size[0]} ${this.#size[1]}` });
    this.#scale(this.#zoom);
    const fresh = new Map();
    const made = (items, draw, kind) =>
      items.map((item) => {
        const key = `${kind} ${item.key}`;
        const group = this.#groups.get(key) ?? drawn("g");
        const now = JSON.stringify(item);
        if (group.shown !== now) draw(group, item);
        group.shown = now;
        fresh.set(key, group);
        return group;
      });
    arrange(this.lines, made(lines, drawLine, "line"));
    arrange(this.hubs, made(hubs, drawHub, "hub"));
    const stops = made(boxes, drawBox, "box");
    arrange(this.boxes, stops);
    this.#groups = fresh;
    const current = stops.find((each) => each.getAttribute("tabindex") === "0") ?? stops[0];
    for (const each of stops) set(each, { tabindex: each === current ? 0 : -1 });
  }

  focus(key) {
    this.#move(this.#groups.get(`box ${key}`));
  }

  #scale(zoom) {
    this.#zoom = Math.min(ZOOM.most, Math.max(ZOOM.least, zoom));
    // Fitting is as wide as there is room, but not larger than drawn.
    set(
      this.svg,
      this.#zoom === 1
        ? { width: "100%", height: null, class: "drawing fits" }
        : {
            width: Math.round(this.#size[0] * this.#zoom),
            height: Math.round(this.#size[1] * this.#zoom),
            class: "drawing",
          },
    );
    this.svg.style.maxWidth = this.#zoom === 1 ? `${Math.round(this.#size[0] * 1.15)}px` : "none";
  }

  #key(event) {
    const here = event.target.closest("[data-key]");
    if (!here) return;
    if (event.key === "Enter" || event.key === " ") this.#pick(here);
    else if (event.key.startsWith("Arrow")) this.#move(this.#next(here, event.key));
    else return;
    event.preventDefault();
  }

  // The nearest box in a direction; what is aside counts double.
  #next(here, key) {
    const [x, y] = here.at;
    const along = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[key];
    let [best, least] = [null, Infinity];
    for (const each of this.boxes.children) {
      const [right, down] = [each.at[0] - x, each.at[1] - y];
      const ahead = right * along[0] + down * along[1];
      const distance = ahead + 2 * Math.abs(right * along[1] + down * along[0]);
      if (ahead > 1 && distance < least) [best, least] = [each, distance];
    }
    return best;
  }

  #move(to) {
    if (!to) return;
    for (const each of this.boxes.children) set(each, { tabindex: each === to ? 0 : -1 });
    to.focus();
  }

  #pick(group) {
    if (!group) return;
    this.#move(group);
    this.onPick(group.dataset.key);
  }
}

// Text that fits: what is too long is cut, and all of it is in the title.
function words(text, attributes, room) {
  const most = Math.floor(room / 6.6);
  return drawn("text", attributes, text.length > most ? `${text.slice(0, most - 1)}…` : text);
}

function drawBox(group, { key, x, y, width, height, title, lines, state, said, mark, faint, picked, cells, level }) {
  const [left, top] = [x - width / 2, y - height / 2];
  group.at = [x, y];
  group.dataset.key = key;
  const kind = state ? quality(state) : "plain";
  set(group, {
    class: `box ${kind}${faint ? " away" : ""}${picked ? " picked" : ""}`,
    role: "button",
    "aria-label": said,
    "aria-pressed": picked === undefined ? null : String(picked),
    transform: `translate(${left} ${top})`,
  });
  const parts = [
    drawn("title", {}, said),
    drawn("rect", { class: "sheet", width, height, rx: 7 }),
    words(title, { class: "name", x: 12, y: 20 }, width - 16),
    ...lines.map((line, place) => words(line, { class: "line-of-text", x: 12, y: 37 + 15 * place }, width - 16)),
  ];
  if (state) parts.push(drawn("rect", { class: "stripe", width: 5, height: height - 12, x: 0, y: 6, rx: 2 }));
  if (level)
    parts.push(
      drawn("line", {
        class: `line ${level}`,
        x1: 12,
        x2: width - 12,
        y1: height - 8,
        y2: height - 8,
        "stroke-width": 4,
      }),
    );
  if (cells) parts.push(...drawCells(cells, width, 37 + 15 * lines.length - 8));
  if (mark) parts.push(...drawMark(mark, width));
  group.replaceChildren(...parts);
}

// One small square for each node: full where it is well, a ring where it waits, crossed where it is gone.
function drawCells(cells, width, top) {
  const step = CELL.size + CELL.gap;
  const across = Math.floor((width - 24 + CELL.gap) / step);
  return cells.map((kind, place) => {
    const [x, y] = [12 + (place % across) * step, top + Math.floor(place / across) * step];
    const end = CELL.size;
    const shapes = {
      good: `M${x} ${y}h${end}v${end}h${-end}z`,
      waiting: `M${x + 1} ${y + 1}h${end - 2}v${end - 2}h${2 - end}z`,
      bad: `M${x} ${y}l${end} ${end}M${x + end} ${y}l${-end} ${end}`,
    };
    return drawn("path", { class: `cell ${kind}`, d: shapes[kind] });
  });
}

function drawMark({ text, kind }, width) {
  return [
    drawn("circle", { class: `mark ${kind}`, cx: width, cy: 0, r: 12 }),
    drawn("text", { class: "mark-text", x: width, y: 4.5, "text-anchor": "middle" }, text),
  ];
}

function drawHub(group, { x, y, width, height, title, faint, way }) {
  set(group, {
    class: `hub${faint ? " away" : ""}${way ? " way" : ""}`,
    transform: `translate(${x - width / 2} ${y - height / 2})`,
  });
  group.replaceChildren(
    drawn("title", {}, `Network ${title}`),
    drawn("rect", { class: "sheet", width, height, rx: height / 2 }),
    words(title, { class: "name", x: width / 2, y: height / 2 + 4.5, "text-anchor": "middle" }, width - 12),
  );
}

function drawLine(group, { from, to, bend = 0, level, width, dashes, label, along, title, way, faint }) {
  const [x, y] = [(from[0] + to[0]) / 2, (from[1] + to[1]) / 2];
  const length = Math.hypot(to[0] - from[0], to[1] - from[1]) || 1;
  const control = [x - (bend * (to[1] - from[1])) / length, y + (bend * (to[0] - from[0])) / length];
  const path = `M${from}Q${control} ${to}`;
  set(group, { class: `${faint ? "away" : ""}` });
  const parts = [drawn("title", {}, title)];
  if (way) parts.push(drawn("path", { class: `way-line ${way}`, d: path }));
  parts.push(
    drawn("path", { class: `line ${level}`, d: path, "stroke-width": width, "stroke-dasharray": dashes || null }),
  );
  if (label) {
    const [a, b, c] = [(1 - along) ** 2, 2 * along * (1 - along), along ** 2];
    const at = [0, 1].map((axis) => a * from[axis] + b * control[axis] + c * to[axis]);
    parts.push(drawn("text", { class: "label", x: at[0], y: at[1] + 4, "text-anchor": "middle" }, label));
  }
  group.replaceChildren(...parts);
}
