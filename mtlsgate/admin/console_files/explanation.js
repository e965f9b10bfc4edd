// What `explain` makes of a certificate: the verdict, and every rule's.

import { copy } from "./actions.js";
import { h, hostile } from "./dom.js";

function verdict(one) {
  if (one.admitted) return [h("strong", { class: "good" }, "admitted"), " by rule ", hostile(one.by)];
  const depth = one.depth === null ? "" : ` at depth ${one.depth}`;
  return [h("strong", { class: "bad" }, `rejected: ${one.reason}`), `${depth}: `, hostile(one.detail)];
}

// The rule that lacks the least: the likeliest that was meant.
function nearest(rules) {
  const missing = rules.filter((one) => !one.admitted && one.hints.length > 0);
  return missing.reduce((best, one) => (best === null || one.hints.length < best.hints.length ? one : best), null);
}

export function explanation(answer) {
  const blocks = answer.explanations.map((one) => {
    const near = one.admitted ? null : nearest(one.rules);
    const only = one.admitted && one.tls_versions.length === 1 && one.tls_versions[0] === "1.3";
    return h("section", {},
      h("h3", {}, "Server ", hostile(one.server)),
      h("p", {}, verdict(one)),
      only ? h("p", { class: "quiet" }, "With TLS 1.3; TLS 1.2 cannot use its key, or the server does not offer it.") : null,
      one.rules.map((rule) => h("div", { class: `rule ${rule.admitted ? "admits" : rule === near ? "nearest" : ""}` },
        h("p", {}, "Rule ", hostile(rule.rule), rule === near ? " (the nearest)" : "", ": ", verdict(rule)),
        rule.hints.length ? h("ul", {}, rule.hints.map((hint) => h("li", {}, hostile(hint)))) : null)));
  });
  if (!blocks.length) blocks.push(h("p", {}, "No server asks for certificates."));
  return h("div", {}, blocks, answer.pin_block ? pinBlock(answer.pin_block) : null);
}

export function pinBlock(text) {
  const button = h("button", { type: "button", onclick: () => copy(text, button) }, "Copy");
  return h("div", {},
    h("p", {}, "A ", h("code", {}, "client_certificate"), " with this block, and nothing else in it, admits exactly this certificate:"),
    h("pre", { tabindex: "0", "aria-label": "A pin to paste" }, text), button);
}
