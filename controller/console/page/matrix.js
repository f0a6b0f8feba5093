// Who may reach whom by policies: a table of identities, and why of each cell.
//
// The table is one stop of the Tab key; arrow keys go from cell to cell, Enter or Space explains one.

import { Refused, ask, query } from "./api.js";
import { choice, element, field, set } from "./elements.js";
import { plural } from "./words.js";

const SIGNS = {
  Allow: ["✓", "allowed"],
  Deny: ["✕", "denied"],
  Mixed: ["±", "some allowed, some denied"],
  None: ["–", "no family in common"],
};
const PROTOCOLS = ["TCP", "UDP", "SCTP", "ICMP"].map((name) => [name, name]);
const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

export function matrixView({ given }, page) {
  const namespace = choice("namespace", []);
  const also = choice("also", []);
  const protocol = choice("protocol", PROTOCOLS, given.get("protocol") ?? "TCP");
  const port = element("input", {
    name: "port",
    id: "port",
    type: "number",
    min: 1,
    max: 65535,
    required: true,
    value: given.get("port") ?? 80,
  });
  const form = element(
    "form",
    { class: "question" },
    field("Namespace", namespace),
    field("And", also),
    field("Protocol", protocol),
    field("Port", port),
  );
  const hint = element("p", { class: "faint", id: "hint" });
  const table = element("table", { class: "matrix", role: "grid", "aria-label": "Who may reach whom" });
  const why = element("aside", { class: "details", "aria-label": "Explanation" });
  const scroll = element("div", { class: "scroll" }, table);
  const legend = element(
    "p",
    { class: "faint" },
    ...Object.values(SIGNS).map(([sign, words]) => `${sign} ${words}   `),
  );
  let [chosen, extra] = (given.get("namespace") ?? "").split(",");
  let matrix = null;
  let at = [0, 0];
  let picked = null;

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => {
    if (!form.reportValidity()) return;
    [chosen, extra] = [namespace.value, also.value];
    history.replaceState(null, "", `#/matrix${query(asked())}`);
    picked = null;
    explain(null);
    page.reload();
  });
  table.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    move(at.map((each, axis) => Math.min(matrix.subjects.length - 1, Math.max(0, each + step[axis]))));
  });
  table.addEventListener("click", (event) => {
    const cell = event.target.closest("button");
    if (!cell) return;
    move(cell.place);
    pick(cell.place);
  });

  function asked() {
    const all = [chosen, chosen && extra].filter(Boolean).join(",");
    return { namespace: all, protocol: protocol.value, port: protocol.value === "ICMP" ? "" : port.value };
  }

  async function load(signal) {
    port.disabled = protocol.value === "ICMP";
    let narrowed = "";
    try {
      matrix = await ask(`matrix${query(asked())}`, signal);
    } catch (error) {
      // Too many for one table: a namespace alone, so that others can be chosen.
      if (!(error instanceof Refused) || chosen) throw error;
      chosen = "default";
      narrowed = `${error.message}. `;
      matrix = await ask(`matrix${query(asked())}`, signal);
    }
    offer(namespace, [["", "all"]], chosen);
    offer(also, [["", "no other"]], extra);
    also.disabled = !chosen;
    const { subjects } = matrix;
    const many = subjects.length === 1 ? "1 identity" : `${subjects.length} identities`;
    hint.textContent = `${narrowed}${many}. A row is who asks, a column who is asked. Choose a cell to see why.`;
    draw();
  }

  function offer(select, first, value) {
    const names = new Set([...matrix.namespaces, ...(value ? [value] : [])]);
    const options = [...first, ...[...names].sort().map((name) => [name, name])];
    if (select.said === JSON.stringify(options)) select.value = value ?? "";
    else
      select.replaceChildren(
        ...options.map(([name, text]) => element("option", { value: name, selected: name === (value ?? "") }, text)),
      );
    select.said = JSON.stringify(options);
  }

  function draw() {
    const { subjects, cells } = matrix;
    const now = JSON.stringify(subjects.map((each) => each.identity));
    // The same identities: only what has changed is written, so that the focus stays.
    if (table.shown !== now) {
      const heads = subjects.map(({ name }) => element("th", { scope: "col" }, element("span", {}, name)));
      const corner = element("th", { scope: "col", class: "corner" }, "From ↓ to →");
      const rows = subjects.map(({ name, pods }, row) =>
        element(
          "tr",
          {},
          element("th", { scope: "row", title: plural(pods, "pod") }, name),
          ...subjects.map((_, column) => {
            const cell = element("button", { type: "button", tabindex: -1 });
            cell.place = [row, column];
            return element("td", {}, cell);
          }),
        ),
      );
      table.replaceChildren(element("thead", {}, element("tr", {}, corner, ...heads)), element("tbody", {}, ...rows));
      at = [0, 0];
    }
    table.shown = now;
    for (const cell of table.querySelectorAll("button")) {
      const [row, column] = cell.place;
      const value = cells[row][column];
      const [sign, words] = SIGNS[value];
      if (cell.textContent !== sign) cell.textContent = sign;
      set(cell, {
        class: `cell-button ${value.toLowerCase()}`,
        title: `${subjects[row].name} to ${subjects[column].name}: ${words}`,
        "aria-label": `${subjects[row].name} to ${subjects[column].name}: ${words}`,
        tabindex: row === at[0] && column === at[1] ? 0 : -1,
        "aria-pressed": String(picked !== null && picked[0] === row && picked[1] === column),
      });
    }
    scroll.hidden = subjects.length === 0;
  }

  function cellAt([row, column]) {
    return table.tBodies[0].rows[row].cells[column + 1].firstChild;
  }

  function move(to) {
    set(cellAt(at), { tabindex: -1 });
    at = to;
    set(cellAt(at), { tabindex: 0 });
    cellAt(at).focus();
  }

  async function pick(place) {
    picked = place;
    for (const cell of table.querySelectorAll("[aria-pressed=true]")) set(cell, { "aria-pressed": "false" });
    set(cellAt(place), { "aria-pressed": "true" });
    const [from, to] = place.map((each) => matrix.subjects[each].example);
    const question = { from, to, protocol: matrix.protocol, port: matrix.port || "" };
    try {
      const answer = await ask(`policy-check${query(question)}`);
      if (picked !== place) return;
      explain(answer, question, matrix.cells[place[0]][place[1]]);
      page.say(`${answer.allowed ? "Allowed" : "Denied"}: ${answer.reason}`);
    } catch (error) {
      why.replaceChildren(element("p", { role: "alert" }, error.message));
    }
  }

  function explain(answer, question, value) {
    if (answer === null) {
      why.replaceChildren(element("p", { class: "faint" }, "What decides is shown here once a cell is chosen."));
      return;
    }
    const differ =
      value === "Mixed"
        ? [element("p", {}, "Policies name addresses, which tell pods of one identity apart. This is of two of them.")]
        : [];
    const steps = answer.steps.length
      ? answer.steps.map((step) => element("li", {}, step))
      : [element("li", {}, answer.reason)];
    why.replaceChildren(
      element("h2", {}, answer.allowed ? "✓ Allowed" : "✕ Denied"),
      element(
        "p",
        {},
        `${answer.source} to ${answer.destination}, ${answer.protocol}${answer.port ? ` ${answer.port}` : ""}`,
      ),
      ...differ,
      element("ol", {}, ...steps),
      element("p", {}, element("a", { href: `#/trace${query(question)}` }, "Trace it")),
    );
  }

  explain(null);
  return {
    title: "Matrix",
    about: "Who may reach whom by policies, for pods that policies treat alike.",
    parts: [
      form,
      hint,
      legend,
      element("div", { class: "beside" }, element("div", { class: "main-part" }, scroll), why),
    ],
    load,
    every: 30,
  };
}
