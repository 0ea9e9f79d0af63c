// Models: what serves and why, its report card, and what can be done with it.
import { act, api, bus, fill, h, may, toast } from "./app.js";
import { size } from "./health.js";

export const title = "Models";

export function open(place) {
  const grid = h("div", { class: "cards" }), out = h("div", { role: "status" }), file = h("input", { type: "file", accept: ".onnx,.tflite", required: true }), name = h("input", { placeholder: "as the file's" });
  const button = h("button", { class: "main" }, "Add");
  const drop = h("form", { class: "card", onsubmit: (event) => { event.preventDefault(); act(() => add(file.files[0]), button); },
    ondragover: (event) => event.preventDefault(), ondrop: (event) => { event.preventDefault(); act(() => add(event.dataTransfer.files[0]), button); } },
  h("div", { class: "top" }, h("h3", {}, "Drop a model in")), h("p", { class: "soft" }, "An .onnx or .tflite file: it is read, tried in a locked room, and raced; or refused with the reason. Under the name of a model that serves it takes that one's place."),
  h("div", { class: "row" }, h("label", {}, "File", file), h("label", {}, "Name", name), button), out);
  if (may("admin")) place.append(drop);
  place.append(grid);

  async function add(given) {
    if (!given) return;
    const began = Date.now() / 1000, steps = h("ul"), list = () => fill(out, h("p", {}, `${given.name}: being sent, read and proved …`), steps);
    list();
    const clock = setInterval(async () => {
      const lines = await api("GET", `log?after=${began}`).catch(() => []);
      fill(steps, lines.map((line) => h("li", {}, line.text)));
    }, 1000);
    try {
      const made = await api("POST", `models?${new URLSearchParams({ file: given.name, name: name.value })}`, given);
      fill(out, h("p", {}, h("span", { class: "tag ok" }, "added"), ` ${made.name}: ${made.task}, ${made.family}`), h("ul", {}, [...made.reasons, ...made.trials].map((why) => h("li", {}, why))));
      await show();
    } catch (error) { fill(out, h("p", {}, h("span", { class: "tag bad" }, "refused"), " ", error.message)); } finally { clearInterval(clock); }
  }

  const does = (text, method, path, after, look = "") => {
    const made = h("button", { type: "button", class: look, onclick: () => act(async () => { toast((await api(method, path)).done); await show(); }, made) }, text);
    return after ? made : null;
  };

  function card(model) {
    const path = `models/${encodeURIComponent(model.name)}`, report = h("div"), box = h("details", {}, h("summary", {}, "Report card"), report);
    box.addEventListener("toggle", () => { if (box.open && !report.hasChildNodes()) act(async () => fill(report, reportOf(await api("GET", path)))); });
    const state = model.serves.length ? ["ok", "serves"] : model.state === "corrupt" ? ["bad", "corrupt"] : ["soft", model.state];
    return h("article", { class: "card", "aria-label": model.name }, h("div", { class: "top" }, h("h3", {}, model.name), h("span", { class: `tag ${state[0]}` }, state[1]), h("small", {}, `version ${model.version}`)),
      h("p", {}, `${model.task}, ${model.family}, ${size(model.bytes)}`, h("br"), h("small", {}, `${model.licence} · trained by ${model.trained_by}`)), model.why ? h("p", { class: "why" }, model.why) : null,
      model.serves.length ? h("ul", { class: "plain soft" }, model.serves.map((why) => h("li", {}, why))) : null, box,
      may("admin") ? h("div", { class: "row" }, does(`Back to ${model.before}`, "POST", `${path}/rollback`, model.before), does("Fetch", "POST", `${path}/pull`, model.state === "absent"),
        does("Remove", "DELETE", path, model.added && !model.serves.length, "bad")) : null);
  }

  function reportOf(card) {
    const fastest = Math.min(...card.variants.map((one) => one.ms ?? Infinity));
    const list = (head, some) => (some.length ? [h("h3", {}, head), h("ul", {}, some.map((one) => h("li", {}, one)))] : null);
    return [h("p", {}, card.description), card.parent ? h("p", {}, `Made from ${card.parent}`, card.made ? `: ${card.made.verb}, ${card.made.method}` : "") : null,
      card.made ? h("table", {}, h("tbody", {}, Object.entries(card.made.figures).map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, key), h("td", { class: "n" }, value))))) : null,
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Variants" }, h("table", {}, h("thead", {}, h("tr", {}, ["Variant", "Precision", "Size", "ms here"].map((head, at) => h("th", { scope: "col", class: at > 1 ? "n" : "" }, head)))),
        h("tbody", {}, card.variants.map((one) => h("tr", {}, h("td", {}, one.file), h("td", {}, one.precision), h("td", { class: "n" }, size(one.bytes)),
          h("td", { class: "n" }, one.ms === null ? "not raced" : `${one.ms.toFixed(2)}${one.ms === fastest ? " ★" : ""}`)))))),
      card.evaluated ? worstOf(card) : null, list("Refused", card.refusals), list("Trials on this device", card.notes), list("Files", card.sources), card.labels.length ? [h("h3", {}, `${card.labels.length} labels`), h("p", { class: "soft" }, card.labels.join(", "))] : null,
      card.card ? h("pre", { class: "code", tabindex: 0 }, card.card) : null];
  }

  function worstOf({ name, version, evaluated: one }) {
    const at = `/api/v1/models/${encodeURIComponent(name)}/worst/`;
    return [h("h3", {}, `Evaluated ${new Date(one.at * 1000).toLocaleDateString()}`, one.version === version ? "" : `, version ${one.version}`), h("pre", { class: "code", tabindex: 0 }, one.lines.join("\n")),
      one.pictures.length && may("operator") ? h("details", {}, h("summary", {}, `The ${one.pictures.length} worst pictures, truth left, answer right`),
        h("ul", { class: "plain" }, one.pictures.map((file) => h("li", {}, h("img", { src: at + encodeURIComponent(file), loading: "lazy", alt: file, class: "shot" }), h("small", {}, file))))) : null];
  }

  let shown = "";
  async function show() {
    const models = await api("GET", "models"), now = JSON.stringify(models);
    if (now === shown) return;
    shown = now;
    fill(grid, models.sort((a, b) => b.serves.length - a.serves.length || a.name.localeCompare(b.name)).map(card));
  }
  let count = 0;
  // a swap shows by itself
  const state = () => { if (++count % 3 === 0 && !grid.querySelector("details[open]")) show().catch(() => {}); };
  bus.addEventListener("state", state);
  act(show);
  return () => bus.removeEventListener("state", state);
}
