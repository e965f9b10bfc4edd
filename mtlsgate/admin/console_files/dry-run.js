// What a reload would change, and which clients it would disconnect.

import { confirm } from "./actions.js";
import { ask } from "./api.js";
import { h, hostile } from "./dom.js";

function list(title, lines, nothing) {
  return [h("h3", {}, title), lines.length ? h("ul", {}, lines.map((one) => h("li", {}, hostile(one)))) : h("p", { class: "quiet" }, nothing)];
}

export const dryRun = {
  name: "dry-run",
  title: "Dry run",
  isQuiet: true,
  async load() {
    return null;
  },
  render() {
    const result = h("div", { role: "status" });
    const now = h("button", {
      type: "button", class: "risk", disabled: true, onclick: () => confirm({
        title: "Reload the configuration?",
        text: "The files are read again: they may have changed since the dry run.",
        button: "Reload", path: "/reload",
        done: (found) => found.succeeded ? `Epoch ${found.epoch} is in force.` : `Refused: ${found.problems.join("; ")}`,
      }),
    }, "Reload…");
    const run = h("button", { class: "first", type: "button", onclick: tryIt }, "Run");
    async function tryIt() {
      run.disabled = true;
      result.replaceChildren(h("p", { class: "quiet" }, "Reading the files…"));
      try {
        const found = await ask("/reload?dry_run=1", { method: "POST" });
        now.disabled = !found.succeeded;
        result.replaceChildren(
          h("p", {}, found.succeeded ? h("strong", { class: "good" }, "It would take over.") : h("strong", { class: "bad" }, "It would be refused."), ` Read in ${found.seconds.toFixed(2)} s.`),
          ...(found.problems.length ? list("Problems", found.problems, "") : []),
          ...(found.succeeded ? [...list("Changes", found.changes, "Nothing changes."), ...list("Clients it would drop", found.dropped, "Nobody would be dropped.")] : []));
      } catch (error) {
        result.replaceChildren(h("p", { class: "bad" }, error.message));
      }
      run.disabled = false;
    }
    return [
      h("h1", {}, "Dry run"),
      h("p", { class: "quiet" }, "Reads the configuration as a reload would, and changes nothing."),
      h("div", { class: "bar" }, run, now),
      h("section", { class: "card" }, result),
    ];
  },
};
