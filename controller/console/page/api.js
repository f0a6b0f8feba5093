// Asks the admin API, with a token where one is needed. The token is kept in memory alone: a reload asks again.

let token = "";

export class TokenNeeded extends Error {}

export function useToken(text) {
  token = text.trim();
}

// The answer to GET /v1/PATH. Raises TokenNeeded, or an Error with the API's own words.
export async function ask(path, signal) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(new URL(`../v1/${path}`, document.baseURI), { headers, signal, credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The controller doesn't answer.");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) throw new TokenNeeded(token ? "This token isn't valid." : "");
  if (!response.ok) throw new Error(answer.error || `${response.status} ${response.statusText}`);
  return answer;
}
