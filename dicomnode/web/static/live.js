// Keeps what is shown up to date: the server says that something has changed, and each part of the
// page that may have changed is fetched anew. Without this script every page works all the same.
"use strict";

(() => {
  const LEAST_MS = 1000; // between two looks at the same part
  const AGES_MS = 30000; // how old things are changes by itself
  const parts = () => [...document.querySelectorAll("[data-live]")];
  const pulse = document.getElementById("pulse");

  function theme() {
    const button = document.getElementById("theme");
    const root = document.documentElement;
    const isDark = () =>
      root.dataset.theme
        ? root.dataset.theme === "dark"
        : matchMedia("(prefers-color-scheme: dark)").matches;
    button.hidden = false;
    button.setAttribute("aria-pressed", isDark());
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      button.setAttribute("aria-pressed", isDark());
      document.querySelector("meta[name=color-scheme]").content = root.dataset.theme;
      document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
    });
  }

  function say(text, tone) {
    if (!pulse || (pulse.textContent === text && !pulse.hidden)) return;
    pulse.hidden = false;
    pulse.textContent = text;
    pulse.className = `pulse ${tone}`;
  }

  // What somebody is about to do must not be taken from under the hand.
  function isBusy(part) {
    const active = document.activeElement;
    return part.contains(active) && active.matches("select, input, textarea");
  }

  function swap(part, text) {
    const open = new Set([...part.querySelectorAll("details[open]")].map(placeOf));
    const focused = part.contains(document.activeElement) ? placeOf(document.activeElement) : null;
    const known = new Set([...part.querySelectorAll("tr[id]")].map((row) => row.id));
    part.innerHTML = text;
    for (const one of part.querySelectorAll("details")) one.open = open.has(placeOf(one));
    for (const row of part.querySelectorAll("tr[id]"))
      if (known.size && !known.has(row.id)) row.classList.add("new");
    if (focused) find(part, focused)?.focus({ preventScroll: true });
  }

  const SELECTOR = "a[href], button, summary, pre, [tabindex]";
  const labelOf = (one) => one.tagName + (one.id || one.getAttribute("href") || one.textContent);
  function placeOf(one) {
    const label = labelOf(one.tagName === "DETAILS" ? one.firstElementChild : one);
    return `${one.closest("article, tr")?.getAttribute("aria-labelledby") ?? ""} ${label}`;
  }
  function find(part, place) {
    return [...part.querySelectorAll(SELECTOR)].find((one) => placeOf(one) === place);
  }

  async function refresh(part) {
    if (isBusy(part)) return;
    const answer = await fetch(part.dataset.live, { headers: { "X-Part": "1" } });
    if (answer.status === 401) return location.reload(); // the session is over
    if (!answer.ok) return;
    const text = await answer.text();
    if (part.shown !== text && !isBusy(part)) swap(part, text);
    part.shown = text;
  }

  let waiting = null;
  let lastAt = 0;
  function refreshSoon() {
    if (waiting) return;
    const pause = Math.max(0, LEAST_MS - (Date.now() - lastAt));
    waiting = setTimeout(async () => {
      lastAt = Date.now();
      await Promise.allSettled(parts().map(refresh));
      waiting = null;
    }, pause);
  }

  function listen() {
    const stream = new EventSource("/live");
    stream.addEventListener("open", () => {
      say("Live", "good");
      refreshSoon(); // what was missed while nobody listened
    });
    stream.addEventListener("changed", refreshSoon);
    stream.addEventListener("error", () => say("Not live", "quiet"));
    addEventListener("pagehide", () => stream.close());
    setInterval(() => document.hidden || refreshSoon(), AGES_MS);
  }

  theme();
  for (const one of document.querySelectorAll("[data-submit]"))
    one.addEventListener("change", () => one.form.requestSubmit());
  if (pulse && parts().length) listen();
})();
