// How much a link carries, in words, and as a level that the style sheet has a colour and a pattern for.

import { element, drawn } from "./elements.js";
import { bits } from "./words.js";

// A level's name, and in the legend what it means, its line's width and dashes. Width and dashes tell levels and states
// apart where colours don't.
export const LEVELS = {
  unmeasured: ["not measured", 1.5, "2 4"],
  idle: ["idle", 1.5, ""],
  low: ["below half", 3, ""],
  some: ["half or more", 5, ""],
  high: ["four fifths or more", 8, ""],
  flow: ["speed not known: wider is more", 3, ""],
  unconfirmed: ["not confirmed", 2, "7 5"],
};

export function levelOf(link) {
  if (link.state !== "Up") return "unconfirmed";
  if (link.txBitsPerSecond === null || link.txBitsPerSecond === undefined) return "unmeasured";
  const most = Math.max(link.txBitsPerSecond, link.rxBitsPerSecond);
  if (link.load === null) return most > 0 ? "flow" : "idle";
  if (link.load < 0.01) return "idle";
  return link.load < 0.5 ? "low" : link.load < 0.8 ? "some" : "high";
}

export function widthOf(link, level) {
  if (level !== "flow") return LEVELS[level][1];
  const most = Math.max(link.txBitsPerSecond, link.rxBitsPerSecond);
  return Math.min(6, Math.max(1.5, 1.5 + 0.75 * (Math.log10(most) - 3)));
}

// What it carries, shortly; nothing where that is nothing.
export function labelOf(link) {
  const most = Math.max(link.txBitsPerSecond ?? 0, link.rxBitsPerSecond ?? 0);
  if (most === 0) return "";
  return link.load === null ? bits(most) : percent(link.load);
}

export function wordsOf(link) {
  const ports = [
    [link.from, link.fromPort],
    [link.to, link.toPort],
  ].map(([name, port]) => (port ? `${name} ${port}` : name));
  const carried =
    link.txBitsPerSecond === null || link.txBitsPerSecond === undefined
      ? "not measured"
      : `sends ${bits(link.txBitsPerSecond)}, receives ${bits(link.rxBitsPerSecond)}`;
  const part =
    link.load === null || link.load === undefined ? "" : `, ${percent(link.load)} of ${bits(link.speedBitsPerSecond)}`;
  return `${ports[0]} to ${ports[1]}: ${link.state}, ${carried}${part}`;
}

export const percent = (part) => `${(100 * part).toFixed(part < 0.0995 ? 1 : 0)} %`;

export function legend() {
  const items = Object.entries(LEVELS).map(([level, [words, width, dashes]]) =>
    element(
      "li",
      {},
      drawn(
        "svg",
        { width: 36, height: 12, "aria-hidden": "true" },
        drawn("line", {
          x1: 1,
          y1: 6,
          x2: 35,
          y2: 6,
          class: `line ${level}`,
          "stroke-width": width,
          "stroke-dasharray": dashes || null,
        }),
      ),
      words,
    ),
  );
  return element(
    "div",
    { class: "legend" },
    element("span", { class: "faint" }, "Links: "),
    element("ul", {}, ...items),
  );
}
