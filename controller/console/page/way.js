// A trace on the drawing of the topology: which nodes it crosses, in which order, and by which links.

import { keyOf } from "./scene.js";

const KINDS = { Tunnel: ["overlay"], Routed: ["subnet", "routed"], Wire: ["wire"] };

// For each node that is crossed its places in the way, as a mark; where a packet is dropped, that.
export function marksOf({ visits, verdict }) {
  const marks = new Map();
  visits.forEach(({ node }, place) => {
    const before = marks.get(node)?.text;
    marks.set(node, { text: before ? `${before},${place + 1}` : `${place + 1}`, kind: "" });
  });
  for (const mark of marks.values()) mark.said = `place ${mark.text} of the way`;
  if (verdict !== "Delivered" && visits.length) {
    const mark = marks.get(visits.at(-1).node);
    marks.set(visits.at(-1).node, { text: "✕", kind: "bad", said: `${mark.said}, ${verdict.toLowerCase()} here` });
  }
  return marks;
}

// What is said in the boxes of the nodes that are crossed: where it comes from, and where it ends.
export function remarksOf({ visits, verdict, end }) {
  const remarks = new Map(visits.map(({ node }) => [node, []]));
  if (!visits.length) return remarks;
  remarks.get(visits[0].node).push(`from ${visits[0].enteredFrom.replace(/^pod /, "")}`);
  const last = visits.at(-1);
  const stop = last.steps.at(-1)?.table ?? "";
  const words =
    verdict === "Delivered"
      ? ({ Pod: `to ${end.name}`, Host: "to the host", World: "to the world" }[end.place] ?? "")
      : `${verdict.toLowerCase()} in ${stop}`;
  remarks.get(last.node).push(words);
  return remarks;
}

// The links between one node that is crossed and the next, by their keys.
export function waysOf({ visits, hops }, links) {
  const ways = new Map();
  hops.forEach(({ source, target, how }, place) => {
    const kinds = KINDS[how] ?? [];
    const some = links.filter((link) => kinds.includes(link.kind));
    if (how === "Wire") {
      const port = visits[place]?.left;
      const wires = some.filter(
        ({ from, to }) => (from === source && to === target) || (from === target && to === source),
      );
      const used = wires.find((link) => (link.from === source ? link.fromPort : link.toPort) === port) ?? wires[0];
      if (used) ways.set(keyOf(used), "way");
      return;
    }
    const networks = some.filter(({ from }) => from === source).map(({ to }) => to);
    const both = networks.find((network) => some.some(({ from, to }) => from === target && to === network));
    for (const link of some) if (link.to === both && [source, target].includes(link.from)) ways.set(keyOf(link), "way");
  });
  return ways;
}
