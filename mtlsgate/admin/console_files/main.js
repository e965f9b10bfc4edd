// The page: asks for the token, shows the view that the address names, and keeps it up to date.

import { isAsking } from "./actions.js";
import { ask, Refused, setToken } from "./api.js";
import { certificate } from "./certificate.js";
import { connections } from "./connections.js";
import { h, replace } from "./dom.js";
import { dryRun } from "./dry-run.js";
import { expiry } from "./expiry.js";
import { overview } from "./overview.js";
import { rejections } from "./rejections.js";

const VIEWS = [overview, connections, rejections, expiry, certificate, dryRun];
// In seconds: how long the gate waits for a change, and how long the page waits at least.
const WAIT = 25;
const CALM = 1;
const LONGEST_PAUSE = 15;

const place = document.getElementById("view");
const trouble = document.getElementById("trouble");
let current = null;
let drawn = null;
let leaving = new AbortController();

const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

function chosen() {
  const name = location.hash.slice(1);
  return VIEWS.find((one) => one.name === name) ?? overview;
}

function navigate() {
  const links = VIEWS.map((one) => h("a", { href: `#${one.name}`, "aria-current": one === current ? "page" : null }, one.title));
  const nav = document.getElementById("views");
  nav.replaceChildren(...links);
  nav.hidden = false;
}

function showState(status) {
  const state = document.getElementById("state");
  const text = status.ready ? "ready" : status.not_ready;
  if (state.textContent !== text) state.textContent = text;
  state.className = status.ready ? "good" : "bad";
}

async function show(isNew) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [view, status] = [current, await ask("/status", { signal })];
  showState(status);
  if (!isNew && (view.isQuiet || isAsking())) return;
  const value = await view.load(signal);
  const seen = JSON.stringify(value);
  if (signal.aborted || (!isNew && seen === drawn)) return;
  drawn = seen;
  const content = view.render(value).flat(Infinity).filter((one) => one !== null && one !== undefined);
  if (isNew) {
    place.replaceChildren(...content);
    document.title = `${view.title} · mtlsgate`;
  } else replace(place, ...content);
}

async function turn() {
  const view = chosen();
  if (view === current) return;
  current = view;
  navigate();
  try {
    await show(true);
    place.focus({ preventScroll: true });
  } catch (error) {
    told(error);
  }
}

function told(error) {
  if (error.name === "AbortError") return;
  if (error instanceof Refused && error.status === 401) {
    askForToken(error.message);
    return;
  }
  trouble.hidden = false;
  trouble.textContent = error instanceof Refused ? `The gate says: ${error.message}` : "The gate does not answer. Trying again…";
}

let asking = null;

function askForToken(why) {
  asking ??= new Promise((done) => {
    current = null;
    document.getElementById("views").hidden = true;
    const input = h("input", { type: "password", id: "token", autocomplete: "off", required: true, spellcheck: "false" });
    const message = h("p", { class: "bad", role: "alert" }, why.startsWith("a token is needed") ? "" : "That is not the token.");
    const form = h("form", {
      class: "card", onsubmit: (event) => {
        event.preventDefault();
        setToken(input.value.trim());
        asking = null;
        done();
      },
    },
    h("h1", {}, "Token"),
    h("p", {}, "The admin endpoint asks for its token: the content of the file that ", h("code", {}, "token_file"), " names. The page keeps it in memory until it is closed."),
    h("label", { for: "token" }, "Token"), input, message,
    h("div", { class: "bar" }, h("button", { class: "first", type: "submit" }, "Open")));
    place.replaceChildren(form);
    input.focus();
  });
  return asking;
}

async function follow() {
  let number = -1;
  let wait = 0;
  let failures = 0;
  for (;;) {
    if (asking !== null) await asking;
    try {
      if (current === null) await turn();
      if (asking !== null) continue;
      const answer = await ask(`/changes?after=${Math.max(0, number)}&wait=${wait}`);
      trouble.hidden = true;
      failures = 0;
      wait = WAIT;
      if (number >= 0 && current !== null) await show(false);
      number = answer.number;
      await pause(CALM);
    } catch (error) {
      if (error.name === "AbortError") continue;
      told(error);
      failures += 1;
      if (asking === null) await pause(Math.min(LONGEST_PAUSE, 2 ** failures));
    }
  }
}

window.addEventListener("hashchange", turn);
follow();
