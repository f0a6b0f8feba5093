// A view that is one list: its rows a page at a time, a filter, and what is counted beside.

import { ask } from "./api.js";
import { button, element } from "./elements.js";
import { Table } from "./table.js";
import { count, text } from "./words.js";

// `of` has a title, what it is about, the path to ask and the columns; `extra` asks for more that rows have, and adds it.
export function listView({ title, about, path, columns, keyOf, every = 10, extra }, page) {
  let rows = [];
  const table = new Table(columns, { label: title, keyOf });
  const filter = element("input", { id: "filter", type: "search", autocomplete: "off", spellcheck: "false" });
  const told = element("span", { id: "count", class: "faint", role: "status" });
  const bar = element("div", { class: "bar" },
    element("label", { for: "filter" }, "Filter"), filter, button("Refresh", page.reload, { id: "refresh" }), told);

  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const keys = columns.map(([, key]) => key);
    const matching = rows.filter((row) => {
      const all = keys.map((key) => text(row[key])).join(" ").toLowerCase();
      return words.every((word) => all.includes(word));
    });
    const known = count(rows.length);
    const said = matching.length === rows.length ? `${known} in all` : `${count(matching.length)} of ${known}`;
    if (told.textContent !== said) told.textContent = said;
    table.show(matching);
  }

  filter.addEventListener("input", () => { table.first(); show(); });
  async function load(signal) {
    const [answer, more] = await Promise.all([ask(path, signal), extra?.ask(signal)]);
    rows = answer.items;
    if (more) rows.forEach((row) => extra.add(row, more));
    show();
  }
  return { title, about, parts: [bar, ...table.parts], load, every };
}
