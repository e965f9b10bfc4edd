// Questions to the gate.  The token stays in this variable: a reload of the page forgets it.

let token = null;

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export function setToken(text) {
  token = text;
}

export async function ask(path, options = {}) {
  const { method = "GET", body = undefined, signal = undefined } = options;
  const used = token;
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  const answer = await fetch(path, {
    method, body, headers, signal, cache: "no-store", credentials: "same-origin", redirect: "error",
  });
  const text = await answer.text();
  // Asked before the token was given.
  if (answer.status === 401 && used !== token) return ask(path, options);
  let value = null;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Refused(answer.status, text.trim() || `the gate answers ${answer.status}`);
  }
  // 422 is the result of a reload that was refused.
  if (!answer.ok && answer.status !== 422) throw new Refused(answer.status, value.error ?? answer.statusText);
  return value;
}

export async function everyConnection(signal) {
  const found = [];
  let after = 0;
  // A page that shows more than this shows nothing.
  while (after !== null && found.length < 5000) {
    const page = await ask(`/connections?after=${after}`, { signal });
    found.push(...page.connections);
    after = page.next;
  }
  return { connections: found, isAll: after === null };
}
