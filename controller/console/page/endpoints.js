// The endpoints of a Service, with what all switches have counted of them, below its row.

import { ask, query } from "./api.js";
import { element } from "./elements.js";
import { Table } from "./table.js";

const COLUMNS = [
  ["Port", "port"],
  ["Address", "address"],
  ["Status", "status", { state: true }],
  ["Used", "used", { words: (used) => (used ? "yes" : "no") }],
  ["Pod", "pod"],
  ["Node", "node"],
  ["Zone", "zone"],
  ["Connections", "connections", { number: true }],
  ["Packets", "packets", { number: true }],
  ["Bytes", "bytes", { number: true }],
];

export function endpointsOf({ namespace, name }) {
  const table = new Table(COLUMNS, {
    label: `Endpoints of ${namespace}/${name}`,
    nested: true,
    keyOf: (row) => `${row.port} ${row.address}`,
  });
  const problem = element("p", { role: "status" });
  const made = element("div", {}, problem, ...table.parts);
  made.load = async (signal) => {
    try {
      const { items } = await ask(
        `endpoints${query({ namespace, fieldSelector: `name=${name}`, counters: 1 })}`,
        signal,
      );
      table.show(items);
      problem.textContent = items.length ? "" : "It has none.";
    } catch (error) {
      if (error.name !== "AbortError") problem.textContent = error.message;
    }
  };
  made.load();
  return made;
}
