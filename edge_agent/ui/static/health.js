// Health: the board, the store, the link, what each stage takes, the log, the doctor, tokens, a bundle for a bug report.
import { act, api, fill, h, here, may } from "./app.js";
import { when } from "./events.js";

export const title = "Health";
export const size = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${(bytes / 1e6).toFixed(1)} MB`);
const ago = (seconds) => (seconds < 120 ? `${Math.round(seconds)} s ago` : seconds < 7200 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`);
const part = (name, of, low, high) => h("meter", { min: 0, max: 1, low, high, optimum: 0, value: of, "aria-label": name });

export function open(place) {
  const device = h("tbody"), stages = h("tbody"), log = h("pre", { class: "code", tabindex: 0, role: "region", "aria-label": "Log" }), found = h("div", { role: "status" });
  const card = (name, ...inside) => h("section", { class: "card", "aria-label": name }, h("div", { class: "top" }, h("h3", {}, name)), inside);
  const row = (name, ...value) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value));
  const look = h("button", { type: "button", onclick: () => act(async () => {
    fill(found, h("p", { class: "soft" }, "The doctor looks at everything; that takes up to a minute or two."));
    try {
      const rows = await api("POST", "doctor");
      fill(found, h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "What the doctor found" }, h("table", {}, h("tbody", {}, rows.map((one) => h("tr", {}, h("td", {}, h("span", { class: `tag ${{ ok: "ok", warn: "warn", fix: "bad" }[one.level]}` }, one.level)),
        h("th", { scope: "row" }, one.what), h("td", {}, one.found, one.mend ? h("pre", { class: "code", tabindex: 0 }, one.mend) : null)))))));
    } catch (error) { fill(found, h("p", { class: "error" }, error.message)); }
  }, look) }, "Ask the doctor");
  const table = (body, ...heads) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": heads.length ? heads[0] : "Figures" }, h("table", {}, heads.length ? h("thead", {}, h("tr", {}, heads.map((head, at) => h("th", { scope: "col", class: at ? "n" : "" }, head)))) : null, body));
  const bundle = h("a", { class: "button", href: "/api/v1/bundle", download: true }, "Save the bundle"), recordings = h("div");
  async function kept() {
    const made = await api("GET", "recordings"), named = () => [...recordings.querySelectorAll("input:checked")].map((one) => one.value).join(",");
    if (made.length) fill(recordings, h("fieldset", { onchange: () => { bundle.href = `/api/v1/bundle${named() ? `?recordings=${named()}` : ""}`; } }, h("legend", {}, "With a recording: pictures of whoever was in view, sound and texts, unchanged"),
      made.map((one) => h("label", { class: "row" }, h("input", { type: "checkbox", value: one.name }), `${one.name}, ${size(one.bytes)}`))));
  }
  if (may("admin")) act(kept);
  const fleet = h("section", { class: "card", "aria-label": "Fleet", hidden: true });
  async function wanted() {
    if (fleet.dataset.none) return;
    const it = await api("GET", "fleet").catch(() => null);
    fleet.hidden = !it;
    if (!it) { fleet.dataset.none = "1"; return; }
    const every = [...new Set([...Object.keys(it.bundles), ...Object.keys(it.wanted.bundles)])].sort(), why = Object.fromEntries(it.differs.map((one) => [one.what, one.why]));
    fill(fleet, h("div", { class: "top" }, h("h3", {}, "Fleet"), h("small", {}, it.group ? `group ${it.group}` : "no group")),
      it.job ? h("p", {}, h("span", { class: "tag warn" }, it.job.status), ` job ${it.job.id}: ${[it.job.target, it.job.step, it.job.reason].filter(Boolean).join(", ")}`) : null,
      h("table", {}, h("thead", {}, h("tr", {}, ["What", "Here", "Wanted"].map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, [...every.map((key) => [key, it.bundles[key] ?? "none", it.wanted.bundles[key] ?? ""]), ...(it.wanted.profile ? [["profile", it.profile, it.wanted.profile]] : [])].map(([key, now, want]) =>
        h("tr", {}, h("th", { scope: "row" }, key), h("td", {}, now), h("td", {}, want, why[key] ? h("p", { class: "why" }, why[key]) : null))))),
      it.differs.length || !Object.keys(it.wanted.bundles).length ? null : h("p", { class: "soft" }, "All is as it is wanted."),
      it.refused ? h("p", { class: "why" }, `${it.refused} jobs or documents were refused; the log says why`) : null);
  }
  place.append(card("Device", table(device)), fleet, card("Stages, median milliseconds", table(stages, "Pipeline", "decode", "prepare", "wait", "infer", "finish", "age", "bad", "dropped")));
  if (may("operator")) place.append(card("Doctor", h("p", {}, look), found), card("Log", log));
  if (may("admin")) place.append(card("Bug report", h("p", {}, "Config, state, versions and log in one file; users, passwords and tokens are taken out. Look through it before you send it."),
    recordings, bundle), tokens());

  async function machine() {
    const now = await api("GET", "machine"), health = here.state?.health ?? {};
    const notes = ["disk", "config", "limits", "archive", "notify", "update"].filter((key) => health[key] && !["ok", "off"].includes(health[key]));
    const accuracy = typeof health.accuracy === "object" && health.accuracy ? health.accuracy : health.accuracy ? { state: health.accuracy } : null;
    fill(device, row("Board", now.board || "unknown", `, ${now.cores} cores`), row("Processor", part("Processor", Math.min(1, now.cpu_percent / 100 / now.cores), .6, .9), ` ${now.cpu_percent} % of a core, load ${now.load.toFixed(2)}`),
      row("Memory", part("Memory", 1 - now.memory_free_bytes / now.memory_bytes, .7, .9), ` the agent ${size(now.rss_bytes)}, ${size(now.memory_free_bytes)} of ${size(now.memory_bytes)} free`),
      row("Temperature", now.celsius === null ? "the board has no sensor" : `${now.celsius.toFixed(0)} °C`, now.trouble.length ? h("p", { class: "why" }, now.trouble.join(", ")) : null),
      row("Disk", part("Disk", 1 - now.disk_free_bytes / now.disk_bytes, .8, .95), ` ${size(now.disk_free_bytes)} free`),
      row("Events that wait", `${now.waiting} (${size(now.store_bytes)})${now.oldest_s === null ? "" : `, the oldest of ${ago(now.oldest_s)}`}`, health.lost ? h("p", { class: "why" }, `${health.lost} lost, see the gaps among the events`) : null),
      row("Broker", now.connected === null ? "none in the config: events stay here" : now.connected ? `connected, ${now.link}` : h("span", { class: "why" }, `not connected: ${now.link}`)),
      row("Bytes left today", now.left_today === null ? "no bound" : size(now.left_today)), accuracy ? row("Accuracy", h("span", { class: /broken|risk/.test(accuracy.state) ? "why" : "" }, [accuracy.state, accuracy.why, accuracy.drift].filter((one) => typeof one === "string" && one).join(", "))) : null, row("Version", now.version), row("Up", `${Math.round(now.uptime_s / 60)} min`),
      notes.map((key) => row(key, h("span", { class: "why" }, health[key]))),
      (here.state?.pipelines ?? []).filter((pipe) => pipe.saves).map((pipe) => row(pipe.name, pipe.saves)));
    for (const pipes of [here.state?.pipelines ?? []]) fill(stages, pipes.map((pipe) => h("tr", {}, h("th", { scope: "row" }, pipe.name),
      ["decode", "prepare", "wait", "infer", "finish", "age"].map((stage) => h("td", { class: "n" }, pipe.stages[stage]?.toFixed(1) ?? "")), h("td", { class: "n" }, pipe.bad), h("td", { class: "n" }, pipe.dropped))));
  }
  let last = 0;
  async function lines() {
    if (!may("operator")) return;
    const some = await api("GET", `log?after=${last}`);
    if (!some.length) return;
    last = some.at(-1).at;
    const down = log.scrollTop + log.clientHeight > log.scrollHeight - 30;
    log.append(...some.map((line) => h("div", { class: line.level === "error" ? "why" : "" }, `${new Date(line.at * 1000).toLocaleTimeString()} ${line.level}  ${line.text}`)));
    if (down) log.scrollTop = log.scrollHeight;
  }

  function tokens() {
    const list = h("tbody"), name = h("input", { required: true, pattern: "[A-Za-z0-9][A-Za-z0-9 ._\\-]{0,63}", title: "letters and digits" }), told = h("p", { role: "status" });
    const role = h("select", {}, ["viewer", "operator", "admin"].map((one) => h("option", { value: one }, one)));
    const show = async () => fill(list, (await api("GET", "tokens")).map((one) => h("tr", {}, h("th", { scope: "row" }, one.name), h("td", {}, one.role), h("td", {}, when(one.made * 1000)),
      h("td", {}, h("button", { type: "button", class: "bad", onclick: ({ target }) => act(async () => { await api("DELETE", `tokens/${encodeURIComponent(one.name)}`); await show(); }, target) }, "Take away")))));
    const form = h("form", { class: "row", onsubmit: (event) => {
      event.preventDefault();
      act(async () => {
        const made = await api("POST", "tokens", { name: name.value, role: role.value });
        fill(told, "Shown this once: ", h("code", {}, made.token));
        name.value = "";
        await show();
      });
    } }, h("label", {}, "Name", name), h("label", {}, "Role", role), h("button", {}, "Make a token"));
    act(show);
    return card("Tokens for programs", table(list), form, told);
  }

  const tick = () => act(async () => { await machine(); await wanted(); await lines(); }), clock = setInterval(() => { if (!document.hidden) tick(); }, 2000);
  tick();
  return () => clearInterval(clock);
}
