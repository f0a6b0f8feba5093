// What there is to look at: for each view where its rows come from, and its columns.
//
// A column is [heading, key of the row, more]; `more` may say that it is a number, a state, or where it leads, or its `shape` (a class of
// the style sheet).

const NAMESPACE = ["Namespace", "namespace"];
const flowsOf = (row) => (row.status === "Disconnected" ? "" : `nodes/${encodeURIComponent(row.name)}/flows`);

const LISTS = {
  nodes: {
    title: "Nodes",
    about: "Every node, and whether its switch has what it should have.",
    columns: [
      ["Name", "name", { link: flowsOf }], ["Status", "status", { state: true }], ["Addresses", "addresses"],
      ["Pod CIDRs", "podCIDRs"], ["Pods", "pods", { number: true }], ["Flows", "flows", { number: true }],
      ["Refused", "refused", { number: true }], ["Repaired", "repaired", { number: true }],
    ],
  },
  pods: {
    title: "Pods",
    about: "Every pod and workload, and whether its flows are in its node's switch.",
    columns: [
      NAMESPACE, ["Name", "name"], ["Status", "status", { state: true }], ["Addresses", "addresses"],
      ["Node", "node"], ["Port", "portNumber", { number: true }], ["Reason", "reason"],
    ],
  },
  services: {
    title: "Services",
    about: "Every Service, with its addresses and how many endpoints are used.",
    columns: [
      NAMESPACE, ["Name", "name"], ["Type", "type"], ["Cluster IPs", "clusterIPs"], ["External IPs", "externalIPs"],
      ["Ports", "ports"], ["Endpoints", "endpoints", { number: true }], ["Reason", "reason"],
    ],
  },
  policies: {
    title: "Policies",
    about: "Every policy, the pods it selects, and its rules in words.",
    columns: [
      NAMESPACE, ["Kind", "kind"], ["Name", "name"], ["Subjects", "subjects"], ["Pods", "pods", { number: true }],
      ["Ingress", "ingress"], ["Egress", "egress"], ["Reason", "reason"],
    ],
  },
};

const FLOWS = [
  ["Table", "table"], ["Priority", "priority", { number: true }], ["Packets", "packets", { number: true }],
  ["Object", "object", { shape: "plain" }], ["What it does", "words", { shape: "words" }],
];

export const NAMES = Object.keys(LISTS);
export const titleOf = (name) => LISTS[name].title;

// The view that a fragment of the address names; nodes where it names none.
export function viewOf(fragment) {
  const words = fragment.replace(/^#\/?/, "").split("/");
  if (words[0] === "nodes" && words[2] === "flows") {
    const path = `nodes/${words[1]}/flows`;
    let node = words[1];
    try { node = decodeURIComponent(node); } catch { /* shown as it is */ }
    const about = "Flows as this node's switch has them now, in the order in which packets meet them.";
    return { name: "nodes", path, title: `Flows of ${node}`, about, columns: FLOWS };
  }
  const name = NAMES.includes(words[0]) ? words[0] : NAMES[0];
  return { name, path: name, ...LISTS[name] };
}
