// A view that is one list. The server gives it a page at a time. What is in the filter is looked for in all of it: by
// the server where it says a field (status!=Ready), here where it is any other word.

import { Refused, ask, query } from "./api.js";
import { button, element, field } from "./elements.js";
import { Follower } from "./follower.js";
import { PAGE, Table } from "./table.js";
import { count, text } from "./words.js";

// Rows that are asked for at a time where words are looked for, and how many are enough.
const STRIDE = 1000;
const ENOUGH = 500;
// Changes that are said one by one; more are counted.
const SAID = 3;

// `parameters` are asked with all else. `paged`: the API gives it in pages, and chooses by fields. `rates` asks for what
// is shown beside, as it takes a second: { ask(signal), add(row, found) }. `behind` makes what is opened below a row,
// which has a `load(signal)` itself. `followed`: changes are heard of at once, where all is on one page. `news` is what
// is said of a row that was another one before, or wasn't there. `newestFirst`: the API has the newest last.
export function listView(
  {
    title,
    about,
    path,
    parameters = {},
    columns,
    keyOf,
    every = 10,
    paged = true,
    namespaced = false,
    followed = true,
    newestFirst = false,
    rates,
    behind,
    news,
  },
  page,
) {
  const table = new Table(columns, { label: title, keyOf, behind });
  const filter = element("input", {
    id: "filter",
    type: "search",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: paged ? "words, or status!=Ready" : "words",
  });
  const namespace = element("input", { id: "namespace", type: "search", autocomplete: "off", spellcheck: "false" });
  const told = element("span", { id: "count", class: "faint", role: "status" });
  const note = element("span", { class: "faint" });
  const bar = element(
    "div",
    { class: "bar" },
    element("label", { for: "filter" }, "Filter"),
    filter,
    ...(namespaced ? [field("Namespace", namespace)] : []),
    button("Refresh", page.reload, { id: "refresh" }),
    told,
    note,
  );
  const previous = button("Previous page", () => turn(-1));
  const next = button("Next page", () => turn(1));
  const place = element("span", { class: "faint", id: "place" });
  const pager = element("div", { class: "bar", hidden: true }, previous, place, next);
  // Where pages begin that have been seen, and which is shown.
  let starts = [""];
  let at = 0;
  let answer = null;
  // All rows, where one page has them all; else null.
  let whole = null;
  let rated = null;
  const follower = new Follower(page.again);
  let known = null;

  function chosen() {
    const parts = filter.value.trim().split(/\s+/).filter(Boolean);
    const isField = (part) => paged && part.includes("=");
    return {
      fields: parts.filter(isField).join(","),
      words: parts.filter((part) => !isField(part)).map((part) => part.toLowerCase()),
    };
  }

  function matches(row, words) {
    if (!words.length) return true;
    const all = columns
      .map(([, key]) => text(row[key]))
      .join(" ")
      .toLowerCase();
    return words.every((word) => all.includes(word));
  }

  function question(limit, start) {
    const { fields } = chosen();
    return paged
      ? `${path}${query({ ...parameters, limit, continue: start, fieldSelector: fields, namespace: namespace.value.trim() })}`
      : path;
  }

  async function load(signal) {
    const { words } = chosen();
    if (words.length && !(whole && at === 0)) await find(words, signal);
    else {
      try {
        answer = await ask(question(PAGE, starts[at]), signal);
      } catch (error) {
        // A place in the list that isn't known any more: from the start.
        if (at === 0 || !(error instanceof Refused)) throw error;
        first();
        answer = await ask(question(PAGE, ""), signal);
      }
      if (answer.continue) starts[at + 1] = answer.continue;
      else starts.length = at + 1;
      if (newestFirst) answer.items.reverse();
      whole = starts.length === 1 ? answer.items : null;
      show();
      tellNews();
    }
    // Where all is on one page, changes are heard of.
    follower.follow(followed && whole ? question("", "") : null);
    await Promise.all(table.opened.map((each) => each.load?.(signal)));
    if (rates) addRates(signal);
  }

  function tellNews() {
    if (!news || !whole) return;
    const now = new Map(whole.map((row) => [keyOf(row), row]));
    const said = known ? [...now].map(([key, row]) => news(row, known.get(key))).filter(Boolean) : [];
    if (said.length > SAID) page.say(`${said.length} changes in ${title}`);
    else if (said.length) page.say(said.join(". "));
    known = now;
  }

  function first() {
    starts = [""];
    at = 0;
    table.first();
  }

  function show() {
    const { words } = chosen();
    const rows = answer.items;
    if (rated) rows.forEach((row) => rates.add(row, rated));
    const matching = rows.filter((row) => matches(row, words));
    if (whole) {
      pager.hidden = true;
      const all = chosen().fields || namespace.value.trim() ? "found" : "in all";
      tell(
        matching.length === rows.length
          ? `${count(rows.length)} ${all}`
          : `${count(matching.length)} of ${count(rows.length)}`,
      );
      table.show(matching);
      return;
    }
    const from = at * PAGE;
    const all = answer.remaining === undefined ? "" : ` of ${count(from + rows.length + answer.remaining)}`;
    tell(answer.remaining === undefined ? "more than one page" : `${all.slice(4)} in all`);
    place.textContent = rows.length
      ? `${count(from + 1)} to ${count(from + rows.length)}${at + 1 < starts.length ? all : ""}`
      : "nothing more";
    pager.hidden = false;
    previous.disabled = at === 0;
    next.disabled = at + 1 >= starts.length;
    table.fill(rows);
    table.pager.hidden = true;
  }

  // Look for words in all pages, until there are enough.
  async function find(words, signal) {
    const found = [];
    let seen = 0;
    for (let start = ""; ;) {
      const part = await ask(question(STRIDE, start), signal);
      seen += part.items.length;
      found.push(...part.items.filter((row) => matches(row, words)));
      start = part.continue;
      if (!start || found.length >= ENOUGH) {
        tell(start ? `the first ${count(found.length)}: say more words` : `${count(found.length)} of ${count(seen)}`);
        break;
      }
      tell(`${count(found.length)} found, ${count(seen)} looked at …`);
    }
    if (rated) found.forEach((row) => rates.add(row, rated));
    pager.hidden = true;
    table.show(found);
  }

  function tell(words) {
    if (told.textContent !== words) told.textContent = words;
  }

  async function addRates(signal) {
    try {
      rated = await rates.ask(signal);
      note.textContent = "";
      if (whole || !chosen().words.length) show();
    } catch (error) {
      if (error.name !== "AbortError") note.textContent = `Rates aren't known: ${error.message}`;
    }
  }

  function turn(by) {
    at += by;
    table.scroll.scrollTop = 0;
    page.reload();
  }

  let timer = 0;
  filter.addEventListener("input", () => {
    table.first();
    if (whole && !chosen().fields && !filter.asked) {
      show();
      return;
    }
    // Asked once the typing has paused.
    filter.asked = Boolean(chosen().fields);
    first();
    whole = null;
    clearTimeout(timer);
    timer = setTimeout(page.reload, 250);
  });
  namespace.addEventListener("change", () => {
    first();
    whole = null;
    page.reload();
  });

  return {
    title,
    about,
    parts: [bar, ...table.parts, ...(paged ? [pager] : [])],
    load,
    // All pages aren't gone through again and again.
    get every() {
      return chosen().words.length && !whole ? 0 : every;
    },
    pause: () => follower.follow(null),
    close() {
      clearTimeout(timer);
      follower.close();
    },
  };
}
