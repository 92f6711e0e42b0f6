// The past of a client as small plots. The latest step is at the right edge.

import { count, field, figure, fit, made, milliseconds, percent, set, write } from "./text.js";

// What can be shown, and how wide a plot is: as wide as the past of a young process needs.
export const RANGES = {
  recent: { name: "15 min", widths: [[24, "2 min"], [60, "5 min"], [180, "15 min"]] },
  day: { name: "24 h", widths: [[24, "2 h"], [72, "6 h"], [288, "24 h"]] },
};

const HEIGHT = 40;

// Each plot: what it is called, the lines (the first may be filled), the least height of its scale,
// and how a value reads.
const PLOTS = [
  { title: "Requests/s", lines: (past) => [perSecond(past)], floor: 1, filled: true, text: figure },
  { title: "Failed", tone: "bad", lines: (past) => [share(past)], floor: 0.05, filled: true, text: percent },
  {
    title: "Latency", names: ["p50", "p95"], floor: 10, text: milliseconds,
    lines: (past) => [past.p50_milliseconds, past.p95_milliseconds],
  },
  { title: "Tokens taken", lines: (past) => [past.tokens], floor: 2, filled: true, text: count, isCount: true },
  { title: "Pool", lines: (past) => [past.pool], filled: true, text: figure, isLevel: true },
];

function perSecond(past) {
  const last = past.requests.length - 1;
  const length = (index) => (index === last ? past.last_step_seconds : past.step_seconds);
  return past.requests.map((requests, index) => requests / length(index));
}

function share(past) {
  return past.requests.map((requests, index) => (requests > 0 ? past.failed[index] / requests : null));
}

// A stepped line through the values, with a gap where there is none; closed at the bottom if filled, with
// nothing at all where the value is 0.
function path(values, top, steps, filled) {
  const height = (value) => (HEIGHT * (1 - Math.min(1, value / top))).toFixed(2);
  const start = steps - values.length;
  let drawn = "";
  let isOpen = false;
  const close = (x) => {
    if (isOpen && filled) drawn += `H${x}V${HEIGHT}Z`;
    else if (isOpen) drawn += `H${x}`;
    isOpen = false;
  };
  values.forEach((value, index) => {
    const x = start + index;
    if (value === null || (filled && value === 0)) {
      close(x);
    } else if (isOpen) {
      drawn += `H${x}V${height(value)}`;
    } else {
      drawn += filled ? `M${x} ${HEIGHT}V${height(value)}` : `M${x} ${height(value)}`;
      isOpen = true;
    }
  });
  close(steps);
  return drawn;
}

// What is said of one line: its last value and its highest, or their sum.
function summary(values, text, isCount) {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return { now: "–", most: "–", top: 0 };
  const top = Math.max(...known);
  if (isCount) return { now: text(known.reduce((sum, value) => sum + value, 0)), most: "", top };
  const last = values.at(-1);
  return { now: last === null ? "–" : text(last), most: text(top), top };
}

export function drawPlots(place, client, past, range) {
  const { widths } = RANGES[range];
  const known = past?.requests.length ?? 0;
  const [steps, length] = widths.find(([width]) => known <= width) ?? widths.at(-1);
  const plots = fit(place, PLOTS.length, () => made("plot"));
  PLOTS.forEach((plot, index) => {
    const lines = past ? plot.lines(past) : [[]];
    const said = lines.map((values) => summary(values, plot.text, plot.isCount));
    const top = plot.isLevel ? client.pool.capacity : Math.max(plot.floor, ...said.map((line) => line.top));
    const named = (which, line) => (plot.names ? `${plot.names[line]} ${said[line][which]}` : said[line][which]);
    const all = (which) => said.map((_, line) => named(which, line)).join(", ");
    const most = said.at(-1).most;

    const element = plots[index];
    write(field(element, "title"), plot.title);
    write(field(element, "now"), all("now"));
    write(field(element, "most"), plot.isLevel ? `of ${client.pool.capacity}` : most && `max ${most}`);
    write(field(element, "from"), `${length} ago`);
    const svg = element.querySelector("svg");
    const alt = plot.isCount ? `${all("now")} in ${length}` : `${all("now")} now, at most ${all("most")} in ${length}`;
    set(svg, "aria-label", `${plot.title}: ${alt}`);
    set(svg, "viewBox", `0 0 ${steps} ${HEIGHT}`);
    set(svg, "class", plot.tone ?? "");
    const paths = svg.querySelectorAll("path");
    paths.forEach((line, at) => {
      const values = lines[at] ?? [];
      set(line, "d", path(values, top, steps, plot.filled));
      set(line, "class", plot.filled ? "filled" : `line${at}`);
    });
  });
}
