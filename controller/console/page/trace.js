// Where a packet goes: the question, the answer of the model or of a packet that is really sent, drawn and in words.

import { Forbidden, Refused, ask, query } from "./api.js";
import { Drawing } from "./drawing.js";
import { button, choice, element, field } from "./elements.js";
import { LARGE, partOf } from "./groups.js";
import { scene } from "./scene.js";
import { marksOf, remarksOf, waysOf } from "./way.js";
import { plural, quality } from "./words.js";

// Ends of each kind that are suggested.
const SUGGESTED = 200;
const FIELDS = ["from", "to", "protocol", "port", "family", "endpoint"];
const PROTOCOLS = [
  ["", "TCP, or ICMP without a port"],
  ["TCP", "TCP"],
  ["UDP", "UDP"],
  ["SCTP", "SCTP"],
  ["ICMP", "ICMP"],
];

export function traceView({ given }, page) {
  const text = (name, attributes = {}) =>
    element("input", { name, value: given.get(name) ?? "", autocomplete: "off", spellcheck: "false", ...attributes });
  const endpoints = element("datalist", { id: "endpoints" });
  const sources = element("datalist", { id: "sources" });
  const targets = element("datalist", { id: "targets" });
  const form = element(
    "form",
    { class: "question" },
    field("From", text("from", { required: true, "aria-describedby": "ends", list: "sources" })),
    field("To", text("to", { required: true, "aria-describedby": "ends", list: "targets" })),
    field("Protocol", choice("protocol", PROTOCOLS, given.get("protocol") ?? "")),
    field("Port", text("port", { type: "number", min: 1, max: 65535 })),
    field(
      "Family",
      choice(
        "family",
        [
          ["", "any"],
          ["4", "IPv4"],
          ["6", "IPv6"],
        ],
        given.get("family") ?? "",
      ),
    ),
    field("Endpoint", text("endpoint", { list: "endpoints", placeholder: "any" })),
    endpoints,
    sources,
    targets,
  );
  const live = button(
    "Send a packet",
    () => {
      if (form.reportValidity()) start("POST");
    },
    { id: "live" },
  );
  const why = element("span", {}, "Send a packet: one is really sent, with a mark, and held back at its end.");
  form.append(element("button", { type: "submit" }, "Trace"), live);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start("GET");
  });
  const hint = element(
    "p",
    { class: "faint", id: "ends" },
    "Ends are NAMESPACE/POD, node/NAME or an address; To may be NAMESPACE/svc/NAME, too, by its only port. ",
    why,
  );
  const result = element("div", { id: "result", role: "region", "aria-label": "Answer" });
  const drawing = new Drawing("The way of the packet");
  let method = "GET";
  let isAllowed = null;

  // Who may only read isn't offered more.
  function allow(may) {
    isAllowed = may;
    live.hidden = !isAllowed;
    why.hidden = !isAllowed;
  }

  // Some of the ends that there are; any may be written.
  async function suggest(signal) {
    const kinds = ["pods", "services", "nodes"].map((kind) => ask(`${kind}?limit=${SUGGESTED}`, signal));
    const [pods, services, nodes] = (await Promise.all(kinds)).map(({ items }) => items);
    const ends = [
      ...pods.filter(({ kind }) => kind === "Pod").map(({ namespace, name }) => `${namespace}/${name}`),
      ...nodes.map(({ name }) => `node/${name}`),
    ];
    const options = (names) => names.map((value) => element("option", { value }));
    sources.replaceChildren(...options(ends));
    targets.replaceChildren(
      ...options([...services.map(({ namespace, name }) => `${namespace}/svc/${name}`), ...ends]),
    );
  }

  const asked = () => Object.fromEntries(FIELDS.map((name) => [name, form.elements[name].value.trim()]));

  function start(by) {
    method = by;
    history.replaceState(null, "", `#/trace${query(asked())}`);
    page.reload();
  }

  async function load(signal) {
    const question = asked();
    if (isAllowed === null) {
      allow((await ask("whoami", signal)).role !== "read-only");
      suggest(signal).catch(() => {});
    }
    if (!question.from || !question.to) return;
    const by = method;
    // Asked again by itself, as when the controller was away, nothing is sent.
    method = "GET";
    try {
      const [answer, topology] = await Promise.all([
        ask(`trace${query(question)}`, signal, by),
        ask("topology", signal),
      ]);
      show(by === "POST" ? answer : { model: answer }, topology);
    } catch (error) {
      if (error instanceof Forbidden && by === "POST") allow(false);
      else if (!(error instanceof Refused)) throw error;
      result.replaceChildren(element("p", { class: "differs", role: "alert" }, error.message));
    }
  }

  function show({ model, live: seen, differences = [] }, topology) {
    // Which Service it was, and what it may choose, is the model's to say.
    const { service, endpoint, endpoints: all } = model;
    const main = seen ? { ...seen, service, endpoint, endpoints: all } : model;
    endpoints.replaceChildren(...main.endpoints.map((each) => element("option", { value: each })));
    const names = new Set(main.visits.map((visit) => visit.node));
    const part =
      topology.nodes.length > LARGE
        ? partOf(
            topology,
            topology.nodes.filter(({ name }) => names.has(name)),
          )
        : topology;
    drawing.show(scene(part, { marks: marksOf(main), remarks: remarksOf(main), ways: waysOf(main, part.links) }));
    const compared = [];
    if (differences.length) {
      compared.push(
        element(
          "div",
          { class: "differs", role: "alert" },
          element("strong", {}, "Switches do otherwise than the model says:"),
          element("ul", {}, ...differences.map((each) => element("li", {}, each))),
        ),
      );
    } else if (seen)
      compared.push(element("p", { class: "verdict good" }, "✓ A packet was sent, and went as the model says."));
    const flows = element("input", { type: "checkbox", id: "ofctl" });
    flows.addEventListener("change", () => result.classList.toggle("ofctl-hidden", !flows.checked));
    result.className = "ofctl-hidden";
    result.replaceChildren(
      ...compared,
      verdict(main),
      ...(main.cautions || []).map((each) => element("p", { class: "differs" }, each)),
      ...facts(main),
      ...drawing.parts,
      element("div", { class: "bar" }, element("label", {}, flows, " Flows as ovs-ofctl writes them")),
      ...stepsOf(main, seen && differences.length ? "What switches did" : "Step by step"),
      ...(seen && differences.length ? stepsOf(model, "What the model says") : []),
    );
    page.say(`${differences.length ? "Switches do otherwise than the model says. " : ""}${verdictWords(main)}`);
  }

  return {
    title: "Trace",
    about: "The way of a connection's first packet: by the model at once, or by one that is really sent.",
    parts: [form, hint, result],
    load,
    every: 0,
  };
}

