// The gate as a whole, and each server as a tile.

import { confirm } from "./actions.js";
import { ask } from "./api.js";
import { chart, EMPTY } from "./chart.js";
import { bytes, facts, h, hostile, lasted, numbers, plural, when } from "./dom.js";
import { loadShadow, shadowCard } from "./shadow.js";

function target(one) {
  const state = one.up === false ? h("span", { class: "bad" }, "down") : h("span", { class: "good" }, "up");
  const error = one.up === false && one.last_error ? [": ", hostile(one.last_error)] : [];
  return h("li", {}, hostile(one.address), " ", state, error);
}

function tile(server, history) {
  const rules = server.rules.map((one) => h("li", {}, hostile(one.name), ": ", hostile(one.description)));
  const due = server.deadlines.filter((one) => one.is_due);
  return h("section", { class: "card" },
    h("h2", {}, hostile(server.name)),
    h("p", { class: "quiet" }, server.protocol, " on ", hostile(server.listening.join(", ") || server.hosts.join(", "))),
    numbers([["connected", server.admitted], ["in handshake", server.handshakes]]),
    chart(history, server.name),
    due.length ? h("p", { class: "warn" }, due.map((one) => h("span", {}, `${one.kind.replaceAll("_", " ")} of `, hostile(one.rule ?? server.name), ` ends in ${plural(one.days_left, "day")}. `))) : null,
    server.targets?.length ? [h("h3", {}, "Targets"), h("ul", {}, server.targets.map(target))] : null,
    h("details", { "data-key": `rules ${server.name}` },
      h("summary", { "data-key": `open rules ${server.name}` }, server.client_authentication === "none" ? "asks for no certificate" : plural(server.rules.length, "rule")),
      h("div", {}, h("ul", {}, rules))));
}

function reload(last) {
  if (last === null) return h("p", { class: "quiet" }, "The configuration has not been reloaded since the start.");
  const list = (title, lines) => lines.length ? [h("h3", {}, title), h("ul", {}, lines.map((one) => h("li", {}, hostile(one))))] : [];
  return h("div", {},
    h("p", {}, "The last reload, at ", when(last.at), ": ",
      last.succeeded ? h("span", { class: "good" }, `epoch ${last.epoch} took over`) : h("span", { class: "bad" }, `refused, epoch ${last.epoch} stays in force`)),
    list("Problems", last.problems), list("Changes", last.changes));
}

function workers(list) {
  if (!list?.length) return null;
  return h("section", { class: "card" },
    h("h2", {}, "Workers"),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Workers" }, h("table", {},
      h("thead", {}, h("tr", {}, ["worker", "process", "connected", "restarts"].map((one) => h("th", { scope: "col" }, one)))),
      h("tbody", {}, list.map((one) => h("tr", {},
        h("td", {}, String(one.number)), h("td", {}, String(one.pid ?? "")), h("td", {}, String(one.admitted ?? "")), h("td", {}, String(one.restarts ?? 0))))))));
}

export const overview = {
  name: "overview",
  title: "Overview",
  async load(signal) {
    const [status, history] = await Promise.all([ask("/status", { signal }), ask("/history", { signal })]);
    return { status, history, shadow: status.shadow ? await loadShadow(signal) : null };
  },
  render({ status, history, shadow }) {
    const hours = new Map(history.servers.map((one) => [one.name, one]));
    const others = history.servers.filter((one) => !status.servers.some((server) => server.name === one.name));
    return [
      h("h1", {}, "Overview"),
      h("section", { class: "card" },
        h("h2", {}, "Gate"),
        numbers([["connected", status.admitted], ["in handshake", status.handshakes], ["rejected since the start", status.rejected]]),
        facts([
          ["configuration", hostile(status.config)],
          ["epoch", `${status.epoch}, in force for ${lasted(status.epoch_age)}`],
          ["process", `${status.pid}, running for ${lasted(status.uptime)}`],
          ["version", status.version],
          ["memory", status.memory ? bytes(status.memory) : null],
        ]),
        reload(status.last_reload),
        status.warnings.length ? [h("h3", {}, "Warnings"), h("ul", {}, status.warnings.map((one) => h("li", { class: "warn" }, hostile(one))))] : null,
        h("div", { class: "bar" },
          h("button", {
            type: "button", "data-key": "reload", onclick: () => confirm({
              title: "Reload the configuration?",
              text: "Clients that the new configuration rejects are disconnected. The dry run shows which.",
              button: "Reload", path: "/reload",
              done: (found) => found.succeeded ? `Epoch ${found.epoch} is in force.` : `Refused: ${found.problems.join("; ")}`,
            }),
          }, "Reload…"),
          h("button", {
            type: "button", class: "risk", "data-key": "drain", onclick: () => confirm({
              title: "Drain the gate?",
              text: "It accepts no new connections, waits for the open ones, and ends.",
              button: "Drain", path: "/drain",
              done: (found) => `Draining; ${plural(found.admitted, "client is", "clients are")} still connected.`,
            }),
          }, "Drain…"))),
      h("div", { class: "tiles" }, status.servers.map((one) => tile(one, hours.get(one.name) ?? EMPTY))),
      others.length ? h("section", { class: "card" }, h("h2", {}, "Clients whose server was not known, or is gone"), others.map((one) => h("div", {}, h("h3", {}, hostile(one.name)), chart(one, one.name)))) : null,
      shadowCard(shadow),
      workers(status.workers),
    ];
  },
};
