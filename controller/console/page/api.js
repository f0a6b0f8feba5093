// Asks the admin API, with a token where one is needed, or the certificate that the browser shows. The token is kept in
// memory alone: a reload asks again.

let token = "";

// What is said of a question that has failed, in words for people.
export class Problem extends Error {}
export class TokenNeeded extends Problem {}
// It may not be asked by who asks; or not so, by anybody.
export class Forbidden extends Problem {}
export class Refused extends Problem {}

export function useToken(text) {
  token = text.trim();
}

// The answer to GET /v1/PATH, or to another method. Raises TokenNeeded, Forbidden, Refused, or
// another Problem, with the API's own words.
export async function ask(path, signal, method = "GET") {
  const response = await request(path, signal, method);
  return response.json().catch(() => {
    throw new Problem("The controller's answer is cut off.");
  });
}

// The parameters that have a value, as a query.
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

// The response to a question that is answered well. Raises what `ask` raises.
export async function request(path, signal, method = "GET") {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(new URL(`../v1/${path}`, document.baseURI), {
      method,
      headers,
      signal,
      credentials: "same-origin",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The controller doesn't answer.");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) throw new TokenNeeded(token ? "This token isn't valid." : "");
  if (response.status === 403) throw new Forbidden(answer.error || "This isn't allowed.");
  const words = answer.error || `${response.status} ${response.statusText}`;
  throw response.status < 500 ? new Refused(words) : new Problem(words);
}
