// A large topology in parts that a person can look at: nodes with the same label, or of one network, fifty at a time.

import { homesOf, natural } from "./layout.js";

// More nodes than that are shown in groups.
export const LARGE = 60;
const PART = 50;
// Labels that say where a node is, the finest first.
const PLACES = ["topology.kubernetes.io/rack", "rack", "topology.kubernetes.io/zone", "zone"];
export const NETWORK = "network";

// By what nodes may be put in groups: network, and labels that some of them share.
export function waysToGroup(nodes) {
  const values = new Map();
  for (const node of nodes) {
    for (const [key, value] of Object.entries(node.labels ?? {})) {
      if (!values.has(key)) values.set(key, new Set());
      values.get(key).add(value);
    }
  }
  const shared = [...values].filter(([, each]) => each.size > 1 && each.size <= nodes.length / 2).map(([key]) => key);
  return [NETWORK, ...shared.sort(natural)];
}

export function usualWay(nodes) {
  const ways = waysToGroup(nodes);
  return PLACES.find((key) => ways.includes(key)) ?? NETWORK;
}

// Groups by name, each with its nodes, in the order of their names.
export function groupsOf({ nodes, networks, links }, way) {
  const homes = way === NETWORK ? homesOf(networks, links) : null;
  const found = new Map();
  for (const node of nodes) {
    const name = homes ? (homes.get(node.name) ?? "no network") : (node.labels?.[way] ?? `no ${way}`);
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(node);
  }
  const groups = new Map();
  for (const [name, members] of [...found].sort((a, b) => natural(a[0], b[0]))) {
    members.sort((a, b) => natural(a.name, b.name));
    if (members.length <= LARGE) groups.set(name, members);
    else
      for (let at = 0; at < members.length; at += PART) {
        const part = members.slice(at, at + PART);
        groups.set(`${name}: ${part[0].name} to ${part.at(-1).name}`, part);
      }
  }
  return groups;
}

// A topology of these nodes alone, with their networks and the links that they have; the ends of wires that leave are
// left out.
export function partOf(topology, members) {
  const names = new Set(members.map((node) => node.name));
  const links = topology.links.filter(({ from, to, kind }) => names.has(from) && (kind !== "wire" || names.has(to)));
  const used = new Set(links.map((link) => link.to));
  return { nodes: members, networks: topology.networks.filter((each) => used.has(each.name)), links };
}
