// What there is to look at: for each view its name in the address, its word in the navigation, and how it is opened.

import { endpointsOf } from "./endpoints.js";
import { listView } from "./list.js";
import { matrixView } from "./matrix.js";
import { topologyView } from "./topology.js";
import { traceView } from "./trace.js";
import { nodeRates, serviceRates } from "./rates.js";
import { bits, short } from "./words.js";

const NAMESPACE = ["Namespace", "namespace"];
const named = (row) => `${row.kind ?? ""} ${row.namespace ?? ""}/${row.name}`;
const perSecond = (number) => `${short(number)}/s`;
const flowsOf = (row) => (row.status === "Disconnected" ? "" : `nodes/${encodeURIComponent(row.name)}/flows`);

const stateWords = (status, row) => (row.drained ? `${status}, drained` : status);
const stateNews = (row, before) => (before && before.status !== row.status ? `${row.name} is ${row.status}` : "");
const traceFrom = (row) =>
  row.kind === "Pod" ? `trace?from=${encodeURIComponent(`${row.namespace}/${row.name}`)}` : "";
const traceTo = ({ namespace, name, ports }) =>
  `trace?to=${encodeURIComponent(`${namespace}/svc/${name}`)}&port=${parseInt(ports[0], 10) || ""}`;

const NODES = {
  title: "Nodes",
  about: "Every node, and whether its switch has what it should have.",
  path: "nodes",
  keyOf: named,
  rates: nodeRates,
  news: stateNews,
  columns: [
    ["Name", "name", { link: flowsOf, linkName: (row) => `Flows of ${row.name}` }],
    ["Status", "status", { state: true, words: stateWords }],
    ["Addresses", "addresses"],
    ["Pod CIDRs", "podCIDRs"],
    ["Pods", "pods", { number: true }],
    ["Flows", "flows", { number: true }],
    ["Receives", "rxBitsPerSecond", { words: bits, shape: "rate" }],
    ["Sends", "txBitsPerSecond", { words: bits, shape: "rate" }],
    ["Drops", "droppedPerSecond", { words: perSecond, shape: "rate" }],
    ["Refused", "refused", { number: true }],
    ["Repaired", "repaired", { number: true }],
    ["Agent", "agent", { state: true }],
  ],
};

const PODS = {
  title: "Pods",
  about: "Every pod and workload, and whether its flows are in its node's switch.",
  path: "pods",
  keyOf: named,
  namespaced: true,
  columns: [
    NAMESPACE,
    ["Name", "name", { link: traceFrom, linkName: (row) => `Trace from ${row.namespace}/${row.name}` }],
    ["Status", "status", { state: true }],
    ["Addresses", "addresses"],
    ["Node", "node"],
    ["Port", "portNumber", { number: true }],
    ["Reason", "reason"],
  ],
};

const SERVICES = {
  title: "Services",
  about: "Every Service, with its addresses and how many endpoints are used.",
  path: "services",
  keyOf: named,
  namespaced: true,
  rates: serviceRates,
  behind: endpointsOf,
  columns: [
    NAMESPACE,
    ["Name", "name", { link: traceTo, linkName: (row) => `Trace to Service ${row.namespace}/${row.name}` }],
    ["Type", "type"],
    ["Cluster IPs", "clusterIPs"],
    ["External IPs", "externalIPs"],
    ["Ports", "ports"],
    ["Endpoints", "endpoints", { opens: (row) => `Endpoints of ${row.namespace}/${row.name}` }],
    ["Connections", "connectionsPerSecond", { words: perSecond, shape: "rate" }],
    ["Carries", "bitsPerSecond", { words: bits, shape: "rate" }],
    ["Reason", "reason"],
  ],
};

const POLICIES = {
  title: "Policies",
  about: "Every policy, the pods it selects, and its rules in words.",
  path: "policies",
  // Which pods they are isn't shown, and may be all: then they would be other ones all the time, too.
  parameters: { names: 0 },
  followed: false,
  keyOf: named,
  namespaced: true,
  columns: [
    NAMESPACE,
    ["Kind", "kind"],
    ["Name", "name"],
    ["Subjects", "subjects"],
    ["Pods", "pods", { number: true }],
    ["Ingress", "ingress"],
    ["Egress", "egress"],
    ["Reason", "reason"],
  ],
};

const EVENTS = {
  title: "Events",
  about: "What has happened of late, the newest first. Kept by the controller until it ends.",
  path: "events",
  keyOf: (row) => row.number,
  paged: false,
  newestFirst: true,
  every: 30,
  news: (row, before) =>
    before ? "" : `${row.type === "Warning" ? "Warning: " : ""}${row.reason} ${row.object} ${row.message}`,
  columns: [
    ["Time (UTC)", "time", { shape: "plain", words: (time) => time.replace("T", " ").replace("Z", "") }],
    ["Type", "type", { state: true }],
    ["Reason", "reason"],
    ["Object", "object", { shape: "plain" }],
    ["Node", "node"],
    ["Message", "message", { shape: "words" }],
    ["Count", "count", { number: true }],
  ],
};

const FLOWS = [
  ["Table", "table"],
  ["Priority", "priority", { number: true }],
  ["Packets", "packets", { number: true }],
  ["Object", "object", { shape: "plain" }],
  ["What it does", "words", { shape: "words" }],
];

function flowsView(node, page) {
  const about = "Flows as this node's switch has them now, in the order in which packets meet them.";
  const path = `nodes/${encodeURIComponent(node)}/flows`;
  return listView(
    { title: `Flows of ${node}`, about, path, columns: FLOWS, paged: false, followed: false, every: 0 },
    page,
  );
}

const nodesView = ({ words }, page) =>
  words[0] && words[1] === "flows" ? flowsView(words[0], page) : listView(NODES, page);

export const VIEWS = {
  nodes: { nav: "Nodes", open: nodesView },
  pods: { nav: "Pods", open: (_, page) => listView(PODS, page) },
  services: { nav: "Services", open: (_, page) => listView(SERVICES, page) },
  policies: { nav: "Policies", open: (_, page) => listView(POLICIES, page) },
  matrix: { nav: "Matrix", open: matrixView },
  topology: { nav: "Topology", open: topologyView },
  trace: { nav: "Trace", open: traceView },
  events: { nav: "Events", open: (_, page) => listView(EVENTS, page) },
};

// What a fragment of the address names: #/VIEW/WORD/...?key=value. The first view where it names none.
export function placeOf(fragment) {
  const [path, parameters = ""] = fragment.replace(/^#\/?/, "").split("?", 2);
  const [name, ...words] = path.split("/");
  const known = Object.hasOwn(VIEWS, name);
  return {
    name: known ? name : Object.keys(VIEWS)[0],
    words: known ? words.map(unquoted) : [],
    given: new URLSearchParams(parameters),
  };
}

function unquoted(word) {
  try {
    return decodeURIComponent(word);
  } catch {
    return word;
  }
}
