// The configuration in the shadow: who would be out or in.

import { ask, Refused } from "./api.js";
import { h, hostile, numbers, plural, when } from "./dom.js";

const LISTED = 20;
const TITLES = [
  ["would_be_out", "Who would be out"],
  ["would_be_in", "Who would be in"],
  ["other_server", "Who would reach another server"],
  ["other_rule", "Who would be admitted by another rule"],
];

export async function loadShadow(signal) {
  try {
    return (await ask(`/shadow?clients=${LISTED}`, { signal })).shadow;
  } catch (error) {
    // A server may offer the console without this route.
    if (error instanceof Refused && error.status !== 401) return null;
    throw error;
  }
}

const ruled = (rule) => rule === null ? "no certificate asked for" : ["rule ", hostile(rule)];

function then(one) {
  if (one.reason_then !== null) return one.reason_then;
  return one.server_then === one.server ? ruled(one.rule_then) : ["server ", hostile(one.server_then), ", ", ruled(one.rule_then)];
}

function row(one) {
  return h("tr", {},
    h("td", {}, one.subject === null ? "no certificate" : hostile(one.subject)),
    h("td", {}, hostile(one.address)),
    h("td", {}, one.reason ?? ruled(one.rule)),
    h("td", {}, then(one)),
    h("td", {}, String(one.count)),
    h("td", {}, String(one.connected)));
}

function clients(outcome, title, report) {
  const verdicts = report.counts.filter((one) => one.outcome === outcome).reduce((sum, one) => sum + one.count, 0);
  if (!verdicts) return null;
  const found = report.clients.filter((one) => one.outcome === outcome);
  const shown = found.reduce((sum, one) => sum + one.count, 0);
  return [
    h("h3", {}, `${title}: ${plural(verdicts, "verdict")}`),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, h("table", {},
      h("thead", {}, h("tr", {}, ["client", "address", "now", "then", "times", "connected"].map((one) => h("th", { scope: "col" }, one)))),
      h("tbody", {}, found.map(row)))),
    shown < verdicts ? h("p", { class: "quiet" }, `and ${plural(verdicts - shown, "verdict")} on others, or earlier ones`) : null,
  ];
}

function lines(title, list) {
  return list.length ? [h("h3", {}, title), h("ul", {}, list.map((one) => h("li", {}, hostile(one))))] : null;
}

export function shadowCard(report) {
  if (report === null) return null;
  const { status } = report;
  const whose = status.set_by === "settings" ? "named by the settings" : "put there by ctl";
  const head = [h("h2", {}, "In the shadow"), h("p", {}, hostile(status.file), `, ${whose}`, status.since === null ? null : [", since ", when(status.since)])];
  if (status.problems.length) return h("section", { class: "card" }, head, h("p", { class: "bad" }, "It judges nobody."), lines("Problems", status.problems));
  const unused = report.uses.filter((one) => !one.count);
  return h("section", { class: "card" }, head,
    numbers([["handshakes judged", status.handshakes], ["would be out", status.would_be_out], ["would be in", status.would_be_in], ["not judged", status.not_judged], ["connections that a reload would close", report.closed]]),
    TITLES.map(([outcome, title]) => clients(outcome, title, report)),
    h("details", { "data-key": "shadow" },
      h("summary", { "data-key": "open shadow" }, "What it changes, and what it does not judge"),
      h("div", {},
        report.changes.length ? lines("Changes", report.changes) : h("p", { class: "quiet" }, "No difference from the configuration in force."),
        lines("Rules that nobody has used", unused.map((one) => one.rule ? `${one.server}: ${one.rule}` : one.server)),
        lines("Not judged", report.not_counted))));
}
