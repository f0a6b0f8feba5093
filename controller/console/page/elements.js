// Makes elements. Text of the API becomes text nodes and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

function filled(made, attributes, children) {
  set(made, attributes);
  made.append(...children);
  return made;
}

export function set(made, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) made.removeAttribute(name);
    else if (made.getAttribute(name) !== String(value)) made.setAttribute(name, value === true ? "" : value);
  }
  return made;
}

export const element = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);

export const drawn = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

export function button(text, act, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", act);
  return made;
}

// A field of a form with its label.
export function field(title, control) {
  return element("label", { class: "field" }, element("span", {}, title), control);
}

export function choice(name, options, chosen = "") {
  const made = element("select", { name, id: name });
  made.append(...options.map(([value, text]) => element("option", { value, selected: value === chosen }, text)));
  return made;
}

// Have `parent` hold these elements in this order. What is there already isn't moved more than needed: an element that
// is moved loses the focus.
export function arrange(parent, elements) {
  let at = parent.firstChild;
  const wanted = new Set(elements);
  while (at && !wanted.has(at)) at = at.nextSibling;
  for (const each of elements) {
    if (each === at)
      do at = at.nextSibling;
      while (at && !wanted.has(at));
    else parent.insertBefore(each, at);
  }
  for (const each of [...parent.childNodes]) if (!wanted.has(each)) each.remove();
}
