// Making elements.  Every text becomes a text node: names out of certificates are hostile.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((one) => one !== null && one !== undefined));
  return element;
}

export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// A text that somebody outside has chosen: set apart, so that it cannot turn its surroundings
// round.
export function hostile(text, tag = "span") {
  return h(tag, { class: "hostile", dir: "auto" }, text);
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, shown.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

export function numbers(pairs) {
  return h("dl", { class: "numbers" },
    pairs.map(([name, value, kind]) => h("div", {}, h("dt", {}, name), h("dd", { class: kind ?? "" }, String(value)))));
}

// Put new content in place of the old, and keep the focus where it was.
export function replace(place, ...content) {
  const key = place.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const open = new Set([...place.querySelectorAll("details[open][data-key]")].map((one) => one.dataset.key));
  place.replaceChildren(...content);
  for (const one of place.querySelectorAll("details[data-key]")) {
    if (open.has(one.dataset.key)) one.open = true;
  }
  if (key !== undefined) {
    for (const one of place.querySelectorAll("[data-key]")) {
      if (one.dataset.key === key) { one.focus(); break; }
    }
  }
}

export function when(text) {
  const date = new Date(text);
  return h("time", { datetime: text, title: date.toISOString() },
    date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }));
}

export function day(text) {
  const date = new Date(text);
  return h("time", { datetime: text, title: date.toISOString() },
    date.toLocaleDateString(undefined, { dateStyle: "medium" }));
}

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

export function lasted(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const at = UNITS.findIndex(([, size]) => whole >= size);
  if (at < 0) return "0 s";
  const [unit, size] = UNITS[at];
  const rest = UNITS[at + 1];
  const more = rest === undefined ? 0 : Math.floor((whole % size) / rest[1]);
  return `${Math.floor(whole / size)} ${unit}` + (more ? ` ${more} ${rest[0]}` : "");
}

export function bytes(count) {
  if (count < 1024) return `${count} B`;
  const at = Math.min(4, Math.floor(Math.log2(count) / 10));
  return `${(count / 2 ** (10 * at)).toPrecision(3)} ${["B", "KiB", "MiB", "GiB", "TiB"][at]}`;
}

export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString()} ${count === 1 ? one : many}`;
}