function verdictWords({ verdict: said, end }) {
  const where =
    end.place === "Pod"
      ? `pod ${end.name} on ${end.node}`
      : end.place === "World"
        ? `the world, by ${end.node}`
        : end.place === "Host"
          ? `the host of ${end.node}`
          : end.node;
  if (said === "Delivered") return `Delivered to ${where}`;
  return `${said} ${end.place === "Switch" ? "on" : "at"} ${where}${end.why ? `: ${end.why}` : ""}`;
}

function verdict(found) {
  const good = quality(found.verdict) === "good";
  return element(
    "p",
    { class: `verdict ${good ? "good" : "bad"}`, id: "verdict" },
    `${good ? "✓" : "✕"} ${verdictWords(found)}`,
  );
}

function facts({ question, service, endpoint, endpoints, judgements }) {
  const { sourceAddress: from, destinationAddress: to, protocol, sourcePort: fromPort, port } = question;
  const ends = port ? `${joined(from, fromPort)} to ${joined(to, port)}` : `${from} to ${to}`;
  const items = [["Packet", `${protocol} from ${ends}`]];
  if (service)
    items.push([
      "Service",
      `${service}: ${endpoint ? `endpoint ${endpoint}` : "no endpoint"}, of ${plural(endpoints.length, "endpoint")}`,
    ]);
  for (const each of judgements)
    items.push([each.table, `${each.action} on ${each.node}${each.object ? ` by ${each.object}` : ""}: ${each.words}`]);
  return [element("dl", {}, ...items.flatMap(([name, words]) => [element("dt", {}, name), element("dd", {}, words)]))];
}

const joined = (address, port) => (address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`);

function stepsOf(found, title) {
  const parts = [element("h2", {}, title)];
  const denied = found.verdict !== "Delivered";
  found.visits.forEach((visit, place) => {
    const isLast = place === found.visits.length - 1;
    parts.push(element("h3", {}, `${place + 1}. ${visit.node}, from ${visit.enteredFrom} by ${visit.entered}`));
    const steps = visit.steps.map((step, index) => stepOf(step, denied && isLast && index === visit.steps.length - 1));
    for (const { end, before, after } of visit.translations) {
      steps.push(
        element("li", {}, element("strong", {}, "NAT"), element("span", {}, `${end} ${before} becomes ${after}`)),
      );
    }
    const left = visit.left ? `to ${visit.leftTo} by ${visit.left}` : "here it ends";
    steps.push(element("li", {}, element("strong", {}, "Then"), element("span", {}, left)));
    parts.push(element("ol", { class: "steps" }, ...steps));
  });
  return parts;
}

function stepOf({ table, words, object, ofctl }, decides) {
  return element(
    "li",
    { class: decides ? "decides" : null },
    element("strong", {}, table),
    element("span", {}, words || "no flow matches: it is dropped"),
    ...(object && object !== "Pipeline" ? [element("span", { class: "object" }, `for ${object}`)] : []),
    ...(ofctl ? [element("code", {}, ofctl)] : []),
  );
}
