// The page: which view is shown, its rows a page at a time, the filter, the theme. Text of the API is only ever text.

import { ask, TokenNeeded, useToken } from "./api.js";
import { NAMES, titleOf, viewOf } from "./views.js";

// Rows that are in the page at a time, so that a list of any length is shown at once.
const PAGE = 100;
const GOOD = ["Synced", "Standby", "Ready", "HostNetwork"];
const BAD = ["Disconnected"];
const byId = (id) => document.getElementById(id);
const shown = { view: null, rows: [], matching: [], first: 0, question: null };

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function textOf(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (Array.isArray(value)) return value.length ? value.join(", ") : "–";
  return String(value);
}

function cell([, key, more = {}], row, isName) {
  const text = textOf(row[key]);
  const made = isName ? element("th", "", { scope: "row" }) : element("td");
  if (more.number) made.className = "number";
  else if (more.shape) made.className = more.shape;
  const target = more.link ? more.link(row) : "";
  if (target) made.append(element("a", text, { href: `#/${target}`, "aria-label": `Flows of ${text}` }));
  else if (more.state) made.append(element("span", text, { class: `state ${stateClass(text)}` }));
  else made.textContent = more.number && typeof row[key] === "number" ? row[key].toLocaleString("en") : text;
  return made;
}

function stateClass(text) {
  if (GOOD.includes(text)) return "good";
  return BAD.includes(text) ? "bad" : "waiting";
}

function draw() {
  const { view, rows, matching } = shown;
  shown.first = Math.min(shown.first, Math.max(0, Math.floor((matching.length - 1) / PAGE) * PAGE));
  const part = matching.slice(shown.first, shown.first + PAGE);
  byId("head").replaceChildren(...view.columns.map(([heading, , more = {}]) =>
    element("th", heading, { scope: "col", ...(more.number ? { class: "number" } : {}) })));
  byId("rows").replaceChildren(...part.map((row) => {
    const line = document.createElement("tr");
    line.append(...view.columns.map((column) => cell(column, row, column[1] === "name")));
    return line;
  }));
  const all = rows.length.toLocaleString("en");
  byId("count").textContent =
    matching.length === rows.length ? `${all} in all` : `${matching.length.toLocaleString("en")} of ${all}`;
  byId("pager").hidden = matching.length <= PAGE;
  byId("page").textContent = `${shown.first + 1} to ${shown.first + part.length} of ${matching.length}`;
  byId("previous").disabled = shown.first === 0;
  byId("next").disabled = shown.first + PAGE >= matching.length;
}

function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const keys = shown.view.columns.map(([, key]) => key);
  shown.matching = shown.rows.filter((row) => {
    const text = keys.map((key) => textOf(row[key])).join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
  draw();
}

function turn(by) {
  shown.first = Math.max(0, shown.first + by * PAGE);
  draw();
  document.querySelector(".scroll").scrollTop = 0;
}

async function load() {
  shown.question?.abort();
  const question = (shown.question = new AbortController());
  document.body.setAttribute("aria-busy", "true");
  try {
    const answer = await ask(shown.view.path, question.signal);
    byId("token-form").hidden = true;
    byId("list").hidden = false;
    byId("problem").textContent = "";
    shown.rows = answer.items;
    filter();
  } catch (error) {
    if (error.name === "AbortError") return;
    byId("list").hidden = true;
    byId("problem").textContent = error.message;
    if (error instanceof TokenNeeded) {
      byId("token-form").hidden = false;
      byId("token").focus();
    }
  }
  if (shown.question === question) document.body.removeAttribute("aria-busy");
}

function show() {
  // What is in the list is another view's until its own rows are there.
  const view = (shown.view = viewOf(location.hash));
  Object.assign(shown, { rows: [], matching: [], first: 0 });
  byId("list").hidden = true;
  byId("filter").value = "";
  byId("title").textContent = view.title;
  byId("about").textContent = view.about;
  document.title = `${view.title} · Signalbox`;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.dataset.view === view.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  load();
}

function useTheme(theme) {
  document.documentElement.dataset.theme = theme;
  // The button says what it will do.
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

const preferred = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
useTheme(localStorage.getItem("signalbox-theme") || preferred);
byId("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("signalbox-theme", theme);
  useTheme(theme);
});
byId("views").append(...NAMES.map((name) => {
  const item = document.createElement("li");
  item.append(element("a", titleOf(name), { href: `#/${name}`, "data-view": name }));
  return item;
}));
byId("skip").addEventListener("click", (event) => {
  // The fragment says which view it is, so the link mustn't change it.
  event.preventDefault();
  byId("main").focus();
});
byId("filter").addEventListener("input", () => { shown.first = 0; filter(); });
byId("refresh").addEventListener("click", load);
byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("token").value);
  byId("token").value = "";
  load();
});
addEventListener("hashchange", () => { show(); byId("main").focus(); });
show();
