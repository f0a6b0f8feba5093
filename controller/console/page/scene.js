// What is drawn of a topology: boxes for nodes, hubs for networks, lines for links; or tiles for groups of nodes.

import { BOX, HUB, layout } from "./layout.js";
import { LEVELS, labelOf, levelOf, widthOf, wordsOf } from "./load.js";
import { plural, quality } from "./words.js";

// More links than that have no words on them.
const LABELLED = 32;
const TILE = { width: 216, height: 132, gap: 18 };
const WORST = ["unmeasured", "idle", "flow", "low", "some", "high"];
// Between two wires of the same nodes.
const BEND = 34;

// `marks` has for a node what is said at its corner, `remarks` what is in its box, `ways` for a link's key how it is
// lit; all else is faint then.
export function scene(topology, { chosen = "", marks = null, ways = null, remarks = null } = {}) {
  const { width, height, boxes, hubs } = layout(topology);
  const places = new Map([...boxes, ...hubs]);
  const lit = new Set(
    ways ? topology.links.filter((link) => ways.has(keyOf(link))).flatMap(({ from, to }) => [from, to]) : [],
  );
  return {
    width,
    height,
    boxes: topology.nodes.map((node) => box(node, boxes.get(node.name), { chosen, marks, remarks })),
    hubs: topology.networks.map(({ name }) => {
      const [x, y] = hubs.get(name);
      return { key: name, x, y, ...HUB, title: name, faint: ways !== null && !lit.has(name), way: lit.has(name) };
    }),
    lines: linesOf(topology.links, places, ways),
  };
}

export const keyOf = (link) => `${link.from} ${link.fromPort} ${link.to} ${link.toPort}`;

function box(node, [x, y], { chosen, marks, remarks }) {
  const mark = marks?.get(node.name);
  const remark = remarks?.get(node.name);
  const said = `${node.name}: ${node.status}, ${plural(node.pods, "pod")}${mark ? `, ${mark.said}` : ""}`;
  return {
    key: node.name,
    x,
    y,
    ...BOX,
    title: node.name,
    state: node.status,
    said,
    mark,
    lines: remark ?? [node.status, plural(node.pods, "pod")],
    faint: marks !== null && !mark,
    ...(marks ? {} : { picked: node.name === chosen }),
  };
}

function linesOf(links, places, ways) {
  const labelled = links.length <= LABELLED;
  const there = links.filter(({ from, to }) => places.has(from) && places.has(to) && from !== to);
  const pairs = Map.groupBy(there, pairOf);
  return there.map((link, place) => {
    const beside = pairs.get(pairOf(link));
    // From the same end of both, so that two wires never bend the same way.
    const side = link.from < link.to ? 1 : -1;
    const level = levelOf(link);
    const way = ways?.get(keyOf(link));
    return {
      key: keyOf(link),
      from: places.get(link.from),
      to: places.get(link.to),
      level,
      bend: side * BEND * 2 * (beside.indexOf(link) - (beside.length - 1) / 2),
      width: widthOf(link, level),
      dashes: LEVELS[level][2],
      label: labelled && (!ways || way) ? labelOf(link) : "",
      title: wordsOf(link),
      way,
      faint: Boolean(ways) && !way,
      // Words of lines that cross are at other heights.
      along: link.kind === "wire" ? 0.35 + 0.15 * (place % 3) : 0.4,
    };
  });
}

const pairOf = ({ from, to }) => [from, to].sort().join(" ");

// A tile for each group, in rows.
export function tiles(groups, topology) {
  const across = Math.max(1, Math.ceil(Math.sqrt(groups.size * 1.1)));
  const links = Map.groupBy(topology.links, (link) => link.from);
  const boxes = [...groups].map(([name, nodes], place) => {
    const its = nodes.flatMap((node) => links.get(node.name) ?? []);
    const level = its
      .map(levelOf)
      .reduce((worst, each) => (WORST.indexOf(each) > WORST.indexOf(worst) ? each : worst), "unmeasured");
    const bad = nodes.filter((node) => quality(node.status) === "bad").length;
    const waiting = nodes.filter((node) => quality(node.status) === "waiting").length;
    const well =
      [bad && `${bad} disconnected`, waiting && `${waiting} not in sync`].filter(Boolean).join(", ") || "all in sync";
    const pods = nodes.reduce((sum, node) => sum + node.pods, 0);
    return {
      key: name,
      x: (place % across) * (TILE.width + TILE.gap) + TILE.width / 2,
      y: Math.floor(place / across) * (TILE.height + TILE.gap) + TILE.height / 2,
      width: TILE.width,
      height: TILE.height,
      title: name.replace(/^.*: /, ""),
      level,
      lines: [`${plural(nodes.length, "node")}, ${plural(pods, "pod")}`, well],
      said: `${name}: ${plural(nodes.length, "node")}, ${well}, ${plural(pods, "pod")}, links: ${LEVELS[level][0]}`,
      cells: nodes.map((node) => quality(node.status)),
    };
  });
  const rows = Math.ceil(groups.size / across);
  return {
    width: Math.min(across, groups.size) * (TILE.width + TILE.gap) - TILE.gap,
    height: rows * (TILE.height + TILE.gap) - TILE.gap,
    boxes,
    hubs: [],
    lines: [],
  };
}
