// What all pages share: elements, calls, the stream of events, who is here, and which page is shown.

/** An element. Texts are texts: nothing is ever read as HTML. `on…` adds a listener, true and false set and leave out. */
export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (["value", "checked", "open", "indeterminate"].includes(name)) made[name] = value;
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...real(children));
  return made;
}
const real = (children) => children.flat(Infinity).filter((child) => child != null && child !== false);

export const fill = (place, ...children) => place.replaceChildren(...real(children));

/** A call of the API; throws an Error with the device's own words. */
export async function api(method, path, body, more = {}) {
  let answer;
  try {
    const json = body !== undefined && !(body instanceof Blob);
    answer = await fetch(`/api/v1/${path}`, { method, body: json ? JSON.stringify(body) : body, cache: "no-store",
      headers: json ? { "Content-Type": "application/json" } : {}, ...more });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The device does not answer.");
  }
  if (answer.status === 401 && path !== "session") logIn();
  const kind = answer.headers.get("content-type") ?? "";
  const found = kind.startsWith("application/json") ? await answer.json() : await answer.blob();
  if (!answer.ok) throw Object.assign(new Error(found.error ?? `The device answers ${answer.status}.`), { status: answer.status });
  return found;
}

export function toast(text) {
  const place = document.getElementById("toast");
  place.textContent = text;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => (place.textContent = ""), 6000);
}

/** Do something that may fail, and say so; a button that was pressed for it waits meanwhile. */
export async function act(work, button) {
  if (button) button.disabled = true;
  try { return await work(); } catch (error) { if (error.name !== "AbortError") toast(error.message); } finally { if (button) button.disabled = false; }
}

// ── who is here ──────────────────────────────────────────────────────────────────────────────────────────

export const here = { role: "", device: "", state: null, stream: "" };
const RANK = ["", "viewer", "operator", "admin"];
export const may = (role) => RANK.indexOf(here.role) >= RANK.indexOf(role);

function logIn() {
  const dialog = document.getElementById("login"), error = dialog.querySelector(".error");
  if (dialog.open) return;
  dialog.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    error.textContent = "";
    try {
      await api("POST", "session", { password: event.target.password.value });
      dialog.close();
      event.target.reset();
      await begin();
    } catch (wrong) { error.textContent = wrong.message; }
  };
  dialog.oncancel = (event) => event.preventDefault();
  dialog.showModal();
}

// ── the stream ───────────────────────────────────────────────────────────────────────────────────────────

export const bus = new EventTarget();
const tell = (name, detail) => bus.dispatchEvent(new CustomEvent(name, { detail }));
let source = null, heard = 0, offset = null, wait = 500, timer = 0;

/** The device's clock that never jumps, in seconds; null while it is not known. */
export const mono = () => (offset === null ? null : performance.now() / 1000 + offset);

function connect() {
  clearTimeout(timer);
  source?.close();
  source = null;
  if (document.hidden || !here.role) return;
  const mine = (source = new EventSource(`/api/v1/events/stream?after=${encodeURIComponent(here.stream)}`));
  heard = performance.now();
  mine.addEventListener("state", (message) => {
    heard = performance.now();
    wait = 500;
    const state = JSON.parse(message.data);
    here.state = state.error ? null : state;
    if (here.state) offset = state.mono - performance.now() / 1000;
    tell("state", state);
    showLink();
  });
  mine.addEventListener("event", (message) => {
    here.stream = message.lastEventId;
    const told = JSON.parse(message.data);
    countAlert(told);
    tell("event", told);
  });
  mine.addEventListener("missed", (message) => tell("missed", Number(message.data)));
  mine.onerror = () => {
    showLink();
    if (mine.readyState !== EventSource.CLOSED || source !== mine) return;
    // refused: too many look, or nobody is logged in any more
    timer = setTimeout(async () => { await look(); connect(); }, wait);
    wait = Math.min(10000, wait * 2);
  };
}

function showLink() {
  const silent = (performance.now() - heard) / 1000, lost = !source || source.readyState !== EventSource.OPEN || silent > 4;
  const was = document.body.classList.toggle("lost", lost && Boolean(here.role));
  const told = !here.role ? "" : !lost ? (here.state ? "connected" : "the agent is starting") : `no word from the device for ${Math.round(silent)} s`;
  const place = document.getElementById("link");
  if (place.textContent !== told) place.textContent = told;
  // a connection may be dead without anybody knowing, as after a sleep
  if (was && silent > 8 && source?.readyState === EventSource.OPEN) connect();
}

let alerts = 0;
function countAlert(told) {
  if (told.alert && !told.reviewed) alerts += 1;
  showAlerts();
}
export function setAlerts(count) { alerts = count; showAlerts(); }
function showAlerts() {
  const place = document.getElementById("alerts");
  place.hidden = !alerts;
  place.textContent = alerts;
  place.setAttribute("aria-label", `${alerts} alerts not looked at`);
}

// ── pages ────────────────────────────────────────────────────────────────────────────────────────────────

const PAGES = ["live", "events", "words", "models", "settings", "training", "health"];
let close = null, turn = 0;

async function show() {
  const name = PAGES.find((page) => location.hash.slice(1).split("/")[0] === page) ?? "live", mine = ++turn;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  close?.();
  close = null;
  const main = document.getElementById("main");
  fill(main);
  if (!here.role) return;
  const page = await import(`/static/${name}.js`);
  if (mine !== turn) return;
  document.title = `${page.title} · ${here.device || "edge-agent"}`;
  const place = h("div", {}, h("h2", {}, page.title));
  fill(main, place);
  close = page.open(place, location.hash.slice(1).split("/").slice(1).map(decodeURIComponent)) ?? null;
}

async function look() {
  try {
    const session = await api("GET", "session");
    const changed = session.role !== here.role;
    Object.assign(here, { role: session.role, device: session.device });
    document.getElementById("device").textContent = session.device || "edge-agent";
    document.getElementById("leave").hidden = !(session.password && session.role);
    for (const one of document.querySelectorAll("[data-role]")) one.hidden = !may(one.dataset.role);
    if (!session.role) logIn();
    return changed;
  } catch { return false; }
}

async function begin() {
  await look();
  connect();
  await show();
}

function theme(next) {
  try { if (next) localStorage.theme = next; next ??= localStorage.theme; } catch { /* nothing is kept here */ }
  if (next) document.documentElement.dataset.theme = next;
}

document.getElementById("theme").onclick = () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  theme(dark ? "light" : "dark");
};
document.getElementById("leave").onclick = (event) => act(async () => { await api("DELETE", "session"); await begin(); }, event.target);
addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => { connect(); tell("visible", !document.hidden); });
addEventListener("online", connect);
addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
setInterval(showLink, 1000);
theme();
begin();
