// How figures and times read, and how they get into the document. Every text is set as text, never
// as markup: part of it comes from a server far away.

export function duration(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  let rest = Math.max(0, Math.floor(seconds));
  const shown = [];
  for (const [size, unit] of parts) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0 || shown.length > 0 || unit === "s") shown.push(`${count} ${unit}`);
  }
  return shown.slice(0, 2).join(" ");
}

export const time = (text) => new Date(text).toLocaleTimeString();

export const count = (number) => number.toLocaleString();

// Three digits are enough to see what changes.
export const figure = (number) => number.toLocaleString(undefined, { maximumSignificantDigits: 3 });

export const percent = (share) =>
  `${(100 * share).toLocaleString(undefined, { maximumFractionDigits: share < 0.1 ? 1 : 0 })} %`;

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1000) return `${figure(value / 1000)} s`;
  return `${value < 10 ? figure(value) : count(Math.round(value))} ms`;
}

export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function set(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function tint(element, base, tone) {
  set(element, "class", `${base} ${tone}`.trim());
}

export const byId = (id) => document.getElementById(id);

export const made = (template) => byId(template).content.firstElementChild.cloneNode(true);

export const field = (element, name) => element.querySelector(`[data-field="${name}"]`);

// Keeps the elements and changes their content, so that a selection survives.
export function fit(parent, length, make) {
  while (parent.children.length > length) parent.lastElementChild.remove();
  while (parent.children.length < length) parent.append(make());
  return parent.children;
}
