// Training: pictures that were kept are accepted, corrected or rejected, and states are taught from what a camera shows.
import { act, api, bus, fill, h, here, toast } from "./app.js";
import { when } from "./events.js";

export const title = "Training";
const SVG = "http://www.w3.org/2000/svg";

export function open(place) {
  const cards = h("div", { class: "cards" }), note = h("p", { class: "soft" }), camera = h("select"), name = h("input", { value: "gate", pattern: "[A-Za-z0-9][A-Za-z0-9_.\\-]{0,63}" }), state = h("input", { value: "open", maxlength: 64 });
  const counts = h("div"), out = h("div", { role: "status" }), region = h("input", { placeholder: "0,0,1,1", title: "left, top, right, bottom in fractions" }), view = h("img", { alt: "what the camera shows", class: "shot" });
  const path = (more = "") => `states/${encodeURIComponent(name.value)}${more}`;
  const shoot = h("button", { type: "button", class: "main", onclick: () => act(async () => { toast((await api("POST", path("/examples"), { pipeline: camera.value, state: state.value })).done); picture(); await states(); }, shoot) }, "This is an example");
  const learn = h("button", { type: "button", onclick: () => act(async () => {
    fill(out, h("p", { class: "soft" }, "…"));
    try {
      const four = region.value.split(",").map(Number), told = await api("POST", path(), region.value ? { region: four } : {});
      fill(out, h("p", {}, h("span", { class: "tag ok" }, "taught"), ` of ${told.of} examples it names ${told.right} right that it had not seen (${Math.round(told.low * 100)} to ${Math.round(told.high * 100)} %); saying the commonest always: ${Math.round(told.guess * 100)} %`),
        h("p", {}, "It serves as a task of a pipeline: ", h("code", {}, `state:${told.name}`), ". ", h("a", { href: `#settings/${encodeURIComponent(camera.value)}` }, "Settings")), told.notes.length ? h("ul", {}, told.notes.map((one) => h("li", {}, one))) : null);
    } catch (error) { fill(out, h("p", { class: "error" }, error.message)); }
  }, learn) }, "Teach");
  place.append(h("section", { class: "card", "aria-label": "Teach a state" }, h("div", { class: "top" }, h("h3", {}, "Teach a state")), h("p", { class: "soft" }, "Point a camera at a gate, a lamp, a place in the yard; keep a dozen examples of each state, then teach."),
    h("div", { class: "row" }, h("label", {}, "Camera", camera), h("label", {}, "Name", name), h("label", {}, "State", state), h("label", {}, "Part of the picture", region), shoot, h("button", { type: "button", onclick: () => picture() }, "Another picture")), view, counts, h("p", {}, learn), out),
  h("section", { class: "card", "aria-label": "Pictures that were kept" }, h("div", { class: "top" }, h("h3", {}, "Pictures that were kept")), note,
    h("details", {}, h("summary", {}, "Train with them on a workstation"), h("p", {}, "Save them, unpack them there, and type:"), h("pre", { class: "code", tabindex: 0 }, "unzip samples.zip -d samples\nedge-agent train detector --data samples/instances.json --out mine\nedge-agent evaluate mine samples/instances.json"), h("a", { class: "button", href: "/api/v1/samples.zip", download: true }, "Save what was taken")), cards));

  function picture() { if (camera.value) view.src = `/api/v1/pipelines/${encodeURIComponent(camera.value)}/picture?plain=1&${Date.now()}`; }
  camera.onchange = picture;

  async function states() {
    const all = await api("GET", "states");
    fill(counts, Object.entries(all).map(([one, kinds]) => h("p", { class: "row" }, h("strong", {}, one), Object.entries(kinds).map(([kind, count]) => h("span", { class: "tag soft" }, `${kind}: ${count}`)),
      h("button", { type: "button", class: "bad", onclick: ({ target }) => act(async () => { toast((await api("DELETE", `states/${encodeURIComponent(one)}`)).done); await states(); }, target) }, "Delete the examples"))));
  }

  // ── pictures that were kept ──
  function card({ name: file, about }) {
    const url = `/api/v1/samples/${encodeURIComponent(file)}`, boxes = about.boxes.map((one) => ({ label: one.label, box: [...one.box] })), list = h("ul", { class: "plain" }), over = document.createElementNS(SVG, "svg");
    over.setAttribute("viewBox", `0 0 ${about.width} ${about.height}`);
    over.setAttribute("class", "draw");
    const known = [...new Set(about.boxes.map((one) => one.label))];
    let from = null;
    const at = (event) => { const side = over.getBoundingClientRect(); return [Math.round(((event.clientX - side.left) / side.width) * about.width), Math.round(((event.clientY - side.top) / side.height) * about.height)]; };
    function draw() {
      over.replaceChildren(...boxes.map(({ box: [left, top, right, bottom] }) => {
        const one = document.createElementNS(SVG, "rect");
        for (const [key, value] of Object.entries({ x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top), class: "zone", "stroke-width": about.width / 300 })) one.setAttribute(key, value);
        return one;
      }));
      fill(list, boxes.map((one, number) => h("li", { class: "row box" }, h("input", { value: one.label, "aria-label": `label of box ${number + 1}`, onchange: ({ target }) => (one.label = target.value) }),
        h("input", { value: one.box.map(Math.round).join(" "), size: 18, "aria-label": `box ${number + 1}: left, top, right, bottom`, onchange: ({ target }) => { const four = target.value.split(/[ ,]+/).map(Number); if (four.length === 4 && four.every(Number.isFinite)) one.box = four; draw(); } }),
        h("button", { type: "button", class: "bad", "aria-label": `take box ${number + 1} away`, onclick: () => { boxes.splice(number, 1); draw(); } }, "×"))));
    }
    over.addEventListener("pointerdown", (event) => { from = at(event); over.setPointerCapture(event.pointerId); });
    over.addEventListener("pointerup", (event) => {
      const to = at(event);
      if (from && Math.abs(to[0] - from[0]) > 3 && Math.abs(to[1] - from[1]) > 3) { boxes.push({ label: boxes.at(-1)?.label ?? known[0] ?? "thing", box: [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])] }); draw(); }
      from = null;
    });
    const button = (words, look, work) => { const made = h("button", { type: "button", class: look, onclick: () => act(async () => { toast((await work()).done); root.remove(); await samples(); }, made) }, words); return made; };
    const view = h("div", { class: "view" }, h("img", { src: url, alt: `a picture of ${about.pipeline}`, loading: "lazy" }), over);
    view.style.aspectRatio = `${about.width} / ${about.height}`;
    const root = h("article", { class: "card", "aria-label": file }, h("div", { class: "top" }, h("h3", {}, about.pipeline), h("span", { class: "tag soft" }, about.why), h("small", {}, when(about.at))), view, h("p", { class: "soft" }, `${about.note}. Draw a box to add one.`), list,
      h("div", { class: "row" }, button("It is so", "main", () => api("POST", url.slice(8), { boxes })), button("Of no use", "bad", () => api("DELETE", url.slice(8)))));
    draw();
    return root;
  }
  let shown = "";
  async function samples() {
    const found = await api("GET", "samples"), now = found.waiting.map((one) => one.name).join();
    note.textContent = `${found.waiting.length} wait, ${found.taken} taken.${found.collects ? "" : ' Nothing is kept: write collect = ["uncertain", "rare"] and consent under [samples].'}`;
    if (now !== shown) fill(cards, found.waiting.slice(0, 30).map(card));
    shown = now;
  }

  let cameras = "";
  function state_() {
    const some = (here.state?.pipelines ?? []).filter((one) => one.takes === "pictures").map((one) => one.name);
    if (some.join() === cameras) return;
    cameras = some.join();
    fill(camera, some.map((one) => h("option", { value: one }, one)));
    picture();
  }
  bus.addEventListener("state", state_);
  state_();
  act(async () => { await states(); await samples(); });
  return () => bus.removeEventListener("state", state_);
}
