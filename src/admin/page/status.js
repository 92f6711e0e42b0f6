// Listens to /api/events and draws what it says; counts down by itself in between.

import { drawCard, drawPast } from "./cards.js";
import { RANGES } from "./plots.js";
import { drawTables, prepareTables } from "./tables.js";
import { byId, duration, fit, made, set, time, tint, write } from "./text.js";

// Without an event for so long, in milliseconds, the connection counts as lost: one comes each second.
const SILENCE = 3500;
const RECONNECT_EVERY = 1000;
const DRAW_EVERY = 500;

// How far back the figures of "the last 10 s" look, in milliseconds.
const LATELY = 10_000;

let report = null;
let received = 0;
let history = null;
let range = "recent";
let stream = null;
let opened = 0;
let heard = performance.now();
let heardAt = new Date();
// Per client: its totals at each of the last events, the oldest first.
let totals = new Map();

function hear() {
  heard = performance.now();
  heardAt = new Date();
}

function connect() {
  stream?.close();
  opened = performance.now();
  const events = new EventSource("/api/events");
  events.addEventListener("status", (event) => take(JSON.parse(event.data)));
  events.addEventListener("history", (event) => takeHistory(JSON.parse(event.data)));
  events.onerror = () => {
    events.close();
    if (stream !== events) return;
    stream = null;
    ask();
  };
  stream = events;
}

// Where the stream is refused, because too many watch, the answers are still to be had.
async function ask() {
  const get = async (path) => {
    const response = await fetch(path, { signal: AbortSignal.timeout(SILENCE) });
    if (!response.ok) throw new Error(`${path}: ${response.status}`);
    return response.json();
  };
  try {
    take(await get("/api/status"));
    takeHistory(await get("/api/history"));
  } catch {
    // silence says the rest
  }
}

function take(said) {
  hear();
  if (report && report.started !== said.started) totals = new Map();
  report = said;
  received = heard;
  for (const { name, requests } of said.clients) {
    const known = totals.get(name) ?? [];
    const { total, failed, rejected = 0 } = requests;
    known.push({ at: heard, total, failed, rejected });
    // the first is what the window is reckoned from
    while (known.length > 1 && known[1].at <= heard - LATELY) known.shift();
    totals.set(name, known);
  }
  draw();
}

function takeHistory(said) {
  hear();
  history = said;
  drawHistory();
}

function lately(name) {
  const known = totals.get(name);
  const [first, last] = [known[0], known.at(-1)];
  return {
    requests: last.total - first.total,
    failed: last.failed - first.failed,
    rejected: last.rejected - first.rejected,
  };
}

function cards() {
  return fit(byId("clients"), report.clients.length, () => made("client"));
}

function drawHistory() {
  if (!report) return;
  const all = cards();
  report.clients.forEach((client, index) => drawPast(all[index], client, history, range));
}

function drawConnection(isLost) {
  document.body.classList.toggle("stale", isLost && report !== null);
  byId("note").hidden = !isLost;
  tint(byId("live"), "live", isLost ? "bad" : report ? "good" : "");
  write(byId("live"), isLost ? "connection lost" : report ? "live" : "connecting");
  if (!isLost) return;
  const old = report ? ` What is shown here is from ${time(heardAt)}.` : "";
  write(byId("note"), `Connection lost: the proxy does not answer.${old} This page keeps trying.`);
  write(byId("state"), "not answering");
  tint(byId("state"), "badge", "bad");
  document.title = "not answering · collibra-auth-proxy";
}

function drawConfiguration(age) {
  const refused = report.refused_configuration;
  byId("configuration").hidden = !refused;
  if (!refused) return;
  write(byId("refused-since"), `for ${duration(refused.seconds_ago + age)}; the one before stays in force`);
  const faults = fit(byId("refused-faults"), refused.faults.length, () => document.createElement("li"));
  refused.faults.forEach((fault, index) => write(faults[index], fault));
}

function draw() {
  const isLost = performance.now() - heard > SILENCE;
  drawConnection(isLost);
  if (!report || isLost) return;

  const age = (performance.now() - received) / 1000;
  const [tone, word] = report.draining ? ["warn", "draining"] : report.ready ? ["good", "ready"] : ["bad", "not ready"];
  write(byId("state"), word);
  tint(byId("state"), "badge", tone);
  write(byId("about"), `version ${report.version}, up ${duration(report.uptime_seconds + age)}`);
  document.title = `${word} · collibra-auth-proxy`;

  byId("board").hidden = false;
  drawConfiguration(age);
  const before = byId("clients").children.length;
  const all = cards();
  report.clients.forEach((client, index) => drawCard(all[index], client, age, lately(client.name)));
  if (before !== all.length) drawHistory();
  drawTables(report, age);
}

function watch() {
  const now = performance.now();
  if (stream === null && now - opened > RECONNECT_EVERY) connect();
  else if (now - Math.max(heard, opened) > SILENCE) connect();
  draw();
}

for (const button of byId("range").children) {
  write(button, RANGES[button.value].name);
  button.addEventListener("click", () => {
    range = button.value;
    for (const other of byId("range").children) set(other, "aria-pressed", String(other === button));
    drawHistory();
  });
}
prepareTables(draw);
connect();
setInterval(watch, DRAW_EVERY);
