// Where nodes and networks are in the drawing. Pure, and the same for the same topology, so that nothing moves about.
//
// Nodes that are wired to one another are in rows, from the edge of a fabric inward; rings are rings. The others are
// around the hub of the smallest network that they are on. Places are the middles of boxes.

export const BOX = { width: 150, height: 64 };
const GAP = { across: 26, down: 22, rows: 110, parts: 70 };
const HUB = { width: 120, height: 30 };
// Boxes of the innermost ring around a hub; each further one has so many more.
const RING = { first: 12, more: 8 };
const SWEEPS = 4;

const numbered = new Intl.Collator("en", { numeric: true });
// As people count: leaf-2 before leaf-10.
export const natural = (a, b) => numbered.compare(a, b);

// { width, height, boxes: Map(node -> [x, y]), hubs: Map(network -> [x, y]) }
export function layout({ nodes, networks, links }) {
  const names = nodes.map((node) => node.name).sort(natural);
  const wires = links.filter((link) => link.kind === "wire" && link.from !== link.to);
  const neighbours = neighboursOf(names, wires);
  const transit = new Set(nodes.filter((node) => node.transit).map((node) => node.name));
  const parts = components(names, neighbours).map((part) => wiredPart(part, neighbours, transit));
  const loose = names.filter((name) => neighbours.get(name).size === 0);
  for (const [network, members] of around(loose, networks, links)) parts.push(ringPart(members, network));
  const placed = arrange(parts);
  const spare = networks.map((each) => each.name).filter((name) => !placed.hubs.has(name));
  if (spare.length) above(placed, spare);
  return placed;
}

function neighboursOf(names, wires) {
  const found = new Map(names.map((name) => [name, new Set()]));
  for (const { from, to } of wires) {
    if (!found.has(from) || !found.has(to)) continue;
    found.get(from).add(to);
    found.get(to).add(from);
  }
  return found;
}

// The nodes that are joined by wires; the largest part first.
function components(names, neighbours) {
  const seen = new Set();
  const parts = [];
  for (const start of names) {
    if (seen.has(start) || neighbours.get(start).size === 0) continue;
    const part = walk(start, neighbours);
    part.forEach((name) => seen.add(name));
    parts.push(part);
  }
  return parts.sort((a, b) => b.length - a.length);
}

// All of a part, from neighbour to neighbour as long as there is one.
function walk(start, neighbours) {
  const seen = new Set([start]);
  const found = [];
  const waiting = [start];
  while (waiting.length) {
    const name = waiting.pop();
    found.push(name);
    const next = [...neighbours.get(name)].filter((other) => !seen.has(other)).sort(natural);
    next.reverse().forEach((other) => {
      seen.add(other);
      waiting.push(other);
    });
  }
  return found;
}

function wiredPart(names, neighbours, transit) {
  const degrees = names.map((name) => neighbours.get(name).size);
  const ends = names.filter((name) => neighbours.get(name).size === 1);
  if (Math.max(...degrees) <= 2 && ends.length && names.length <= 8) {
    return rowsPart([walk(ends.sort(natural)[0], neighbours)], 90);
  }
  let edge = names.filter((name) => !transit.has(name));
  if (edge.length === 0 || edge.length === names.length) {
    const fewest = Math.min(...degrees);
    edge = names.filter((name) => neighbours.get(name).size === fewest);
  }
  // A ring, or a mesh in which all are alike.
  if (edge.length === names.length) return ringPart(walk(names[0], neighbours), "");
  return rowsPart(ordered(layers(edge, neighbours), neighbours));
}

// Nodes by how far they are from the edge; the farthest first.
function layers(edge, neighbours) {
  const found = [[...edge].sort(natural)];
  const seen = new Set(edge);
  for (;;) {
    const next = new Set(
      found
        .at(-1)
        .flatMap((name) => [...neighbours.get(name)])
        .filter((name) => !seen.has(name)),
    );
    if (next.size === 0) return found.reverse();
    next.forEach((name) => seen.add(name));
    found.push([...next].sort(natural));
  }
}

// Neighbours near to one another: each node to the middle of its neighbours in the next row, to and fro.
function ordered(rows, neighbours) {
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const down = sweep % 2 === 0;
    const order = down ? rows.keys() : [...rows.keys()].reverse();
    for (const index of order) {
      const other = rows[index + (down ? -1 : 1)];
      if (!other) continue;
      const middle = new Map(
        rows[index].map((name, place) => {
          const near = [...neighbours.get(name)].map((each) => other.indexOf(each)).filter((each) => each >= 0);
          const own = (place + 0.5) / rows[index].length;
          return [name, near.length ? near.reduce((sum, at) => sum + at + 0.5, 0) / near.length / other.length : own];
        }),
      );
      rows[index].sort((a, b) => middle.get(a) - middle.get(b) || natural(a, b));
    }
  }
  return rows;
}

