// Words: what is heard and read, and a box to try what can be done with a text.
import { act, api, bus, fill, h, may } from "./app.js";
import { when } from "./events.js";

export const title = "Words";
const KINDS = ["text", "scores", "spans", "fill", "answer", "similar", "topic", "summary"], MOST = 200;
const MORE = { follows: ["second", "What may go on from it"], answer: ["context", "Text to look in (else what the config names)"] };

function source(event) {
  if (event.heard) return `heard by ${event.heard.engine}, ${Math.round(event.heard.score * 100)} % sure, ${event.heard.seconds.toFixed(1)} s`;
  if (event.read) return `read by ${event.read.engine}, ${Math.round(event.read.score * 100)} % sure`;
  return event.name || "";
}

export function open(place) {
  const task = h("select", { onchange: () => ask() }), text = h("textarea", { required: true, maxlength: 20000 }), second = h("textarea", { maxlength: 20000 });
  const name = h("span"), extra = h("label", { class: "wide", hidden: true }, name, second), out = h("div", { role: "status" }), list = h("tbody"), note = h("p", { class: "soft" });
  const ask = () => {
    extra.hidden = !MORE[task.value];
    name.textContent = MORE[task.value]?.[1] ?? "";
  };
  const button = h("button", { class: "main" }, "Try");
  const form = h("form", { class: "card", onsubmit: (event) => {
    event.preventDefault();
    act(async () => {
      fill(out, h("p", { class: "soft" }, "…"));
      try {
        const body = { text: text.value, task: task.value, ...(MORE[task.value] ? { [MORE[task.value][0]]: second.value } : {}) };
        const found = await api("POST", "try", body);
        fill(out, found.model ? h("p", { class: "soft" }, `${found.model.name} ${found.model.version}`) : null, h("pre", { class: "code", tabindex: 0 }, JSON.stringify(found.found, null, 1)));
      } catch (error) { fill(out, h("p", { class: "error" }, error.message)); }
    }, button);
  } }, h("div", { class: "top" }, h("h3", {}, "Try a text")), h("div", { class: "row" }, h("label", {}, "Task", task)),
  h("p", {}, h("label", { class: "wide" }, "Text", text)), extra, h("p", {}, button), out);
  if (may("operator")) place.append(form);
  place.append(h("section", { class: "card" }, h("div", { class: "top" }, h("h3", {}, "Heard and read")), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Texts" }, h("table", {},
    h("thead", {}, h("tr", {}, ["Time", "Pipeline", "Text", "Label", "Score", "Source"].map((head) => h("th", { scope: "col" }, head)))), list)), note));

  const line = ({ event, words }) => h("tr", {}, h("td", {}, when(event.at)), h("td", {}, event.pipeline), h("td", {}, event.text || (event.kind === "scores" ? event.name : words) || "not kept"),
    h("td", {}, event.label ?? (event.spans ?? []).map((span) => `${span.label}: ${span.text}`).join(", ")), h("td", { class: "n" }, event.score?.toFixed(2) ?? ""), h("td", {}, source(event)));
  const heard = ({ detail }) => {
    if (!KINDS.includes(detail.event.kind)) return;
    list.prepend(line(detail));
    while (list.children.length > MOST) list.lastChild.remove();
    note.textContent = "";
  };
  act(async () => {
    fill(task, (await api("GET", "tasks")).map((one) => h("option", { value: one }, one)));
    task.value = "classify";
    ask();
    const found = await api("GET", `events?kind=${KINDS.join(",")}&limit=${MOST}`);
    fill(list, found.events.map(line));
    note.textContent = found.events.length ? "" : "Nothing was heard or read yet.";
  });
  bus.addEventListener("event", heard);
  return () => bus.removeEventListener("event", heard);
}
