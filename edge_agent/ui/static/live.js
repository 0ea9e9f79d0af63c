// Live: what each pipeline sees, how old that is, and how its stream fares.
import { bus, h, here, may, mono } from "./app.js";

export const title = "Live";
const CALM = { ok: "ok", ended: "soft", stopped: "soft", starting: "soft" };
const BLANK = new Set(["dark", "frozen", "stalled", "hung", "reconnecting", "ended", "stopped", "starting"]);

/** Parts of a multipart stream: {about, data} each. */
export async function* parts(body) {
  const reader = body.getReader(), text = new TextDecoder();
  let buffer = new Uint8Array(0);
  for (;;) {
    const at = find(buffer);
    if (at >= 0) {
      const head = text.decode(buffer.subarray(0, at)), size = Number(/content-length: (\d+)/i.exec(head)?.[1]);
      if (buffer.length >= at + 4 + size) {
        yield { about: JSON.parse(/x-about: (.*)/i.exec(head)[1]), data: buffer.slice(at + 4, at + 4 + size) };
        buffer = buffer.slice(at + 6 + size);
        continue;
      }
    }
    const { done, value } = await reader.read();
    if (done) return;
    const more = new Uint8Array(buffer.length + value.length);
    more.set(buffer);
    more.set(value, buffer.length);
    buffer = more;
  }
}
function find(bytes) {
  for (let at = 0; at + 3 < Math.min(bytes.length, 8192); at++) if (bytes[at] === 13 && bytes[at + 1] === 10 && bytes[at + 2] === 13 && bytes[at + 3] === 10) return at;
  return -1;
}

export function open(place) {
  const cards = new Map(), grid = h("div", { class: "cards" }), note = h("p", { class: "soft" });
  let always = false, abort = null, names = "", wait = 500, timer = 0, closed = false;
  const button = h("button", { type: "button", "aria-pressed": "false", onclick: () => {
    always = !always;
    button.setAttribute("aria-pressed", always);
    look();
  } }, "Every picture");
  place.append(h("div", { class: "row" }, button, h("small", {}, "Otherwise a still a minute until something happens.")), note, grid);

  function card(pipe) {
    const img = h("img", { alt: "", hidden: true }), age = h("span", { class: "age", hidden: true }), over = h("div", { class: "over", hidden: true });
    const view = pipe.takes === "pictures" ? h("div", { class: "view" }, h("span", {}, "no picture yet"), img, over, age) : null;
    const made = { tag: h("span", { class: "tag" }), why: h("p", { class: "why", hidden: true }), rate: h("small"), seen: h("p", { class: "seen" }), img, age, over, view, at: null, url: "" };
    made.root = h("article", { class: "card", "aria-label": pipe.name }, h("div", { class: "top" }, h("h3", {}, pipe.name), made.tag,
      made.rate), view, made.seen, made.why, view && may("admin") ? h("a", { href: `#settings/${encodeURIComponent(pipe.name)}` }, "Zones and settings") : null);
    return made;
  }

  function states() {
    const pipes = here.state?.pipelines ?? [];
    note.textContent = here.state ? (pipes.length ? "" : "No pipeline is at work.") : "The agent is starting.";
    for (const name of [...cards.keys()].filter((one) => !pipes.some((pipe) => pipe.name === one))) { cards.get(name).root.remove(); cards.delete(name); }
    for (const pipe of pipes) {
      if (!cards.has(pipe.name)) { cards.set(pipe.name, card(pipe)); grid.append(cards.get(pipe.name).root); }
      const one = cards.get(pipe.name), bad = pipe.trouble || pipe.refused || (CALM[pipe.stream] ? "" : pipe.why);
      one.tag.className = `tag ${CALM[pipe.stream] ?? "bad"}`;
      one.tag.textContent = pipe.stream;
      one.blank = BLANK.has(pipe.stream) ? `${pipe.stream}${pipe.why ? `: ${pipe.why}` : ""}` : "";
      one.rate.textContent = `${pipe.rate} ${pipe.takes === "pictures" ? "fps" : "/s"}, ${pipe.answers} answered`;
      one.why.textContent = bad;
      one.why.hidden = !bad;
    }
    const wanted = pipes.filter((pipe) => pipe.takes === "pictures").map((pipe) => pipe.name).join(",");
    if (wanted !== names) { names = wanted; look(); }
  }

  function show({ about, data }) {
    const one = cards.get(about.pipeline);
    if (!one?.view) return;
    const url = URL.createObjectURL(new Blob([data], { type: "image/jpeg" }));
    const old = one.url;
    one.img.onload = () => {
      if (old) URL.revokeObjectURL(old);
      one.view.style.aspectRatio = `${one.img.naturalWidth} / ${one.img.naturalHeight}`;
    };
    one.img.src = one.url = url;
    one.img.alt = `${about.pipeline}: ${about.seen.join(", ") || "nothing in view"}`;
    one.view.firstChild.hidden = true;
    one.img.hidden = one.age.hidden = false;
    one.at = about.mono;
    one.still = !about.live;
    one.seen.textContent = about.seen.join(" · ") || "nothing in view";
    ages();
  }

  function ages() {
    const now = mono();
    for (const one of cards.values()) {
      if (!one.view) continue;
      const lost = document.body.classList.contains("lost"), why = lost ? "no word from the device" : one.blank;
      one.over.textContent = why;
      one.over.hidden = !why;
      one.view.classList.toggle("stale", Boolean(why));
      if (one.at === null || now === null) continue;
      const age = Math.max(0, now - one.at);
      one.age.textContent = `${age < 10 ? age.toFixed(1) : Math.round(age)} s old${one.still && !why ? ", still" : ""}`;
    }
  }

  async function look() {
    abort?.abort();
    clearTimeout(timer);
    if (closed || document.hidden || !names) return;
    const mine = (abort = new AbortController());
    try {
      const query = new URLSearchParams({ pipelines: names, always: always ? "1" : "0" });
      const answer = await fetch(`/api/v1/live?${query}`, { signal: mine.signal });
      if (!answer.ok) throw new Error((await answer.json()).error);
      note.textContent = "";
      for await (const part of parts(answer.body)) { wait = 500; show(part); }
    } catch (error) {
      if (mine.signal.aborted) return;
      note.textContent = `Pictures: ${error.message}`;
    }
    if (abort === mine) { timer = setTimeout(look, wait); wait = Math.min(10000, wait * 2); }
  }

  function heard({ detail }) {
    const text = detail.event.text && detail.event.kind !== "gap" ? cards.get(detail.event.pipeline) : null;
    if (text && !text.view) text.seen.textContent = detail.words;
  }

  const visible = () => look(), clock = setInterval(ages, 250);
  bus.addEventListener("state", states);
  bus.addEventListener("event", heard);
  bus.addEventListener("visible", visible);
  states();
  return () => {
    closed = true;
    abort?.abort();
    clearTimeout(timer);
    clearInterval(clock);
    for (const one of cards.values()) if (one.url) URL.revokeObjectURL(one.url);
    bus.removeEventListener("state", states);
    bus.removeEventListener("event", heard);
    bus.removeEventListener("visible", visible);
  };
}
