// Apps, listeners and certificates as tables. Apps can be sorted and filtered.

import { byId, count, duration, field, figure, fit, made, percent, set, tint, write } from "./text.js";

// How much of its nearer limit an app uses; null without a limit.
function used(app) {
  const shares = [[app.rate, app.max_rate], [app.in_flight, app.max_in_flight]];
  const known = shares.filter(([, most]) => most > 0).map(([now, most]) => now / most);
  return known.length > 0 ? Math.max(...known) : null;
}

const failedShare = (app) => (app.requests > 0 ? app.failed / app.requests : 0);

// What each column of the apps is sorted by.
const KEYS = {
  name: (app) => app.name,
  client: (app) => app.client ?? "",
  rate: (app) => app.rate,
  flight: (app) => app.in_flight,
  used: (app) => used(app) ?? -1,
  failed: failedShare,
  requests: (app) => app.requests,
  tokens: (app) => app.local_tokens,
  seen: (app) => (app.last_seen ? Date.parse(app.last_seen) : 0),
};

let sorted = { key: "name", isRising: true };

function compare(one, other) {
  const [a, b] = [KEYS[sorted.key](one), KEYS[sorted.key](other)];
  const order = typeof a === "string" ? a.localeCompare(b) : a - b;
  return (sorted.isRising ? order : -order) || one.name.localeCompare(other.name);
}

function drawHeads() {
  for (const head of byId("app-heads").children) {
    const isIt = head.dataset.key === sorted.key;
    if (isIt) set(head, "aria-sort", sorted.isRising ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
    write(field(head, "arrow"), isIt ? (sorted.isRising ? "▲" : "▼") : "");
  }
}

// Calls `redraw` after the user has sorted or filtered.
export function prepareTables(redraw) {
  byId("app-heads").addEventListener("click", (event) => {
    const key = event.target.closest("th")?.dataset.key;
    if (!event.target.closest("button") || !key) return;
    // of figures, the greatest come first
    const isText = key === "name" || key === "client";
    sorted = { key, isRising: key === sorted.key ? !sorted.isRising : isText };
    redraw();
  });
  byId("filter").addEventListener("input", redraw);
}

const of = (now, most) => (most === null || most === undefined ? figure(now) : `${figure(now)} of ${figure(most)}`);

function drawApp(row, app, now) {
  const say = (name, text) => write(field(row, name), text);
  const share = used(app);
  say("name", app.name);
  say("client", app.client ?? "–");
  say("rate", of(app.rate, app.max_rate));
  say("flight", of(app.in_flight, app.max_in_flight));
  field(row, "meter").hidden = share === null;
  if (share !== null) field(row, "level").style.width = `${Math.min(100, 100 * share).toFixed(1)}%`;
  tint(field(row, "level"), "", share >= 0.95 ? "bad" : share >= 0.8 ? "warn" : "");
  say("used", share === null ? "no limit" : percent(share));
  say("failed", app.failed > 0 ? `${percent(failedShare(app))} (${count(app.failed)})` : "0");
  tint(field(row, "failed"), "number", app.failed > 0 ? "worth" : "");
  say("requests", count(app.requests));
  say("tokens", count(app.local_tokens));
  say("seen", app.last_seen ? `${duration(now - Date.parse(app.last_seen) / 1000)} ago` : "never");
}

export function drawTables(report, age) {
  const now = Date.parse(report.at) / 1000 + age;
  const wanted = byId("filter").value.trim().toLowerCase();
  const fits = (app) => app.name.toLowerCase().includes(wanted) || (app.client ?? "").toLowerCase().includes(wanted);
  const apps = report.apps.filter(fits).sort(compare);
  byId("app-section").hidden = report.apps.length === 0;
  write(byId("app-count"), wanted ? `${apps.length} of ${report.apps.length} apps` : `${report.apps.length} apps`);
  drawHeads();
  const rows = fit(byId("apps"), apps.length, () => made("app"));
  apps.forEach((app, index) => drawApp(rows[index], app, now));

  const listeners = fit(byId("listeners"), report.listeners.length, () => made("listener"));
  report.listeners.forEach((listener, index) => {
    const say = (name, text) => write(field(listeners[index], name), text);
    say("name", listener.name);
    say("address", listener.address);
    say("client", listener.client);
    const most = listener.max_connections > 0 ? listener.max_connections : null;
    say("connections", most === null ? count(listener.connections) : `${count(listener.connections)} of ${count(most)}`);
  });

  const certificates = report.certificates ?? [];
  byId("certificate-section").hidden = certificates.length === 0;
  const lines = fit(byId("certificates"), certificates.length, () => made("certificate"));
  certificates.forEach((certificate, index) => {
    const say = (name, text) => write(field(lines[index], name), text);
    const days = certificate.days_left;
    say("name", certificate.name);
    say("kind", certificate.kind);
    say("expires", new Date(certificate.expires).toLocaleDateString());
    say("left", days < 0 ? "expired" : days < 14 ? `${days} days left: renew it` : `${count(days)} days left`);
    tint(field(lines[index], "left"), "outcome", days < 0 ? "bad" : days < 14 ? "warn" : "good");
  });
}
