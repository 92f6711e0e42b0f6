// Draws /api/status: asks every two seconds, and counts down by itself in between. Every text is
// set as text, never as markup: part of it comes from a server far away.
"use strict";

const ASK_EVERY = 2000;
const DRAW_EVERY = 500;

const byId = (id) => document.getElementById(id);
let report = null;
let received = 0;
let silent = false;

function duration(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
  let rest = Math.max(0, Math.floor(seconds));
  const shown = [];
  for (const [size, unit] of parts) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0 || shown.length > 0 || unit === "s") shown.push(`${count}${unit}`);
  }
  return shown.slice(0, 2).join(" ");
}

const time = (text) => new Date(text).toLocaleTimeString();

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function tint(element, base, tone) {
  const wanted = `${base} ${tone}`.trim();
  if (element.className !== wanted) element.className = wanted;
}

// How a client is, in a word: alive or not, whether the last renewal failed, whether the API does.
function health(client, left) {
  const alive = client.token?.usable && left > 0;
  if (alive && client.api?.failing_since) return ["warn", "API failing"];
  if (alive && !client.failure) return ["good", "usable"];
  if (alive) return ["warn", "usable, renewal failing"];
  if (client.token) return ["bad", "no usable token"];
  return client.failure ? ["bad", "no token"] : ["warn", "no token yet"];
}

function nextText(next, age) {
  if (next.kind === "answer") return "under way";
  const left = next.in_seconds - age;
  return left < 1 ? "now" : `in ${duration(left)}`;
}

function drawClient(card, client, age) {
  const field = (name) => card.querySelector(`[data-field="${name}"]`);
  const { token, failure, pool, requests } = client;
  const left = token ? Math.max(0, token.seconds_left - age) : 0;
  const [tone, word] = health(client, left);

  write(field("name"), client.name);
  write(field("instance"), client.instance);
  write(field("id"), client.client_id);
  write(field("badge"), word);
  tint(field("badge"), "badge", tone);

  if (tone === "bad" || !token) {
    write(field("left"), token ? "Ended" : "None");
    write(field("until"), token ? `at ${time(token.expires)}` : "no token since the start");
  } else {
    write(field("left"), duration(left));
    write(field("until"), `left, until ${time(token.expires)}`);
  }

  const life = token ? (new Date(token.expires) - new Date(token.issued)) / 1000 : 0;
  const share = (seconds) => `${Math.min(100, Math.max(0, (100 * seconds) / life))}%`;
  const renewal = client.next.in_seconds === null ? null : left - (client.next.in_seconds - age);
  field("bar").style.width = life > 0 && tone !== "bad" ? share(left) : "0";
  tint(field("bar"), "", tone);
  field("renewal").hidden = !(life > 0 && tone !== "bad" && renewal > 0);
  if (!field("renewal").hidden) field("renewal").style.left = share(renewal);

  field("failure").hidden = !failure;
  tint(field("failure"), "failure", tone);
  if (failure) {
    const row = failure.in_a_row > 1 ? `, ${failure.in_a_row} times in a row` : "";
    write(field("outcome"), failure.outcome.replaceAll("_", " ") + row);
    write(field("when"), `${duration(failure.seconds_ago + age)} ago`);
    write(field("message"), failure.message);
  }

  const api = client.api;
  const calls = api ? api.answered + api.failed : 0;
  const percent = calls > 0 ? `${((100 * api.failed) / calls).toFixed(1)} %` : "";
  const isOut = api != null && api.failing_seconds !== null;
  field("api").hidden = !isOut;
  if (isOut) {
    write(field("api-since"), `for ${duration(api.failing_seconds + age)}, ${percent || "none"} of the last 5 minutes' calls`);
    write(field("api-message"), api.last_failure?.message ?? "");
  }
  write(field("api-share"), calls > 0 ? `${percent} of ${calls.toLocaleString()} failed` : "no calls");

  const problem = client.store?.problem;
  field("store").hidden = !problem;
  if (problem) write(field("problem"), problem);

  write(field("generation"), token ? `no. ${token.generation.toLocaleString()}` : "–");
  write(field("issued"), token ? time(token.issued) : "–");
  write(field("next"), nextText(client.next, age));
  const whole = Math.floor(pool.available);
  const dots = pool.capacity <= 10;
  write(field("dots"), dots ? "●".repeat(whole) + "○".repeat(Math.max(0, pool.capacity - whole)) : "");
  write(field("pool"), `${pool.available.toFixed(1)} of ${pool.capacity}`);
  write(field("total"), requests.total.toLocaleString());
  write(field("flight"), requests.in_flight.toLocaleString());
}

// Keeps the elements and changes their content, so that a selection survives.
function fit(parent, count, make) {
  while (parent.children.length > count) parent.lastElementChild.remove();
  while (parent.children.length < count) parent.append(make());
  return parent.children;
}

function row() {
  const line = document.createElement("tr");
  for (let cell = 0; cell < 4; cell += 1) line.insertCell();
  return line;
}

// A table's rows: numbers stand to the right.
function fill(body, lines) {
  const rows = fit(body, lines.length, row);
  lines.forEach((line, index) => line.forEach((value, cell) => {
    const number = typeof value === "number";
    write(rows[index].cells[cell], number ? value.toLocaleString() : value);
    tint(rows[index].cells[cell], "", number ? "number" : "");
  }));
}

function draw() {
  const state = byId("state");
  byId("note").hidden = !silent;
  document.querySelector("main").classList.toggle("stale", silent && report !== null);
  if (silent) {
    write(state, "not answering");
    tint(state, "badge", "bad");
    write(byId("note"), "The proxy does not answer; what is shown here is old. Asking again every two seconds.");
    document.title = "not answering · collibra-auth-proxy";
  }
  if (!report || silent) return;

  const age = (performance.now() - received) / 1000;
  const [tone, word] = report.draining ? ["warn", "draining"] : report.ready ? ["good", "ready"] : ["bad", "not ready"];
  write(state, word);
  tint(state, "badge", tone);
  write(byId("about"), `version ${report.version}, up ${duration(report.uptime_seconds + age)}`);
  document.title = `${word} · collibra-auth-proxy`;

  const refused = report.refused_configuration;
  byId("refused").hidden = !refused;
  if (refused) {
    write(byId("refused-when"), `for ${duration(refused.seconds_ago + age)}, the one before stays in force`);
    const faults = fit(byId("refused-faults"), refused.faults.length, () => document.createElement("p"));
    refused.faults.forEach((fault, index) => write(faults[index], fault));
  }

  const cards = fit(byId("clients"), report.clients.length, () => byId("client").content.firstElementChild.cloneNode(true));
  report.clients.forEach((client, index) => drawClient(cards[index], client, age));

  byId("app-section").hidden = report.apps.length === 0;
  fill(byId("apps"), report.apps.map((app) => [app.name, app.client ?? "–", app.requests, app.local_tokens]));
  fill(byId("listeners"), report.listeners.map((listener) => [listener.name, listener.address, listener.client, listener.connections]));
}

async function ask() {
  try {
    const answer = await fetch("/api/status", { signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    report = await answer.json();
    received = performance.now();
    silent = false;
  } catch {
    silent = true;
  }
  draw();
  setTimeout(ask, ASK_EVERY);
}

setInterval(draw, DRAW_EVERY);
ask();
