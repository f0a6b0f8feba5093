// What there is to look at: for each view its name in the address, its word in the navigation, and how it is opened.

import { listView } from "./list.js";
import { topologyView } from "./topology.js";
import { traceView } from "./trace.js";

const NAMESPACE = ["Namespace", "namespace"];
const named = (row) => `${row.kind ?? ""} ${row.namespace ?? ""}/${row.name}`;
const flowsOf = (row) => (row.status === "Disconnected" ? "" : `nodes/${encodeURIComponent(row.name)}/flows`);

const NODES = {
  title: "Nodes",
  about: "Every node, and whether its switch has what it should have.",
  path: "nodes",
  keyOf: named,
  columns: [
    ["Name", "name", { link: flowsOf, linkName: (row) => `Flows of ${row.name}` }],
    ["Status", "status", { state: true }], ["Addresses", "addresses"], ["Pod CIDRs", "podCIDRs"],
    ["Pods", "pods", { number: true }], ["Flows", "flows", { number: true }], ["Refused", "refused", { number: true }],
    ["Repaired", "repaired", { number: true }],
  ],
};

const PODS = {
  title: "Pods",
  about: "Every pod and workload, and whether its flows are in its node's switch.",
  path: "pods",
  keyOf: named,
  columns: [
    NAMESPACE, ["Name", "name"], ["Status", "status", { state: true }], ["Addresses", "addresses"],
    ["Node", "node"], ["Port", "portNumber", { number: true }], ["Reason", "reason"],
  ],
};

const SERVICES = {
  title: "Services",
  about: "Every Service, with its addresses and how many endpoints are used.",
  path: "services",
  keyOf: named,
  columns: [
    NAMESPACE, ["Name", "name"], ["Type", "type"], ["Cluster IPs", "clusterIPs"], ["External IPs", "externalIPs"],
    ["Ports", "ports"], ["Endpoints", "endpoints", { number: true }], ["Reason", "reason"],
  ],
};

const POLICIES = {
  title: "Policies",
  about: "Every policy, the pods it selects, and its rules in words.",
  path: "policies",
  keyOf: named,
  columns: [
    NAMESPACE, ["Kind", "kind"], ["Name", "name"], ["Subjects", "subjects"], ["Pods", "pods", { number: true }],
    ["Ingress", "ingress"], ["Egress", "egress"], ["Reason", "reason"],
  ],
};

const FLOWS = [
  ["Table", "table"], ["Priority", "priority", { number: true }], ["Packets", "packets", { number: true }],
  ["Object", "object", { shape: "plain" }], ["What it does", "words", { shape: "words" }],
];

function flowsView(node, page) {
  const about = "Flows as this node's switch has them now, in the order in which packets meet them.";
  const path = `nodes/${encodeURIComponent(node)}/flows`;
  return listView({ title: `Flows of ${node}`, about, path, columns: FLOWS }, page);
}

const nodesView = ({ words }, page) =>
  words[0] && words[1] === "flows" ? flowsView(words[0], page) : listView(NODES, page);

export const VIEWS = {
  nodes: { nav: "Nodes", open: nodesView },
  pods: { nav: "Pods", open: (_, page) => listView(PODS, page) },
  services: { nav: "Services", open: (_, page) => listView(SERVICES, page) },
  policies: { nav: "Policies", open: (_, page) => listView(POLICIES, page) },
  topology: { nav: "Topology", open: topologyView },
  trace: { nav: "Trace", open: traceView },
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
