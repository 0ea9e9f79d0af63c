// Zones and settings: drawn on the picture, shown as a difference, then written.
import { act, api, bus, fill, h, here, may, toast } from "./app.js";
import { when } from "./events.js";

export const title = "Zones and settings";
const SVG = "http://www.w3.org/2000/svg", NEW = { zone: "New zone", line: "New line", mask: "New mask" };
const svg = (tag, attributes) => {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const round = (value) => Math.round(Math.min(1, Math.max(0, value)) * 1000) / 1000;
const list = (text) => text.split(",").map((one) => one.trim()).filter(Boolean);

export function open(place, [wanted]) {
  let config = null, zones = [], chosen = null, dragged = null, edits = [];
  const profile = h("section", { class: "card", "aria-label": "Profile", hidden: true }), body = h("div");
  place.append(profile, body);

  async function profiles() {
    const now = await api("GET", "profile");
    profile.hidden = !now.profiles.length && !Object.keys(now.rules).length;
    const select = h("select", { onchange: () => act(async () => { await api("PUT", "profile", { profile: select.value }); toast(`profile ${select.value}`); }) }, now.profiles.map((one) => h("option", { value: one }, one)));
    select.value = now.profile;
    fill(profile, h("div", { class: "row" }, now.profiles.length ? h("label", {}, "Profile", select) : null, Object.entries(now.rules).map(([name, on]) => h("span", { class: `tag ${on ? "warn" : "soft"}` }, `${name}: ${on ? "on" : "off"}`))));
  }
  if (may("operator")) act(profiles);
  if (!may("admin")) { body.append(h("p", { class: "soft" }, "The config is for the role admin.")); return null; }

  const pick = h("select", { onchange: () => show() }), lock = h("p", { class: "why", role: "status" }), image = h("img", { alt: "" }), over = svg("svg", { class: "draw", tabindex: "-1" });
  const view = h("div", { class: "view alone" }, image, over), tools = h("div", { class: "row" }), rows = h("ul", { class: "plain" }), form = h("div"), pipe = h("div"), diff = h("div", { role: "status" }, h("p", { class: "soft" }, "Nothing is changed.")), text = h("textarea", { class: "toml", spellcheck: "false", "aria-label": "The config as TOML" });
  const again = h("button", { type: "button", onclick: () => picture() }, "Another picture"), history = h("div", { class: "row" });
  body.append(h("div", { class: "row" }, h("label", {}, "Pipeline", pick), again), lock,
    h("section", { class: "card", "aria-label": "Zones" }, view, h("p", { class: "soft" }, "Click into the picture to set corners, drag them, or move them with the arrow keys; Delete takes one away."), tools, rows, form),
    h("section", { class: "card", "aria-label": "Pipeline" }, pipe), h("section", { class: "card", "aria-label": "Change" }, h("div", { class: "top" }, h("h3", {}, "Change")), diff),
    h("section", { class: "card", "aria-label": "All of it" }, h("details", {}, h("summary", {}, "All of it, as TOML"), text, h("p", {}, h("button", { type: "button", onclick: () => act(() => preview({ text: text.value })) }, "Show the change")))),
    h("section", { class: "card", "aria-label": "Former ones" }, h("div", { class: "top" }, h("h3", {}, "Former ones")), history));

  const now = () => here.state?.pipelines.find((one) => one.name === pick.value);
  async function load() {
    config = await api("GET", "config");
    lock.textContent = config.locked;
    text.value = config.text;
    for (const button of body.querySelectorAll("button:not(.look)")) button.disabled = Boolean(config.locked) && button !== again;
    fill(history, config.former.length ? [h("span", {}, `the newest of ${config.former.length} was replaced ${when(config.former[0] * 1000)}`),
      h("button", { type: "button", disabled: Boolean(config.locked), onclick: ({ target }) => act(async () => { toast((await api("POST", "config/back", { base: config.base })).done); await load(); }, target) }, "Back to it"),
      h("button", { type: "button", class: "look", onclick: () => act(async () => { const old = await api("GET", "config/former"); fill(diff, h("pre", { class: "code", tabindex: 0 }, old.diff || "the same")); }) }, "What would change")] : h("span", { class: "soft" }, "none yet"));
  }

  function show() {
    const one = now();
    zones = (one?.zones ?? []).map((zone) => ({ ...zone, points: zone.points.map((point) => [...point]) }));
    chosen = null;
    view.parentElement.hidden = one?.takes !== "pictures";
    again.hidden = view.parentElement.hidden;
    draw();
    options(one);
    if (one?.takes === "pictures") picture();
  }
  function picture() {
    image.alt = `a picture of ${pick.value}`;
    image.onload = draw;
    image.onerror = () => toast("No picture came; see Live for how the stream fares.");
    image.src = `/api/v1/pipelines/${encodeURIComponent(pick.value)}/picture?plain=1&${Date.now()}`;
  }

  // ── drawing ──
  function draw() {
    const wide = image.naturalWidth || 640, high = image.naturalHeight || 480, scale = wide / 640;
    over.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    view.style.aspectRatio = `${wide} / ${high}`;
    view.style.width = `min(100%, ${(65 * wide) / high}vh)`;
    over.replaceChildren();
    for (const zone of zones) {
      const points = zone.points.map(([x, y]) => `${x * wide},${y * high}`).join(" "), mine = zone === chosen;
      const shape = svg(zone.line || zone.points.length < 3 ? "polyline" : "polygon", { points, class: `${zone.mask ? "mask" : zone.line ? "line" : "zone"}${mine ? " chosen" : ""}`, "stroke-width": 2 * scale });
      over.append(shape);
      if (zone.points.length) {
        const name = svg("text", { x: zone.points[0][0] * wide + 6 * scale, y: zone.points[0][1] * high - 6 * scale, "font-size": 16 * scale });
        name.textContent = zone.name;
        over.append(name);
      }
      if (mine) zone.points.forEach(([x, y], at) => {
        const dot = svg("circle", { cx: x * wide, cy: y * high, r: 9 * scale, tabindex: 0, role: "button", "aria-label": `corner ${at + 1} of ${zone.name}: ${Math.round(x * 100)} % across, ${Math.round(y * 100)} % down` });
        dot.addEventListener("keydown", (event) => {
          const step = { ArrowLeft: [-.01, 0], ArrowRight: [.01, 0], ArrowUp: [0, -.01], ArrowDown: [0, .01] }[event.key];
          if (step) zone.points[at] = [round(x + step[0]), round(y + step[1])];
          else if (event.key === "Delete" || event.key === "Backspace") zone.points.splice(at, 1);
          else return;
          event.preventDefault();
          changed();
          over.querySelectorAll("circle")[Math.min(at, zone.points.length - 1)]?.focus();
        });
        dot.addEventListener("pointerdown", (event) => { dragged = at; event.stopPropagation(); over.setPointerCapture(event.pointerId); });
        over.append(dot);
      });
    }
    fill(tools, Object.entries(NEW).filter(([kind]) => kind === "mask" || now()?.tracks).map(([kind, words]) => h("button", { type: "button", disabled: Boolean(config?.locked), onclick: () => begin(kind) }, words)),
      chosen ? h("button", { type: "button", onclick: () => { middle(); changed(); } }, "Add a corner") : null, now()?.tracks ? null : h("small", {}, "Zones and lines need a pipeline that tracks."));
    fill(rows, zones.map((zone) => h("li", { class: "row" }, h("strong", {}, zone.name), h("span", { class: "tag soft" }, zone.mask ? "mask" : zone.line ? "line" : "zone"),
      h("button", { type: "button", "aria-pressed": String(zone === chosen), onclick: () => { chosen = zone === chosen ? null : zone; draw(); } }, "Edit"),
      h("button", { type: "button", class: "bad", onclick: () => { zones = zones.filter((one) => one !== zone); chosen = null; add(zone, { remove: true }); } }, "Remove"))));
    fill(form, chosen ? fields(chosen) : null);
  }
  const at = (event) => {
    const box = over.getBoundingClientRect();
    return [round((event.clientX - box.left) / box.width), round((event.clientY - box.top) / box.height)];
  };
  over.addEventListener("pointerdown", (event) => {
    if (!chosen || (chosen.line && chosen.points.length >= 2)) return;
    chosen.points.push(at(event));
    changed();
  });
  over.addEventListener("pointermove", (event) => { if (dragged !== null && chosen) { chosen.points[dragged] = at(event); draw(); } });
  over.addEventListener("pointerup", () => { if (dragged !== null) { dragged = null; changed(); } });

  function begin(kind) {
    const names = new Set(zones.map((zone) => zone.name));
    let number = 1;
    while (names.has(`${kind}${number}`)) number += 1;
    chosen = { name: `${kind}${number}`, points: [], line: kind === "line", mask: kind === "mask" };
    zones.push(chosen);
    draw();
    tools.lastElementChild.focus({ preventScroll: true });
  }
  function middle() {
    const some = chosen.points, [a, b] = [some.at(-1) ?? [.25, .25], some[0] ?? [.75, .75]];
    some.push(some.length < 4 && !chosen.line ? [[.25, .25], [.75, .25], [.75, .75], [.25, .75]][some.length] : [round((a[0] + b[0]) / 2), round((a[1] + b[1]) / 2)]);
  }
  function fields(zone) {
    const name = h("input", { value: zone.name, "aria-label": "Name", onchange: () => { const was = zone.name; zone.name = name.value; edits = edits.filter((one) => !(one.section === "zone" && one.name === was)); if (zone.saved !== false && now()?.zones.some((one) => one.name === was)) edits.push({ section: "zone", name: was, pipeline: pick.value, remove: true }); changed(); } });
    const labels = h("input", { value: (zone.labels ?? []).join(", "), placeholder: "all", onchange: () => { zone.labels = list(labels.value); changed(); } });
    const stays = h("input", { value: zone.stays ?? "", placeholder: "e.g. 60s", onchange: () => { zone.stays = stays.value.trim(); changed(); } });
    return h("div", { class: "row" }, h("label", {}, "Name", name), zone.mask ? null : h("label", {}, "Labels that count", labels), zone.mask || zone.line ? null : h("label", {}, "Loiters from", stays));
  }
  function changed() {
    draw();
    const least = chosen.line ? 2 : 3;
    if (chosen.points.length < least) return;
    const set = { points: chosen.points };
    if (chosen.line) set.line = true;
    if (chosen.mask) set.mask = true;
    const drop = ["size"];
    if (chosen.labels) { if (chosen.labels.length) set.labels = chosen.labels; else drop.push("labels"); }
    if (chosen.stays !== undefined) { if (chosen.stays) set.stays = chosen.stays; else drop.push("stays"); }
    add(chosen, { set, drop });
  }
  function add(zone, edit) {
    edits = edits.filter((one) => !(one.section === "zone" && one.name === zone.name && one.pipeline === pick.value));
    if (!edit.remove || now()?.zones.some((one) => one.name === zone.name)) edits.push({ section: "zone", name: zone.name, pipeline: pick.value, ...edit });
    if (edit.remove) draw();
    waits();
  }

  // ── the pipeline itself ──
  function options(one) {
    if (!one) { fill(pipe); return; }
    const find = one.tasks.findIndex((task) => task.startsWith("detect:")), tasks = h("textarea", { value: one.tasks.join("\n"), spellcheck: "false" }), set = () => {
      edits = edits.filter((edit) => edit.section !== "pipeline" || edit.name !== one.name);
      edits.push({ section: "pipeline", name: one.name, set: { tasks: tasks.value.split("\n").map((task) => task.trim()).filter(Boolean) } });
      waits();
    };
    tasks.onchange = set;
    const part = (key) => new URLSearchParams(one.tasks[find]?.split("?")[1] ?? "").get(key) ?? "";
    const option = (key, words, more) => {
      const input = h("input", { value: part(key), ...more, onchange: () => {
        const lines = tasks.value.split("\n"), line = lines.findIndex((task) => task.startsWith("detect:")), [head, query] = lines[line].split("?"), pairs = (query ?? "").split("&").filter((pair) => pair && !pair.startsWith(`${key}=`));
        if (input.value.trim()) pairs.push(`${key}=${list(input.value).join(",")}`);
        lines[line] = pairs.length ? `${head}?${pairs.join("&")}` : head;
        tasks.value = lines.join("\n");
        set();
      } });
      return h("label", {}, words, input);
    };
    fill(pipe, h("div", { class: "top" }, h("h3", {}, one.name)), find >= 0 ? h("div", { class: "row" }, option("score", "Score from which a thing counts", { type: "number", min: 0, max: 1, step: .05, placeholder: "the model's" }), option("classes", "Labels that are looked for", { placeholder: "all" })) : null,
      h("p", {}, h("label", { class: "wide" }, "Tasks, one a line", tasks)));
  }

  // ── the change ──
  function waits() {
    fill(diff, h("p", {}, `${edits.length} change${edits.length === 1 ? " waits" : "s wait"}. `), h("div", { class: "row" }, h("button", { type: "button", class: "main", onclick: () => act(() => preview({ edits })) }, "Show the change"), h("button", { type: "button", onclick: () => { edits = []; fill(diff); show(); } }, "Forget it")));
  }
  async function preview(change) {
    const found = await api("POST", "config/preview", { base: config.base, ...change });
    const lines = found.diff.split("\n").map((line) => h("div", { class: line[0] === "+" ? "plus" : line[0] === "-" ? "minus" : "" }, line));
    const write = h("button", { type: "button", class: "main", disabled: Boolean(found.wrong) || !found.diff, onclick: () => act(async () => {
      const done = await api("PUT", "config", { base: config.base, ...change });
      edits = [];
      fill(diff, h("p", {}, h("span", { class: "tag ok" }, "done"), ` ${done.done}`));
      await load();
    }, write) }, "Write it");
    fill(diff, found.wrong ? h("p", { class: "error" }, found.wrong) : null, h("pre", { class: "code diff", tabindex: 0 }, found.diff ? lines : "nothing changes"), h("div", { class: "row" }, write, h("button", { type: "button", class: "look", onclick: () => (edits.length ? waits() : fill(diff)) }, "Not yet")));
    write.scrollIntoView({ block: "nearest" });
  }

  let known = "";
  function state() {
    const pipes = here.state?.pipelines ?? [], names = pipes.map((one) => one.name).join(" ");
    if (names !== known) {
      const was = pick.value || wanted;
      known = names;
      fill(pick, pipes.map((one) => h("option", { value: one.name }, one.name)));
      if (pipes.some((one) => one.name === was)) pick.value = was;
      show();
    } else if (!edits.length && !chosen && JSON.stringify(now()?.zones) !== JSON.stringify(zones)) show();
  }
  bus.addEventListener("state", state);
  act(load).then(state);
  return () => bus.removeEventListener("state", state);
}
