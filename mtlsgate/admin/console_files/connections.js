// Who is connected: search, sort, close, eject.

import { confirm } from "./actions.js";
import { everyConnection } from "./api.js";
import { bytes, h, hostile, lasted, plural, replace } from "./dom.js";

const COLUMNS = [
  { key: "subject", title: "client" },
  { key: "server", title: "server" },
  { key: "rule", title: "rule" },
  { key: "address", title: "from" },
  { key: "seconds", title: "connected for", isNumber: true, shown: lasted },
  { key: "received", title: "received", isNumber: true, shown: bytes },
  { key: "sent", title: "sent", isNumber: true, shown: bytes },
  { key: "state", title: "state" },
];
const MOST_ROWS = 500;

let wanted = "";
let sorting = { key: "seconds", isDown: false };

function matches(one) {
  if (!wanted) return true;
  const text = [one.number, one.subject, one.sha256, one.server, one.rule, one.pin, one.address, one.state, one.server_name]
    .filter((part) => part !== null).join("\n").toLowerCase();
  return wanted.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function compare(one, other) {
  const { key, isDown } = sorting;
  const [a, b] = [one[key] ?? "", other[key] ?? ""];
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  return (isDown ? -order : order) || one.number - other.number;
}

function row(one) {
  return h("tr", {},
    h("th", { scope: "row", class: "name" }, hostile(one.subject ?? "(no certificate)"),
      one.sha256 === null ? null : h("div", { class: "mono quiet", title: one.sha256 }, one.sha256.slice(0, 16)),
      one.pin === null ? null : h("div", { class: "quiet" }, "pin ", hostile(one.pin))),
    COLUMNS.slice(1).map((column) => h("td", { class: column.isNumber ? "number" : "", "data-label": column.title },
      column.shown ? column.shown(one[column.key]) : hostile(one[column.key] ?? ""))),
    h("td", {},
      h("button", {
        type: "button", "data-key": `close ${one.number}`, "aria-label": `Close connection ${one.number}`,
        onclick: () => confirm({
          title: `Close connection ${one.number}?`,
          text: `${one.subject ?? "The client"}, from ${one.address}. The client may connect again.`,
          button: "Close", path: `/connections/${one.number}/close`, done: () => `Connection ${one.number} is closed.`,
        }),
      }, "Close…"), " ",
      one.sha256 === null ? null : h("button", {
        type: "button", class: "risk", "data-key": `eject ${one.number}`, "aria-label": `Eject the client of connection ${one.number}`,
        onclick: () => confirm({
          title: "Eject this client?",
          text: `All connections of ${one.subject} end now. It may connect again: to keep it out, deny it in the configuration.`,
          button: "Eject", path: `/clients/${one.sha256}/eject`,
          done: (found) => `${plural(found.closed, "connection is", "connections are")} closed.`,
        }),
      }, "Eject…")));
}

function table(found, again) {
  const matching = found.connections.filter(matches).sort(compare);
  const shown = matching.slice(0, MOST_ROWS);
  const of = found.isAll ? "" : " (the gate has more)";
  const caption = `${plural(matching.length, "connection")}${of}` + (shown.length < matching.length ? `, the first ${shown.length} are shown` : "");
  return h("div", { class: "scroll card", tabindex: "0", role: "region", "aria-label": "Connections" }, h("table", { class: "rows" },
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, COLUMNS.map((column) => h("th", {
      scope: "col", class: column.isNumber ? "number" : "",
      "aria-sort": sorting.key === column.key ? (sorting.isDown ? "descending" : "ascending") : "none",
    }, h("button", {
      type: "button", "data-key": `sort ${column.key}`,
      onclick: () => {
        sorting = { key: column.key, isDown: sorting.key === column.key && !sorting.isDown };
        again();
      },
    }, column.title, sorting.key === column.key ? (sorting.isDown ? " ▾" : " ▴") : ""))),
    h("th", { scope: "col", class: "plain" }, "actions"))),
    h("tbody", {}, shown.map(row))));
}

export const connections = {
  name: "connections",
  title: "Connections",
  load: everyConnection,
  render(found) {
    const place = h("div", {});
    const again = () => replace(place, table(found, again));
    again();
    return [
      h("h1", {}, "Connections"),
      h("div", { class: "bar" }, h("label", {}, "Search", h("input", {
        type: "search", "data-key": "search", value: wanted, autocomplete: "off", spellcheck: "false",
        oninput: (event) => { wanted = event.target.value; again(); },
      }))),
      place,
    ];
  },
};
