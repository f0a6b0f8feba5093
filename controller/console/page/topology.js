// How nodes are connected, and what links carry: a drawing, and the same in tables. A large one is shown in groups.

import { ask } from "./api.js";
import { Drawing } from "./drawing.js";
import { choice, element, field } from "./elements.js";
import { LARGE, groupsOf, partOf, usualWay, waysToGroup } from "./groups.js";
import { scene, tiles } from "./scene.js";
import { legend, wordsOf } from "./load.js";
import { Table } from "./table.js";
import { bits, plural } from "./words.js";

// Changes that are said one by one; more are counted.
const SAID = 3;
// Seconds between two looks at a small topology, and at one in groups, which is more to tell.
const EVERY = 5;
const EVERY_GROUPED = 15;

const NODES = [
  ["Node", "name", { link: (row) => `topology?node=${encodeURIComponent(row.name)}` }],
  ["Status", "status", { state: true }],
  ["Addresses", "addresses"],
  ["Pod CIDRs", "podCIDRs"],
  ["Pods", "pods", { number: true }],
];
const LINKS = [
  ["From", "from"],
  ["Port", "fromPort"],
  ["To", "to"],
  ["Port", "toPort"],
  ["Kind", "kind"],
  ["State", "state", { state: true }],
  ["Sends", "txBitsPerSecond", { words: bits }],
  ["Receives", "rxBitsPerSecond", { words: bits }],
  ["Load", "load", { words: (load) => `${(100 * load).toFixed(1)} %` }],
];

export function topologyView({ words, given }, page) {
  const group = words[0] ?? "";
  let way = given.get("by") ?? "";
  let chosen = given.get("node") ?? "";
  let topology = null;
  let measured = false;
  const drawing = new Drawing("Topology", pick);
  const details = element("aside", { class: "details", "aria-label": "Details" });
  const summary = element("p", { id: "summary" });
  const bar = element("div", { class: "bar" });
  const nodes = new Table(NODES, { label: "Nodes", keyOf: (row) => row.name });
  const links = new Table(LINKS, {
    label: "Links",
    keyOf: (row) => `${row.from} ${row.fromPort} ${row.to} ${row.toPort}`,
  });
  const tables = element(
    "details",
    {},
    element("summary", {}, "The same as tables"),
    element("h2", {}, "Nodes"),
    ...nodes.parts,
    element("h2", {}, "Links"),
    ...links.parts,
  );
  const parts = [
    bar,
    summary,
    legend(),
    element("div", { class: "beside" }, element("div", { class: "main-part" }, ...drawing.parts), details),
    tables,
  ];

  async function load(signal) {
    // What there is is shown at once; what it carries takes a second to measure.
    const before = topology;
    const first = topology === null;
    topology = await ask(first ? "topology" : "topology?load=1", signal);
    measured = !first;
    if (first) open();
    show();
    if (before) tellChanges(before.nodes, topology.nodes);
  }

  // What is chosen once: groups or not, and by what.
  function open() {
    if (topology.nodes.length <= LARGE) return;
    const ways = waysToGroup(topology.nodes);
    if (!ways.includes(way)) way = usualWay(topology.nodes);
    const select = choice(
      "by",
      ways.map((each) => [each, each]),
      way,
    );
    select.addEventListener("change", () => {
      location.hash = `#/topology?by=${encodeURIComponent(select.value)}`;
    });
    bar.append(field("Groups by", select));
    if (group || chosen) bar.append(element("a", { href: `#/topology?by=${encodeURIComponent(way)}` }, "All groups"));
  }

  function show() {
    const groups = topology.nodes.length > LARGE ? groupsOf(topology, way) : null;
    let part = topology;
    if (groups) {
      const members =
        groups.get(group) ?? [...groups.values()].find((each) => each.some(({ name }) => name === chosen));
      part = members ? partOf(topology, members) : null;
    }
    drawing.show(part ? scene(part, { chosen }) : tiles(groups, topology));
    const seen = part ?? topology;
    const states = Object.entries(Object.groupBy(seen.nodes, (node) => node.status)).map(
      ([state, some]) => `${some.length} ${state}`,
    );
    const counts = [
      `${plural(seen.nodes.length, "node")} (${states.join(", ") || "none"})`,
      plural(seen.networks.length, "network"),
      plural(seen.links.length, "link"),
    ];
    const choose = part ? "" : ` ${groups.size} groups: choose one to see its nodes and links.`;
    summary.textContent = `${counts.join(", ")}.${choose}`;
    nodes.show(seen.nodes);
    links.show(seen.links);
    details.hidden = part === null;
    showDetails();
  }

  function pick(key) {
    const isNode = topology.nodes.some(({ name }) => name === key);
    if (!isNode) {
      location.hash = `#/topology/${encodeURIComponent(key)}?by=${encodeURIComponent(way)}`;
      return;
    }
    chosen = chosen === key ? "" : key;
    show();
    const node = topology.nodes.find(({ name }) => name === chosen);
    page.say(node ? `${node.name} is chosen: ${node.status}, ${plural(node.pods, "pod")}` : "Nothing is chosen");
  }

  function showDetails() {
    const node = topology.nodes.find(({ name }) => name === chosen);
    const now = JSON.stringify(
      node ? [node, topology.links.filter(({ from, to }) => from === chosen || to === chosen)] : null,
    );
    if (details.shown === now) return;
    details.shown = now;
    if (!node) {
      details.replaceChildren(
        element(
          "p",
          { class: "faint" },
          "Choose a node to see what it is linked to. Arrow keys go from one to another.",
        ),
      );
      return;
    }
    const facts = [
      ["Status", node.status],
      ["Addresses", node.addresses.join(", ")],
      ["Pod CIDRs", node.podCIDRs.join(", ")],
      ["Pods", node.pods],
    ];
    const its = topology.links.filter(({ from, to }) => from === chosen || to === chosen);
    details.replaceChildren(
      element("h2", {}, node.name),
      element(
        "dl",
        {},
        ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value) || "–")]),
      ),
      element("h3", {}, plural(its.length, "link")),
      element("ul", {}, ...its.map((link) => element("li", {}, wordsOf(link)))),
      element(
        "p",
        {},
        element("a", { href: `#/nodes/${encodeURIComponent(node.name)}/flows` }, "Its flows"),
        " · ",
        element("a", { href: `#/trace?from=${encodeURIComponent(`node/${node.name}`)}` }, "Trace from it"),
      ),
    );
  }

  function tellChanges(before, after) {
    const old = new Map(before.map((node) => [node.name, node.status]));
    const changed = after.filter((node) => old.get(node.name) !== node.status);
    if (changed.length > SAID) page.say(`${changed.length} nodes have changed their state`);
    else if (changed.length) page.say(changed.map((node) => `${node.name} is ${node.status}`).join(", "));
  }

  return {
    title: group ? `Topology: ${group}` : "Topology",
    about: "How nodes are connected, and what their links carry. Looked at anew by itself.",
    parts,
    load,
    get every() {
      return !measured ? 0.1 : topology.nodes.length > LARGE ? EVERY_GROUPED : EVERY;
    },
  };
}
