// What changes something asks first.

import { ask } from "./api.js";
import { h } from "./dom.js";

export function say(text) {
  document.getElementById("said").textContent = text;
}

export function isAsking() {
  return document.getElementById("question").open;
}

// Ask, and do it if the answer is yes.  The result is told in the same dialog.
export function confirm({ title, text, button, path, done }) {
  const dialog = document.getElementById("question");
  const before = document.activeElement;
  const close = () => dialog.close();
  const result = h("p", { role: "status" });
  const yes = h("button", { class: "risk", type: "button", onclick: act }, button);
  const no = h("button", { type: "button", onclick: close }, "Cancel");
  async function act() {
    yes.disabled = true;
    try {
      const answer = await ask(path, { method: "POST" });
      result.textContent = done(answer);
    } catch (error) {
      result.textContent = `It was not done: ${error.message}`;
      result.className = "bad";
    }
    say(result.textContent);
    yes.remove();
    no.textContent = "Close";
    no.focus();
  }
  dialog.replaceChildren(
    h("h2", { id: "question-title" }, title), h("p", { class: "hostile" }, text), result, h("div", { class: "bar" }, no, yes));
  dialog.addEventListener("close", () => before?.focus?.(), { once: true });
  dialog.showModal();
  no.focus();
}

export async function copy(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    say("Copied");
  } catch {
    button.textContent = "Select the text and copy it";
  }
  setTimeout(() => { button.textContent = label; }, 3000);
}
