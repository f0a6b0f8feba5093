// Numbers and states as people read them.

const GOOD = ["Synced", "Standby", "Ready", "HostNetwork", "Up", "Delivered", "Allow", "Accept", "Normal", "Alive"];
const BAD = ["Disconnected", "Down", "Dropped", "Rejected", "Deny", "Lost"];
const PREFIXES = ["", "k", "M", "G", "T"];

export function count(number) {
  return number.toLocaleString("en");
}

export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

// A rate with three digits at most: 1.23 M, 45.6 k, 789.
export function short(number) {
  let size = 0;
  while (number >= 999.5 && size < PREFIXES.length - 1) {
    number /= 1000;
    size += 1;
  }
  const digits = size === 0 || number >= 99.95 ? 0 : number >= 9.995 ? 1 : 2;
  return `${number.toFixed(digits)}${PREFIXES[size] && ` ${PREFIXES[size]}`}`;
}

const perSecond = (number, unit) =>
  /[kMGT]$/.test(short(number)) ? `${short(number)}${unit}/s` : `${short(number)} ${unit}/s`;
export const bits = (number) => perSecond(number, "bit");
export const bytes = (number) => perSecond(number, "B");

export function text(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (Array.isArray(value)) return value.length ? value.join(", ") : "–";
  return String(value);
}

// Whether a state is good, bad or neither: a class of the style sheet. Colour is never the only sign.
export function quality(state) {
  const first = String(state).split(",")[0];
  if (GOOD.includes(first)) return "good";
  return BAD.includes(first) ? "bad" : "waiting";
}