function rowsPart(rows, gap = GAP.across) {
  const across = Math.max(8, Math.ceil(Math.sqrt(2.2 * rows.flat().length)));
  const boxes = new Map();
  const longest = Math.min(across, Math.max(...rows.map((row) => row.length)));
  const width = longest * (BOX.width + gap) - gap;
  let y = BOX.height / 2;
  for (const row of rows) {
    for (let at = 0; at < row.length; at += across) {
      const some = row.slice(at, at + across);
      const step = width / some.length;
      some.forEach((name, place) => boxes.set(name, [step * (place + 0.5), y]));
      y += BOX.height + GAP.down;
    }
    y += GAP.rows - GAP.down;
  }
  return { width, height: y - GAP.rows - BOX.height / 2, boxes, hubs: new Map() };
}

// Nodes in rings around their network's hub.
function ringPart(names, network) {
  const rings = [];
  for (let at = 0, room = RING.first; at < names.length; at += room, room += RING.more) {
    if (rings.length) room = RING.first + RING.more * rings.length;
    rings.push(names.slice(at, at + room));
  }
  const boxes = new Map();
  // Without a hub there are lines from box to box, which need room.
  const wide = network ? 1 : 1.7;
  let right = 0;
  let down = 0;
  for (const ring of rings) {
    right = Math.max(
      right + (right ? BOX.width + GAP.across : BOX.width * 1.35 * wide),
      (ring.length * (BOX.width + GAP.across) * wide) / 6.28,
    );
    down = Math.max(
      down + (down ? BOX.height + GAP.down : BOX.height * 1.9 * wide),
      (ring.length * (BOX.height + GAP.down) * wide) / 6.28,
    );
    // Two are beside the hub, more begin above it.
    const start = ring.length === 2 ? Math.PI : -Math.PI / 2;
    ring.forEach((name, place) => {
      const angle = start + (2 * Math.PI * place) / ring.length;
      boxes.set(name, [right * Math.cos(angle), down * Math.sin(angle)]);
    });
  }
  return fitted({ boxes, hubs: network ? new Map([[network, [0, 0]]]) : new Map() });
}

// A part whose left upper corner is at 0, 0.
function fitted({ boxes, hubs }) {
  const edges = [
    ...[...boxes.values()].map(([x, y]) => [x, y, BOX.width / 2, BOX.height / 2]),
    ...[...hubs.values()].map(([x, y]) => [x, y, HUB.width / 2, HUB.height / 2]),
  ];
  const left = Math.min(...edges.map(([x, , half]) => x - half));
  const top = Math.min(...edges.map(([, y, , half]) => y - half));
  const moved = (places) => new Map([...places].map(([name, [x, y]]) => [name, [x - left, y - top]]));
  return {
    width: Math.max(...edges.map(([x, , half]) => x + half)) - left,
    height: Math.max(...edges.map(([, y, , half]) => y + half)) - top,
    boxes: moved(boxes),
    hubs: moved(hubs),
  };
}

// The nodes of each network's hub: a node is at the smallest of the networks that it is on.
function around(names, networks, links) {
  const homes = homesOf(networks, links);
  const found = new Map();
  for (const name of names) {
    const home = homes.get(name) ?? "";
    found.set(home, [...(found.get(home) ?? []), name]);
  }
  return [...found].sort((a, b) => natural(a[0], b[0]));
}

// For each node the smallest network that it is on.
export function homesOf(networks, links) {
  const sizes = new Map(networks.map((each) => [each.name, each.nodes]));
  const homes = new Map();
  for (const { from, to, kind } of links) {
    if (kind === "wire") continue;
    const before = homes.get(from);
    if (before === undefined || sizes.get(to) < sizes.get(before)) homes.set(from, to);
  }
  return homes;
}

// Parts beside one another as long as there is room, then below.
function arrange(parts) {
  const room = Math.max(
    ...parts.map((part) => part.width),
    2.4 * Math.sqrt(parts.reduce((sum, part) => sum + part.width * part.height, 0)),
  );
  const placed = { width: 0, height: 0, boxes: new Map(), hubs: new Map() };
  let [x, y, tallest] = [0, 0, 0];
  for (const part of parts) {
    if (x && x + part.width > room) [x, y, tallest] = [0, y + tallest + GAP.parts, 0];
    for (const [name, [right, down]] of part.boxes) placed.boxes.set(name, [x + right, y + down]);
    for (const [name, [right, down]] of part.hubs) placed.hubs.set(name, [x + right, y + down]);
    placed.width = Math.max(placed.width, x + part.width);
    tallest = Math.max(tallest, part.height);
    placed.height = Math.max(placed.height, y + tallest);
    x += part.width + GAP.parts;
  }
  return placed;
}

// The hubs of networks around which nobody is, in a row above all.
function above(placed, names) {
  const width = names.length * (HUB.width + GAP.across) - GAP.across;
  const down = HUB.height + GAP.rows;
  const right = Math.max(0, (width - placed.width) / 2);
  for (const places of [placed.boxes, placed.hubs]) {
    for (const [name, [x, y]] of places) places.set(name, [x + right, y + down]);
  }
  placed.width = Math.max(placed.width, width);
  placed.height += down;
  const step = placed.width / names.length;
  names.forEach((name, place) => placed.hubs.set(name, [step * (place + 0.5), HUB.height / 2]));
}

export { HUB };
