// Events: as they come and looked back at, alerts first.
import { act, api, bus, fill, h, here, may, setAlerts } from "./app.js";

export const title = "Events";
const MOST = 500, ANY = [["", "all"]],
  TIMES = [["", "any time"], ["3600", "last hour"], ["86400", "last day"], ["604800", "last week"]], SEEN = [["", "all"], ["0", "not yet"], ["1", "yes"]];

export const when = (at) => {
  const time = new Date(at);
  return Number.isNaN(time.getTime()) ? at : time.toLocaleString([], { dateStyle: time.toDateString() === new Date().toDateString() ? undefined : "short", timeStyle: "medium" });
};

/** One event as a row. `marked` is called once it was marked as looked at. */
export function row(told, marked) {
  const event = told.event, box = h("details", {}, h("summary", { class: "soft" }, "details"));
  box.addEventListener("toggle", () => { if (box.open && box.children.length === 1) box.append(h("pre", { tabindex: 0 }, JSON.stringify(event, null, 1))); });
  const name = (kind) => `/api/v1/${kind}/${encodeURIComponent(event[kind])}`;
  const seen = h("button", { type: "button", "aria-pressed": String(told.reviewed), disabled: !may("operator"), onclick: () => act(async () => {
    await api("POST", "events/review", { ids: [event.id], reviewed: !told.reviewed });
    told.reviewed = !told.reviewed;
    marked(told);
  }, seen) }, told.reviewed ? "Reviewed" : "Review");
  return h("li", { class: `event${told.alert ? " alert" : ""}${told.reviewed ? " reviewed" : ""}` }, h("time", { datetime: event.at }, when(event.at)),
    h("div", {}, h("strong", {}, (told.words || event.kind).replace(/ {3,}/g, " · ")), h("div", {}, h("span", { class: "tag soft" }, event.pipeline), " ", h("span", { class: "tag soft" }, event.kind),
      told.zones.map((zone) => [" ", h("span", { class: "tag soft" }, `▱ ${zone}`)])),
      event.snapshot ? h("img", { src: name("snapshot"), alt: `Picture of: ${told.words}`, loading: "lazy", onerror: ({ target }) => target.replaceWith(h("small", {}, "Its picture is gone.")) }) : null,
      event.clip ? h("div", {}, h("a", { href: name("clip") }, "Clip")) : null, box), seen);
}

export function open(place) {
  const all = new Map(), filter = { pipeline: "", kind: "", label: "", zone: "", reviewed: "", since: "" };
  let oldest = 0, drawing = 0, kept = "", asked = 0;
  const loud = h("ul", { class: "plain" }), list = h("ul", { class: "plain" }), note = h("p", { class: "soft" });
  const more = h("button", { type: "button", onclick: () => act(() => load(oldest), more) }, "Older ones");
  const loudCard = h("section", { class: "card", "aria-labelledby": "loud", hidden: true }, h("div", { class: "top" }, h("h3", { id: "loud" }, "Alerts not reviewed")), loud);
  const selects = {};
  const choose = (key, words, options) => {
    selects[key] = h("select", { onchange: ({ target }) => { filter[key] = target.value; reload(); } }, options.map(([value, text]) => h("option", { value }, text)));
    return h("label", {}, words, selects[key]);
  };
  place.append(h("form", { class: "card row", onsubmit: (event) => event.preventDefault() }, choose("pipeline", "Pipeline", ANY), choose("kind", "Kind", ANY),
    choose("label", "Label", ANY), choose("zone", "Zone", ANY), choose("since", "Time", TIMES), choose("reviewed", "Reviewed", SEEN)),
    loudCard, h("section", { class: "card", "aria-labelledby": "every" }, h("div", { class: "top" }, h("h3", { id: "every" }, "All events")), list, note, more));

  const query = () => {
    const some = Object.entries(filter).filter(([, value]) => value).map(([key, value]) => [key, key === "since" ? String(Date.now() / 1000 - Number(value)) : value]);
    return new URLSearchParams(some);
  };
  const fits = ({ event, labels, zones, reviewed }) => (!filter.pipeline || event.pipeline === filter.pipeline) && (!filter.kind || event.kind === filter.kind)
    && (!filter.label || labels.includes(filter.label)) && (!filter.zone || zones.includes(filter.zone)) && (!filter.reviewed || reviewed === (filter.reviewed === "1"));

  function learn(key, value) {
    if (value && ![...selects[key].options].some((one) => one.value === value)) selects[key].append(h("option", { value }, value));
  }
  function take(told) {
    all.set(told.event.id, told);
    learn("pipeline", told.event.pipeline);
    learn("kind", told.event.kind);
    for (const label of told.labels) learn("label", label);
    for (const zone of told.zones) learn("zone", zone);
  }
  function draw() {
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(() => {
      if (place.contains(document.activeElement?.closest?.("details, li"))) return; // somebody reads there
      const shown = [...all.values()].filter(fits).sort((a, b) => (a.event.at < b.event.at ? 1 : -1)), first = shown.filter((told) => told.alert && !told.reviewed);
      fill(loud, first.slice(0, 50).map((told) => row(told, draw)));
      fill(list, shown.filter((told) => !first.includes(told)).slice(0, MOST).map((told) => row(told, draw)));
      loudCard.hidden = !first.length;
      setAlerts([...all.values()].filter((told) => told.alert && !told.reviewed).length);
      note.textContent = shown.length ? kept : "Nothing of the kind has happened.";
    });
  }
  async function load(before) {
    const some = query(), mine = ++asked;
    if (before) some.set("before", before);
    const found = await api("GET", `events?${some}`);
    if (mine !== asked) return;
    if (!before) all.clear();
    for (const told of found.events) { take(told); oldest = told.number; }
    if (!before && !here.stream) here.stream = found.stream;
    more.hidden = found.events.length < 100;
    kept = found.archived ? "" : "Only the last events are here, in memory; write [archive] into the config to keep more.";
    draw();
  }
  const reload = () => act(() => load(0));
  const heard = ({ detail }) => { take(detail); draw(); }, missed = () => reload();
  bus.addEventListener("event", heard);
  bus.addEventListener("missed", missed);
  reload();
  return () => {
    cancelAnimationFrame(drawing);
    bus.removeEventListener("event", heard);
    bus.removeEventListener("missed", missed);
  };
}
