// The latest rejections, by reason, each with what would have admitted it.

import { ask } from "./api.js";
import { facts, h, hostile, plural, when } from "./dom.js";
import { explanation, pinBlock } from "./explanation.js";

function leaf(one) {
  if (one === null) return h("p", { class: "quiet" }, "It sent no certificate, or the connection ended before that.");
  return facts([
    ["subject", one.subject === null ? null : hostile(one.subject)],
    ["issuer", one.issuer === null ? null : hostile(one.issuer)],
    ["fingerprint", h("span", { class: "mono" }, one.sha256)],
    ["serial number", one.serial_number === null ? null : h("span", { class: "mono" }, one.serial_number)],
    ["valid from", one.not_before === null ? null : when(one.not_before)],
    ["valid until", one.not_after === null ? null : when(one.not_after)],
    ["DNS names", one.dns_names.length ? hostile(one.dns_names.join(", ")) : null],
    ["URIs", one.uris.length ? hostile(one.uris.join(", ")) : null],
  ]);
}

// The explanation is asked for when somebody opens the rejection; it stays what it was then.
const explained = new Map();

function opened(one, place) {
  const known = explained.get(one.id);
  if (known !== undefined) {
    place.replaceChildren(known);
    return;
  }
  ask(`/rejections/${one.id}/explain`).then(
    (answer) => {
      const shown = h("div", {},
        h("h3", {}, "What the rules make of this certificate now"),
        h("p", { class: "quiet" }, "Judged from the client's own certificate: the gate does not keep the intermediates that came with it."),
        explanation(answer));
      explained.set(one.id, shown);
      place.replaceChildren(shown);
    },
    (error) => place.replaceChildren(
      h("p", { class: "quiet" }, `There is no explanation: ${error.message}`),
      one.pin_block === null ? "" : pinBlock(one.pin_block)),
  );
}

function item(one) {
  const place = h("div", {}, h("p", { class: "quiet" }, one.leaf === null ? "" : "Asking…"));
  const open = (event) => { if (event.target.open && one.leaf !== null) opened(one, place); };
  return h("details", { "data-key": `rejection ${one.id}`, ontoggle: open },
    h("summary", { "data-key": `open rejection ${one.id}` },
      when(one.at), " ", one.leaf === null ? null : [hostile(one.leaf.subject ?? one.leaf.sha256), " "],
      h("span", { class: "quiet" }, "from ", hostile(one.address), " to ", hostile(one.server))),
    h("div", {},
      h("p", {}, hostile(one.detail)),
      facts([
        ["connection", one.number === null ? null : String(one.number)],
        ["depth", one.depth === null ? null : String(one.depth)],
        ["server name (SNI)", one.server_name === null ? null : hostile(one.server_name)],
        ["TLS", one.tls_version],
      ]),
      leaf(one.leaf), place));
}

export const rejections = {
  name: "rejections",
  title: "Rejections",
  async load(signal) {
    return ask("/rejections", { signal });
  },
  render(found) {
    const groups = new Map();
    for (const one of found.rejections) groups.set(one.reason, [...(groups.get(one.reason) ?? []), one]);
    const sorted = [...groups].sort(([, one], [, other]) => other.length - one.length);
    const kept = new Set(found.rejections.map((one) => one.id));
    for (const id of explained.keys()) if (!kept.has(id)) explained.delete(id);
    return [
      h("h1", {}, "Rejections"),
      h("p", { class: "quiet" }, found.total === 0 ? "Nobody has been rejected since the start."
        : `The latest ${found.rejections.length} of ${plural(found.total, "rejection")} since the start.`),
      sorted.map(([reason, list]) => h("section", { class: "card" },
        h("h2", {}, h("code", {}, reason), ` × ${list.length}`), list.map(item))),
    ];
  },
};
