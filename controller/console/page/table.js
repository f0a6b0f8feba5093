// A table that is changed in place, a page at a time, so that a list of any length is shown at once and what has the
// focus keeps it.
//
// A column is [heading, key of the row, more]; `more` may say that it is a number, a state, how its value is written
// (`words`), where it leads (`link`) with what name (`linkName`), that it opens what is behind a row (`opens`: the name
// of that), and its `shape` (a class of the style sheet).

import { arrange, button, element } from "./elements.js";
import { count, quality, text } from "./words.js";

export const PAGE = 100;

export class Table {
  #lines = new Map();
  #first = 0;
  #rows = [];
  #opened = new Map();

  // `keyOf` tells one row from another; without it rows are told by their place. `behind` makes what is opened below a
  // row. `nested`: inside another table.
  constructor(columns, { label, keyOf, behind, nested = false } = {}) {
    Object.assign(this, { columns, keyOf, behind });
    this.head = element(
      "tr",
      {},
      ...columns.map(([heading, , more = {}]) =>
        element("th", { scope: "col", class: more.number ? "number" : more.shape === "rate" ? "rate" : null }, heading),
      ),
    );
    this.body = element("tbody");
    const table = element("table", { "aria-label": label }, element("thead", {}, this.head), this.body);
    this.scroll = nested
      ? table
      : element("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, table);
    this.previous = button("Previous page", () => this.turn(-1));
    this.next = button("Next page", () => this.turn(1));
    this.page = element("span", { class: "faint" });
    this.pager = element("div", { class: "bar", hidden: true }, this.previous, this.page, this.next);
    this.parts = [this.scroll, this.pager];
  }

  show(rows) {
    this.#rows = rows;
    this.#first = Math.min(this.#first, Math.max(0, Math.floor((rows.length - 1) / PAGE) * PAGE));
    const part = rows.slice(this.#first, this.#first + PAGE);
    this.fill(part);
    this.pager.hidden = rows.length <= PAGE;
    this.page.textContent = `${this.#first + 1} to ${this.#first + part.length} of ${count(rows.length)}`;
    this.previous.disabled = this.#first === 0;
    this.next.disabled = this.#first + PAGE >= rows.length;
  }

  // These rows and no others.
  fill(rows) {
    const lines = new Map();
    const all = [];
    rows.forEach((row, place) => {
      let key = this.keyOf ? this.keyOf(row) : place;
      while (lines.has(key)) key = `${key}'`;
      const line = this.#lines.get(key) ?? element("tr");
      line.row = row;
      this.#write(line, row, key);
      lines.set(key, line);
      all.push(line);
      if (this.#opened.has(key)) all.push(this.#opened.get(key));
    });
    this.#lines = lines;
    arrange(this.body, all);
  }

  // What is open below rows that are shown.
  get opened() {
    return [...this.#opened].filter(([key]) => this.#lines.has(key)).map(([, line]) => line.cells[0].firstChild);
  }

  #open(key, opener) {
    const line = this.#lines.get(key);
    if (this.#opened.has(key)) {
      this.#opened.get(key).remove();
      this.#opened.delete(key);
    } else {
      const behind = element(
        "tr",
        { class: "behind" },
        element("td", { colspan: this.columns.length }, this.behind(line.row)),
      );
      this.#opened.set(key, behind);
      line.after(behind);
    }
    opener.setAttribute("aria-expanded", String(this.#opened.has(key)));
  }

  first() {
    this.#first = 0;
  }

  turn(by) {
    this.#first = Math.max(0, this.#first + by * PAGE);
    this.show(this.#rows);
    this.scroll.scrollTop = 0;
  }

  #write(line, row, name) {
    this.columns.forEach(([, key, more = {}], place) => {
      const value = more.words && row[key] !== null && row[key] !== undefined ? more.words(row[key], row) : row[key];
      const words = more.number && typeof value === "number" ? count(value) : text(value);
      const target = more.link ? more.link(row) : "";
      const said = `${words}\n${target}`;
      const before = line.children[place];
      if (before?.said === said) return;
      const made = before ?? element(key === "name" ? "th" : "td", { scope: key === "name" ? "row" : null });
      made.said = said;
      made.className = more.number ? "number" : (more.shape ?? "");
      if (target)
        made.replaceChildren(element("a", { href: `#/${target}`, "aria-label": more.linkName?.(row) }, words));
      else if (more.opens) this.#writeOpener(made, words, more.opens(row), name);
      else if (more.state) made.replaceChildren(element("span", { class: `state ${quality(words)}` }, words));
      else made.textContent = words;
      if (!before) line.append(made);
    });
  }

  #writeOpener(cell, words, name, key) {
    if (cell.firstChild) {
      cell.firstChild.textContent = words;
      return;
    }
    const opener = button(words, () => this.#open(key, opener), {
      class: "opener",
      "aria-expanded": "false",
      "aria-label": name,
    });
    cell.append(opener);
  }
}
