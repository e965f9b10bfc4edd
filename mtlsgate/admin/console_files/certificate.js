// Would this certificate be admitted, and when?

import { ask } from "./api.js";
import { h, hostile } from "./dom.js";
import { explanation } from "./explanation.js";

const LARGEST = 65536;

export const certificate = {
  name: "certificate",
  title: "Try a certificate",
  isQuiet: true,
  async load(signal) {
    return ask("/status", { signal });
  },
  render(status) {
    const servers = status.servers.filter((one) => one.client_authentication !== "none");
    const result = h("div", { role: "status" });
    let file = null;
    const text = h("textarea", {
      id: "pem", spellcheck: "false", autocomplete: "off", placeholder: "-----BEGIN CERTIFICATE-----",
      oninput: () => { file = null; chosen.textContent = ""; },
      ondragover: (event) => { event.preventDefault(); text.classList.add("over"); },
      ondragleave: () => text.classList.remove("over"),
      ondrop: (event) => {
        event.preventDefault();
        text.classList.remove("over");
        if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
      },
    });
    const chosen = h("span", { class: "quiet", role: "status" });
    const server = h("select", {}, h("option", { value: "" }, "every server"), servers.map((one) => h("option", { value: one.name }, one.name)));
    const at = h("input", { type: "datetime-local", step: "1" });
    async function take(given) {
      if (given.size > LARGEST) {
        result.replaceChildren(h("p", { class: "bad" }, "That file is too large for a certificate."));
        return;
      }
      file = await given.arrayBuffer();
      const isText = new Uint8Array(file.slice(0, 5)).every((one) => one < 128) && new TextDecoder().decode(file).includes("-----BEGIN");
      if (isText) { text.value = new TextDecoder().decode(file); file = null; chosen.textContent = given.name; } else chosen.textContent = `${given.name}, in DER`;
    }
    async function tryIt(event) {
      event.preventDefault();
      const query = new URLSearchParams();
      if (server.value) query.set("server", server.value);
      if (at.value) query.set("at", new Date(at.value).toISOString().replace(/\.\d+Z$/, "Z"));
      result.replaceChildren(h("p", { class: "quiet" }, "Asking…"));
      try {
        const answer = await ask(`/explain?${query}`, { method: "POST", body: file ?? text.value });
        const subject = answer.explanations[0]?.subject;
        result.replaceChildren(...(subject === undefined ? [] : [h("h2", {}, hostile(subject))]), explanation(answer));
      } catch (error) {
        result.replaceChildren(h("p", { class: "bad" }, hostile(error.message)));
      }
    }
    return [
      h("h1", {}, "Try a certificate"),
      h("p", { class: "quiet" }, "Would a client with it be admitted? Nothing is connected to, and nothing is kept. The client's own certificate comes first, then what it sends along."),
      h("form", { class: "card", onsubmit: tryIt },
        h("label", { for: "pem" }, "Certificates, in PEM; or drop a file here"), text,
        h("div", { class: "bar" },
          h("label", {}, "File", h("input", { type: "file", accept: ".pem,.crt,.cer,.der,application/x-x509-ca-cert,application/x-pem-file", onchange: (event) => { if (event.target.files.length) take(event.target.files[0]); } })),
          h("label", {}, "Server", server),
          h("label", {}, "At (empty for now)", at),
          h("button", { class: "first", type: "submit" }, "Explain"), chosen)),
      h("section", { class: "card" }, result),
    ];
  },
};
