// What nodes and Services carry now: asked beside their lists, and put into their rows.

import { ask } from "./api.js";

async function top(kind, keyOf, signal) {
  const { items } = await ask(`top/${kind}`, signal);
  return new Map(items.map((each) => [keyOf(each), each]));
}

const name = (row) => row.name;
const full = (row) => `${row.namespace}/${row.name}`;

export const nodeRates = {
  ask: (signal) => top("nodes", name, signal),
  add(row, found) {
    const rates = found.get(name(row));
    // What a switch that is away carries isn't known.
    if (!rates || rates.rxBytesPerSecond === null) return;
    row.rxBitsPerSecond = 8 * rates.rxBytesPerSecond;
    row.txBitsPerSecond = 8 * rates.txBytesPerSecond;
    row.droppedPerSecond = rates.rxDroppedPerSecond + rates.txDroppedPerSecond;
  },
};

export const serviceRates = {
  ask: (signal) => top("services", full, signal),
  add(row, found) {
    const rates = found.get(full(row));
    if (!rates) return;
    row.connectionsPerSecond = rates.connectionsPerSecond;
    row.bitsPerSecond = 8 * rates.bytesPerSecond;
  },
};
