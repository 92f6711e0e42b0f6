// A card for each client: its token, what is the matter, its figures, its last token requests.

import { count, duration, field, figure, fit, made, milliseconds, percent, set, tint, time, write } from "./text.js";
import { drawPlots } from "./plots.js";

// How a client is, in a word. `lately` is what its requests did in the last ten seconds.
function health(client, left, lately) {
  const { token, failure } = client;
  const isAlive = token?.usable && left > 0;
  if (isAlive && token.rejected) return ["bad", "token rejected"];
  if (isAlive && failure) return ["warn", "usable, renewal failing"];
  if (isAlive && client.api?.failing_since) return ["warn", "usable, API failing"];
  if (isAlive && isFailing(lately)) return ["warn", "usable, requests failing"];
  if (isAlive) return ["good", "usable"];
  if (token) return ["bad", "no usable token"];
  return failure ? ["bad", "no token"] : ["warn", "no token yet"];
}

const isFailing = (lately) => lately.failed > 0 && lately.failed >= 0.05 * lately.requests;

// All that is the matter with a client: how bad, what, since when or how much, and more of it.
function notices(client, lately, age) {
  const { token, failure, api } = client;
  const list = [];
  if (token?.rejected || lately.rejected > 0) {
    const next = token?.rejected ? "Requests wait for a new token." : `Token no. ${token?.generation ?? 0} is in use now.`;
    const often = lately.rejected > 0 ? `${count(lately.rejected)} x 401 in the last 10 s` : "";
    list.push([token?.rejected ? "bad" : "warn", "token rejected", often,
      `The API rejected a token that should be live: it was revoked, or its client may not call this. ${next}`]);
  }
  if (failure) {
    const row = failure.in_a_row > 1 ? `, ${count(failure.in_a_row)} times in a row` : "";
    list.push([token?.usable ? "warn" : "bad", `token request: ${failure.outcome.replaceAll("_", " ")}`,
      `${duration(failure.seconds_ago + age)} ago${row}`, failure.message]);
  }
  if (api?.failing_since) {
    list.push(["bad", "API failing", `for ${duration(api.failing_seconds + age)}`, api.last_failure?.message ?? ""]);
  } else if (isFailing(lately)) {
    list.push(["warn", "requests failing", `${count(lately.failed)} of ${count(lately.requests)} in the last 10 s`,
      "They were answered with a 5xx, or not at all."]);
  }
  if (client.store?.problem) list.push(["warn", "store unavailable", "", client.store.problem]);
  return list;
}

function nextText(next, age) {
  if (next.kind === "answer") return "in flight";
  const left = next.in_seconds - age;
  return left < 1 ? "now" : `in ${duration(left)}`;
}

function poolText(pool) {
  const whole = Math.floor(pool.available);
  const dots = pool.capacity <= 10 ? `${"●".repeat(whole)}${"○".repeat(Math.max(0, pool.capacity - whole))}` : "";
  return [dots, `${pool.available.toFixed(1)} of ${pool.capacity}`];
}

function storeText(store) {
  if (!store) return "–";
  if (store.problem) return `${store.kind}, unavailable`;
  if (store.kind === "memory") return "memory";
  const took = store.latency_milliseconds ?? null;
  return took === null ? `${store.kind}, up` : `${store.kind}, up, ${milliseconds(took)}`;
}

function failedText(failed, all, none) {
  return all > 0 ? `${percent(failed / all)} of ${count(all)}` : none;
}

// The token's life from left to right, and the moment of its renewal.
function drawLife(card, client, left, age, tone) {
  const { token, next } = client;
  const life = token ? (new Date(token.expires) - new Date(token.issued)) / 1000 : 0;
  const share = (seconds) => `${Math.min(100, Math.max(0, (100 * seconds) / life)).toFixed(2)}%`;
  const isAlive = life > 0 && left > 0;
  const renewal = next.in_seconds === null ? 0 : left - (next.in_seconds - age);
  field(card, "bar").style.width = isAlive ? share(left) : "0";
  tint(field(card, "bar"), "", tone);
  field(card, "renewal").hidden = !(isAlive && renewal > 0);
  if (isAlive && renewal > 0) field(card, "renewal").style.left = share(renewal);
}

function drawNotices(place, list) {
  const rows = fit(place, list.length, () => made("notice"));
  list.forEach(([tone, title, when, text], index) => {
    tint(rows[index], "notice", tone);
    write(field(rows[index], "title"), title);
    write(field(rows[index], "when"), when);
    write(field(rows[index], "text"), text);
  });
}

function drawTokenRequests(card, client) {
  const requests = client.token_requests ?? [];
  set(field(card, "log"), "aria-label", `Last token requests of ${client.name}`);
  field(card, "no-log").hidden = requests.length > 0;
  const rows = fit(field(card, "requests"), requests.length, () => made("token-request"));
  requests.forEach((request, index) => {
    const row = rows[index];
    write(field(row, "at"), time(request.at));
    write(field(row, "outcome"), request.outcome.replaceAll("_", " "));
    tint(field(row, "outcome"), "outcome", request.outcome === "ok" ? "good" : "bad");
    write(field(row, "took"), milliseconds(request.milliseconds));
  });
}

export function drawCard(card, client, age, lately) {
  const { token, pool, requests, api, store } = client;
  const left = token ? Math.max(0, token.seconds_left - age) : 0;
  const [tone, word] = health(client, left, lately);
  const say = (name, text) => write(field(card, name), text);

  say("name", client.name);
  say("instance", client.instance);
  say("badge", word);
  tint(field(card, "badge"), "badge", tone);
  drawNotices(field(card, "notices"), notices(client, lately, age));

  if (left > 0) {
    say("left", duration(left));
    say("until", `left, until ${time(token.expires)}`);
  } else {
    say("left", token ? "Expired" : "None");
    say("until", token ? `at ${time(token.expires)}` : "no token since the start");
  }
  drawLife(card, client, left, age, tone);

  say("generation", token ? `no. ${count(token.generation)}` : "–");
  say("issued", token ? time(token.issued) : "–");
  say("next", nextText(client.next, age));
  const [dots, level] = poolText(pool);
  say("dots", dots);
  say("pool", level);
  say("total", count(requests.total));
  say("flight", count(requests.in_flight));
  const past = requests.lately ?? { requests: 0, failed: 0 };
  say("failed", failedText(past.failed, past.requests, "no requests"));
  say("p50", milliseconds(past.p50_milliseconds));
  say("p95", milliseconds(past.p95_milliseconds));
  field(card, "api-part").hidden = !api;
  if (api) say("api", failedText(api.failed, api.answered + api.failed, "no calls"));
  say("store", storeText(store));
  field(card, "replica-part").hidden = !store?.replicas;
  if (store?.replicas) say("replicas", figure(store.replicas));
  say("id", client.client_id);
  drawTokenRequests(card, client);
}

export function drawPast(card, client, history, range) {
  drawPlots(field(card, "plots"), client, history?.clients[client.name]?.[range], range);
}
