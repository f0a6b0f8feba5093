// Hears that a list has become another, as the API tells it in server-sent events. (EventSource sends no token.)

import { request } from "./api.js";

// Milliseconds in which a list is to be told whole; one that isn't can't be followed, as behind a proxy that gathers
// answers. And between a change that is heard of and when that is said.
const WHOLE = 10000;
const SOON = 300;

export class Follower {
  #path = null;
  #leave = () => {};
  #isClosed = false;

  // `changed` is called soon after changes, and when there is nothing more to be heard.
  constructor(changed) {
    this.changed = changed;
  }

  // Follow this list of the API and no other; null for none.
  follow(path) {
    if (this.#isClosed || path === this.#path) return;
    this.#leave();
    this.#path = path;
    this.#leave = path === null ? () => {} : this.#listen(path);
  }

  close() {
    this.follow(null);
    this.#isClosed = true;
  }

  #listen(path) {
    const control = new AbortController();
    const late = setTimeout(() => control.abort(), WHOLE);
    let [soon, isWhole, isLeft] = [0, false, false];
    const tell = () => {
      soon ||= setTimeout(() => {
        soon = 0;
        this.changed();
      }, SOON);
    };
    const hear = (kind) => {
      if (kind === "SYNC") {
        clearTimeout(late);
        isWhole = true;
      } else if (isWhole) tell();
    };
    listen(`${path}${path.includes("?") ? "&" : "?"}watch=1`, control.signal, hear)
      .catch(() => {})
      .then(() => {
        clearTimeout(late);
        if (isLeft) return;
        // It is followed again when that is asked for again.
        this.#path = null;
        if (isWhole) tell();
      });
    return () => {
      isLeft = true;
      clearTimeout(soon);
      control.abort();
    };
  }
}

// `hear` is told the kind of each event, until the answer ends.
async function listen(path, signal, hear) {
  const response = await request(path, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("event: ")) hear(line.slice(7));
  }
}
