// What begins and ends when.

import { ask } from "./api.js";
import { day, h, hostile, plural, svg } from "./dom.js";

const HOUR = 3600000;
const DAY = 24 * HOUR;
const KINDS = {
  server_certificate: "server certificate", ca: "CA", pin: "pin", crl: "revocation list",
  client_certificate: "client certificate", target_ca: "target's CA", target_pin: "target's pin",
};
const WIDTH = 200;

function state(one, now) {
  const [begins, ends] = [Date.parse(one.begins), Date.parse(one.ends)];
  if (ends < now) return "over";
  // As the gate warns: what lasts a day is not near its end all day.
  return ends - now < Math.min(30 * DAY, (ends - begins) / 3) ? "soon" : "valid";
}

function span(one, from, to, now) {
  const at = (time) => Math.min(WIDTH, Math.max(0, ((time - from) / (to - from)) * WIDTH));
  const [begins, ends] = [at(Date.parse(one.begins)), at(Date.parse(one.ends))];
  return svg("svg", { class: "span", viewBox: `0 0 ${WIDTH} 16`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "all", x: 0, y: 7, width: WIDTH, height: 2 }),
    svg("rect", { class: state(one, now), x: begins, y: 3, width: Math.max(2, ends - begins), height: 10, rx: 2 }),
    svg("line", { class: "now", x1: at(now), x2: at(now), y1: 0, y2: 16 }));
}

function left(one, now) {
  const days = Math.floor((Date.parse(one.ends) - now) / DAY);
  const begins = Math.ceil((Date.parse(one.begins) - now) / DAY);
  if (begins > 0) return h("span", { class: "quiet" }, `begins in ${plural(begins, "day")}`);
  if (days < 0) return h("span", { class: "bad" }, `ended ${plural(-days, "day")} ago`);
  const hours = Math.floor((Date.parse(one.ends) - now) / HOUR);
  const text = hours < 48 ? plural(hours, "hour") : plural(days, "day");
  return h("span", { class: state(one, now) === "soon" ? "warn" : "" }, text);
}

export const expiry = {
  name: "expiry",
  title: "Expiry",
  async load(signal) {
    return ask("/periods", { signal });
  },
  render({ periods }) {
    const now = Date.now();
    // From a month ago to the last end, at most three years: a CA for thirty years would
    // flatten all others.
    const last = Math.max(now + 60 * DAY, ...periods.map((one) => Date.parse(one.ends)));
    const [from, to] = [now - 30 * DAY, Math.min(last, now + 3 * 365 * DAY)];
    return [
      h("h1", {}, "Expiry"),
      h("p", { class: "quiet" }, "Certificates, pins and revocation lists, in the order in which they end; at most a hundred of each kind for each rule."),
      h("div", { class: "scroll card", tabindex: "0", role: "region", "aria-label": "Expiry" }, h("table", { class: "rows" },
        h("caption", {}, plural(periods.length, "entry", "entries")),
        h("thead", {}, h("tr", {}, ["what", "server", "rule", "begins", "ends", "left", "from a month ago"].map((one) => h("th", { scope: "col", class: "plain" }, one)))),
        h("tbody", {}, periods.map((one) => h("tr", {},
          h("th", { scope: "row", class: "name" }, h("div", { class: "quiet" }, KINDS[one.kind] ?? one.kind), hostile(one.name),
            one.sha256 === null ? null : h("div", { class: "mono quiet", title: one.sha256 }, one.sha256.slice(0, 16))),
          h("td", { "data-label": "server" }, hostile(one.server)), h("td", { "data-label": "rule" }, one.rule === null ? null : hostile(one.rule)),
          h("td", { "data-label": "begins" }, day(one.begins)), h("td", { "data-label": "ends" }, day(one.ends)), h("td", { "data-label": "left" }, left(one, now)),
          h("td", {}, span(one, from, to, now))))))),
    ];
  },
};
