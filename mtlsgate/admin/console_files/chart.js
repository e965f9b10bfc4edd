// A chart of the last hour: a column for each minute.

import { h, plural, svg } from "./dom.js";

const HEIGHT = 60;

export function chart(history, label) {
  const { admitted, rejected } = history;
  const most = Math.max(1, ...admitted.map((count, at) => count + rejected[at]));
  const sum = (counts) => counts.reduce((one, other) => one + other, 0);
  const title = `${label}, last hour: ${sum(admitted)} admitted, ${sum(rejected)} rejected, `
    + `at most ${plural(most === 1 && !sum(admitted) && !sum(rejected) ? 0 : most, "client")} a minute`;
  const columns = admitted.map((count, at) => {
    const good = (count / most) * HEIGHT;
    const bad = (rejected[at] / most) * HEIGHT;
    return [
      count > 0 && svg("rect", { class: "admitted", x: at + 0.1, width: 0.8, y: HEIGHT - good, height: good }),
      rejected[at] > 0
        && svg("rect", { class: "rejected", x: at + 0.1, width: 0.8, y: HEIGHT - good - bad, height: bad }),
    ].filter(Boolean);
  });
  return h("div", {},
    svg("svg", { class: "chart", role: "img", "aria-label": title, viewBox: `0 0 ${admitted.length} ${HEIGHT}`, preserveAspectRatio: "none" },
      svg("title", {}, title),
      columns,
      svg("line", { class: "axis", x1: 0, x2: admitted.length, y1: HEIGHT, y2: HEIGHT, "vector-effect": "non-scaling-stroke" })),
    h("p", { class: "key" },
      h("span", {}, h("i", { class: "admitted" }), `${sum(admitted)} admitted`),
      h("span", {}, h("i", { class: "rejected" }), `${sum(rejected)} rejected`),
      h("span", {}, "in the last hour")));
}

export const EMPTY = { admitted: Array(60).fill(0), rejected: Array(60).fill(0) };
