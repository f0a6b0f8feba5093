// The page: which view is shown, when it is asked for anew, what is said when that fails, the token, the theme.
//
// A view is what a function of views.js makes: { title, about, parts, load(signal), every, close() }. `parts` are its
// elements; `load` asks and shows, and raises what `ask` raises; `every` is after how many seconds it is asked again, 0
// for never; `pause` and `close`, if there are any, are called when nobody sees it, and before another view is shown.

import { Problem, TokenNeeded, useToken } from "./api.js";
import { element } from "./elements.js";
import { VIEWS, placeOf } from "./views.js";

// Seconds after which a question that has failed is asked again.
const AGAIN = 3;
const byId = (id) => document.getElementById(id);
const shown = { view: null, question: null, timer: 0, since: null, failed: false, overdue: false };

// Say something to who doesn't see it change.
function say(words) {
  byId("said").textContent = words;
}

// What a view may ask of the page: to say something, and to be loaded: because somebody wants it, or quietly.
const page = { say, reload: () => load({ busy: true }), again };

async function load({ busy = false } = {}) {
  clearTimeout(shown.timer);
  shown.question?.abort();
  const question = (shown.question = new AbortController());
  const view = shown.view;
  if (busy) document.body.setAttribute("aria-busy", "true");
  let wait = view.every;
  try {
    await view.load(question.signal);
    if (shown.question !== question) return;
    if (shown.failed) say("The controller answers again.");
    Object.assign(shown, { since: new Date(), failed: false });
    byId("token-form").hidden = true;
    byId("view").hidden = false;
    byId("problem").textContent = "";
  } catch (error) {
    if (shown.question !== question) return;
    wait = tell(error);
  }
  document.body.removeAttribute("aria-busy");
  if (wait) shown.timer = setTimeout(again, wait * 1000);
}

// Say what went wrong; after how many seconds it is tried again.
function tell(error) {
  if (!(error instanceof Problem)) console.error(error);
  const needed = error instanceof TokenNeeded;
  byId("token-form").hidden = !needed;
  if (needed) {
    byId("view").hidden = true;
    shown.since = null;
    if (document.activeElement !== byId("token")) byId("token").focus();
  }
  shown.failed = !needed;
  byId("view").hidden = shown.since === null;
  const old = shown.since ? ` What is shown is of ${shown.since.toLocaleTimeString("en", { hour12: false })}.` : "";
  const said =
    error instanceof Problem ? error.message : "The controller's answer isn't what this page expects: reload it.";
  const words = needed ? said : `${said}${old}`;
  // The same again isn't news.
  if (byId("problem").textContent !== words) byId("problem").textContent = words;
  return needed ? 0 : AGAIN;
}

// What nobody looks at isn't asked for; it is when somebody does again.
function again() {
  if (document.hidden) shown.overdue = true;
  else load();
}

function show() {
  shown.view?.close?.();
  const place = placeOf(location.hash);
  const view = (shown.view = VIEWS[place.name].open(place, page));
  Object.assign(shown, { since: null, failed: false });
  byId("view").hidden = true;
  byId("view").replaceChildren(...view.parts);
  byId("problem").textContent = "";
  byId("title").textContent = view.title;
  byId("about").textContent = view.about;
  document.title = `${view.title} · Signalbox`;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.dataset.view === place.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  load({ busy: true });
}

function useTheme(theme) {
  document.documentElement.dataset.theme = theme;
  // The button says what it will do.
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
}

const darkness = matchMedia("(prefers-color-scheme: dark)");
const followTheme = () => useTheme(localStorage.getItem("signalbox-theme") || (darkness.matches ? "dark" : "light"));
followTheme();
darkness.addEventListener("change", followTheme);
byId("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("signalbox-theme", theme);
  useTheme(theme);
});
byId("views").append(
  ...Object.entries(VIEWS).map(([name, { nav }]) =>
    element("li", {}, element("a", { href: `#/${name}`, "data-view": name }, nav)),
  ),
);
byId("skip").addEventListener("click", (event) => {
  // The fragment says which view it is, so the link mustn't change it.
  event.preventDefault();
  byId("main").focus();
});
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useToken(byId("token").value);
  byId("token").value = "";
  load({ busy: true });
});
document.addEventListener("visibilitychange", () => {
  // A browser has few connections to one host, for all of its tabs: what isn't seen gives its own back.
  if (document.hidden) {
    shown.view.pause?.();
    shown.overdue ||= shown.view.every > 0;
  } else if (shown.overdue) {
    shown.overdue = false;
    load();
  }
});
// A page that a browser keeps to go back to must not hold connections, of which there are few.
addEventListener("pagehide", () => {
  clearTimeout(shown.timer);
  shown.question?.abort();
  shown.view?.close?.();
});
addEventListener("pageshow", (event) => {
  if (event.persisted) show();
});
addEventListener("hashchange", () => {
  show();
  byId("main").focus();
});
show();
