// The operator's page. Asks /api for everything it shows; text from there is only ever set as text, never as markup.

const STATUS_EVERY_MS = 2000;
const LETTERS_EVERY_MS = 6000;
const TOAST_MS = 6000;

const $ = (id) => document.getElementById(id);
const token = {
  get: () => sessionStorage.getItem("pgbridge-token"),
  set: (value) => sessionStorage.setItem("pgbridge-token", value),
  forget: () => sessionStorage.removeItem("pgbridge-token"),
};

class Unauthorized extends Error {}

async function ask(path, method) {
  const headers = { Accept: "application/json" };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  const response = await fetch(path, { method, headers, cache: "no-store" });
  if (response.status === 401) throw new Unauthorized();
  return response;
}

async function api(path, method = "GET") {
  const response = await ask(path, method);
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(body.error ?? `HTTP ${response.status}`), { answered: true });
  return body;
}

// -- words and numbers ------------------------------------------------------------------------------------------------

const whole = new Intl.NumberFormat("en");
const none = "–";

const count = (value) => (value == null ? none : whole.format(value));

function bytes(value) {
  if (value == null) return none;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let index = 0;
  while (Math.abs(value) >= 1024 && index < units.length - 1) {
    value /= 1024;
    index += 1;
  }
  return `${index === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[index]}`;
}

function duration(seconds) {
  if (seconds == null) return none;
  if (seconds < 0.05) return "0 s";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

const ago = (then, now) => `${duration(Math.max(0, now - then))} ago`;
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString();
/** In UTC, as the log and the command line write it: one is compared with the other. */
const moment = (iso) => new Date(iso).toISOString().replace("T", " ").replace(/\.\d+/, "");
const words = (state) => state.replaceAll("_", " ");

function distance(ahead, behind) {
  if (!ahead || !behind) return null;
  const number = (lsn) => {
    const [high, low] = lsn.split("/").map((half) => BigInt(`0x${half}`));
    return (high << 32n) + low;
  };
  return Number(number(ahead) - number(behind));
}

/** Break and indent JSON text without reading its numbers, which JavaScript would round past 2^53. */
function indented(json) {
  let depth = 0;
  const line = (change) => `\n${"  ".repeat((depth += change))}`;
  return json.replace(/"(?:[^"\\]|\\.)*"|[{[]\s*[}\]]|[{[]|[}\]]|,|:|\s+|[^\s"{}[\],:]+/g, (token) => {
    if (/^[{[]\s*[}\]]$/.test(token)) return token[0] + token.at(-1);
    if (token === "{" || token === "[") return token + line(1);
    if (token === "}" || token === "]") return line(-1) + token;
    if (token === ",") return token + line(0);
    if (token === ":") return ": ";
    return /^\s+$/.test(token) ? "" : token;
  });
}

// -- small DOM tools --------------------------------------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value == null) continue;
    if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "class") element.className = value;
    else if (name === "on") for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Replace the children of `parent` only where what they show has changed, and keep the focus where it is. */
function show(parent, children, fingerprint) {
  const shown = JSON.stringify(fingerprint);
  if (parent.dataset.shown === shown) return;
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  parent.dataset.shown = shown;
  parent.replaceChildren(...children());
  if (focused) parent.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}

let toastTimer;
function announce(text) {
  clearTimeout(toastTimer);
  $("announce").textContent = text;
  toastTimer = setTimeout(() => ($("announce").textContent = ""), TOAST_MS);
}

function banner(text, tone) {
  const element = $("banner");
  element.hidden = !text;
  if (text && element.textContent !== text) element.textContent = text;
  element.dataset.tone = tone ?? "";
}

async function confirmed(title, text, yes) {
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  const dialog = $("confirm");
  dialog.returnValue = "no";
  dialog.showModal();
  await new Promise((done) => dialog.addEventListener("close", done, { once: true }));
  return dialog.returnValue === "yes";
}

/** Run an action with its button disabled; say how it went. */
async function act(button, path, said) {
  const held = button.contains(document.activeElement); // a disabled button loses the focus
  const name = button.dataset.focus;
  button.disabled = true;
  try {
    const body = await api(path, "POST");
    announce(said(body));
  } catch (error) {
    if (error instanceof Unauthorized) askForToken("The token is no longer accepted.");
    else announce(error.answered ? error.message : "pgbridge did not answer; nothing may have happened.");
  } finally {
    button.disabled = false;
    await tick();
    await refreshLetters();
    if (held && document.activeElement === document.body) {
      const again = document.querySelector(`[data-focus="${CSS.escape(name)}"]`);
      (again ?? $("main")).focus({ preventScroll: !again });
    }
  }
}

// -- what is shown ----------------------------------------------------------------------------------------------------

const TONES = { streaming: "ok", running: "ok", starting: "quiet", standing_by: "quiet", disabled: "quiet", stopped: "bad" };
// States of the process in which no trigger sends anything, whatever its own state.
const SENDS_NOTHING = new Set(["starting", "standing_by", "stopped"]);
const WAL_TONES = { unreserved: "warn", lost: "bad" };
// Fewer triggers than this are seen at a glance.
const MANY_TRIGGERS = 8;
let last = null;
let rates = new Map();

function rate(name, total, at) {
  const before = rates.get(name);
  if (!before || at - before.at >= 1 || total < before.total) {
    const perSecond = before && total >= before.total && at > before.at ? (total - before.total) / (at - before.at) : 0;
    rates.set(name, { total, at, perSecond });
  }
  return rates.get(name).perSecond;
}

const perSecond = (value) => (value < 0.05 ? null : `${value < 10 ? value.toFixed(1) : whole.format(Math.round(value))}/s`);

function render(status) {
  const now = status.now;
  $("version").textContent = status.version;
  const healthy = status.health.live;
  $("state").textContent = words(status.state);
  $("state").dataset.tone = healthy ? (TONES[status.state] ?? "warn") : "bad";
  document.title = status.state === "streaming" && healthy ? "pgbridge" : `${words(status.state)} – pgbridge`;

  const reasons = [...new Set([...status.health.reasons, ...(status.reason && status.health.ready ? [status.reason] : [])])];
  banner(reasons.join(" · "), healthy ? "warn" : "bad");
  renderSource(status, now);
  renderTriggers(status, now);
  $("updated").textContent = `Updated ${clock(now)}. Running for ${duration(now - (status.started_at ?? now))}.`;
}

function renderSource(status, now) {
  const slot = status.slot ?? {};
  const behind = distance(status.received_lsn, status.confirmed_lsn);
  const changes = rate("changes", status.polled_changes, now);
  const wal =
    slot.wal_status === "lost"
      ? "the server has removed it"
      : slot.safe_wal_bytes == null
        ? "no limit set"
        : `${bytes(slot.safe_wal_bytes)} more before it is in danger`;
  const holder = slot.held_by ? make("div", { textContent: `from the oldest open transaction on: ${slot.held_by}` }) : null;
  const full = status.buffer_limit_bytes ? status.buffered_bytes / status.buffer_limit_bytes : null;
  const meter =
    full == null
      ? null
      : make("meter", { min: 0, max: 1, high: 0.8, value: Math.min(1, full), "aria-label": "Share of the memory budget in use" });
  const facts = [
    ["Slot", slot.name ?? none, slot.wal_status ? `WAL ${slot.wal_status}` : "WAL status not known", null, WAL_TONES[slot.wal_status]],
    ["WAL kept for it", bytes(slot.retained_bytes), wal, holder, WAL_TONES[slot.wal_status]],
    ["Received", status.received_lsn ?? none, perSecond(changes) ?? `${count(status.polled_changes)} changes`],
    ["Confirmed", status.confirmed_lsn ?? none, behind == null ? null : behind === 0 ? "all that was received" : `${bytes(behind)} behind`],
    ["In memory", bytes(status.buffered_bytes), status.buffer_limit_bytes ? `of ${bytes(status.buffer_limit_bytes)}` : null, meter],
    ["Reconnects", count(status.reconnects), status.last_message_at ? `heard ${ago(status.last_message_at, now)}` : null],
  ];
  show(
    $("source"),
    () =>
      facts.map(([name, value, more, extra, tone]) =>
        make(
          "div",
          {},
          make("dt", { textContent: name }),
          make("dd", { textContent: value, class: /^[0-9A-F]+\/[0-9A-F]+$/.test(value) ? "mono" : null }),
          more || extra ? make("dd", { dataset: { tone: tone ?? "" } }, more ?? "", extra ?? "") : null,
        ),
      ),
    [facts.map((fact) => fact.slice(0, 3)), full && full.toFixed(2), slot.held_by],
  );
}

function renderTriggers(status, now) {
  const rows = status.triggers.map((trigger) => ({ ...trigger, speed: perSecond(rate(`t:${trigger.name}`, trigger.delivered, now)) }));
  const inTrouble = rows.filter(isInTrouble);
  const counts = new Map();
  for (const trigger of rows) counts.set(stateOf(trigger, status), (counts.get(stateOf(trigger, status)) ?? 0) + 1);
  $("triggers-count").hidden = rows.length < 2;
  $("triggers-count").textContent = [...counts].map(([state, number]) => `${count(number)} ${words(state)}`).join(", ");
  const button = $("only-trouble");
  button.hidden = !onlyTrouble && (rows.length < MANY_TRIGGERS || inTrouble.length === 0);
  button.setAttribute("aria-pressed", String(onlyTrouble));
  button.textContent = onlyTrouble ? `Show all ${count(rows.length)}` : `Show the ${count(inTrouble.length)} that need attention`;
  const listed = onlyTrouble ? inTrouble : rows;
  $("no-triggers").hidden = listed.length > 0;
  $("no-triggers").textContent = rows.length > 0 ? "No trigger needs attention." : "No triggers.";
  $("triggers").hidden = listed.length === 0;
  const shown = listed.map((trigger) => [
    ...Object.values({ ...trigger, lag_seconds: duration(trigger.lag_seconds), last_error_at: trigger.last_error_at && ago(trigger.last_error_at, now) }),
  ]);
  show($("triggers").tBodies[0], () => listed.map((trigger) => triggerRow(trigger, status, now)), [shown, status.state, status.actions]);

  const select = $("filter-trigger");
  const names = rows.map((trigger) => trigger.name);
  if (select.dataset.names !== names.join()) {
    select.dataset.names = names.join();
    const chosen = select.value;
    select.replaceChildren(make("option", { value: "", textContent: "All triggers" }), ...names.map((name) => make("option", { value: name, textContent: name })));
    select.value = names.includes(chosen) ? chosen : "";
  }
}

/** What somebody has to look at: not sending, not keeping up, or with changes set aside. */
function isInTrouble(trigger) {
  return trigger.state === "paused" || trigger.mode === "backlog" || trigger.retrying > 0 || trigger.dead_letters > 0;
}

/** A trigger that could run does what its process does: nothing, before it has the slot and once it has stopped. */
const stateOf = (trigger, status) => (trigger.state === "running" && SENDS_NOTHING.has(status.state) ? status.state : trigger.state);

function triggerRow(trigger, status, now) {
  const actions = SENDS_NOTHING.has(status.state) ? {} : status.actions;
  const state = stateOf(trigger, status);
  const behind = trigger.mode === "backlog" && state === "running";
  const cell = (label, text, more, alarm) =>
    make(
      "td",
      { class: "number", dataset: { label, alarm: String(Boolean(alarm)) } },
      text,
      more ? make("div", { class: "sub", textContent: more }) : null,
    );
  const paused = trigger.state === "paused";
  const name = encodeURIComponent(trigger.name);
  let button = null;
  if (paused && actions.resume) {
    button = make("button", {
      type: "button",
      textContent: "Resume",
      "aria-label": `Resume ${trigger.name}`,
      dataset: { focus: `t:${trigger.name}` },
      on: { click: (event) => act(event.currentTarget, `api/triggers/${name}/resume`, () => `${trigger.name} runs again.`) },
    });
  } else if (state === "running" && actions.pause) {
    button = make("button", {
      type: "button",
      class: "quiet",
      textContent: "Pause",
      "aria-label": `Pause ${trigger.name}`,
      dataset: { focus: `t:${trigger.name}` },
      on: { click: (event) => act(event.currentTarget, `api/triggers/${name}/pause`, () => `${trigger.name} is paused; its changes wait.`) },
    });
  }
  const trouble = !paused && trigger.last_error ? `Last failure ${ago(trigger.last_error_at ?? now, now)}: ${trigger.last_error}` : null;
  return make(
    "tr",
    {},
    make(
      "td",
      { class: "full" },
      make("div", { class: "name", textContent: trigger.name }),
      make("div", { class: "sub mono", textContent: trigger.target }),
      behind
        ? make("div", { class: "why", textContent: "Delivers from the backlog table, since its target was down or too slow; live again once that is empty." })
        : null,
      paused && trigger.paused_reason ? make("div", { class: "why", textContent: trigger.paused_reason }) : null,
      trouble ? make("div", { class: "sub", textContent: trouble }) : null,
    ),
    make("td", { class: "full" }, make("span", { class: "pill", textContent: words(state), dataset: { tone: behind ? "warn" : (TONES[state] ?? "warn") } })),
    cell("Lag", duration(trigger.lag_seconds), trigger.lag_bytes ? bytes(trigger.lag_bytes) : null),
    cell("Waiting", count(trigger.waiting), trigger.waiting_bytes ? bytes(trigger.waiting_bytes) : null),
    cell("In flight", count(trigger.in_flight)),
    cell("Retrying", count(trigger.retrying)),
    cell("Backlog", count(trigger.backlog_events), trigger.backlog_bytes ? bytes(trigger.backlog_bytes) : null),
    cell("Delivered", count(trigger.delivered), trigger.speed ?? (trigger.filtered ? `${count(trigger.filtered)} filtered out` : null)),
    cell("Dead letters", count(trigger.dead_letters), null, trigger.dead_letters > 0),
    make("td", { class: "actions full" }, button),
  );
}

function renderLetters(answer) {
  const { letters, total, more } = answer;
  $("letters-count").hidden = total === 0;
  $("letters-count").textContent = count(total);
  $("letters").hidden = letters.length === 0;
  const filtered = $("filter-trigger").value || $("filter-error").value;
  $("no-letters").hidden = letters.length > 0;
  $("no-letters").textContent = filtered ? "No dead letter is like that." : "No dead letters: every change has arrived or is on its way.";
  $("more-letters").hidden = !more;
  $("more-letters").textContent = `The oldest ${letters.length} of ${count(total)}. For many at once: pgbridge dlq replay ${chosen()}`;
  const actions = last?.actions ?? {};
  const now = last?.now ?? Date.now() / 1000;
  show($("letters").tBodies[0], () => letters.map((letter) => letterRow(letter, actions, now)), [letters, actions]);
}

/** The filter above the dead letters, as the command line says it. */
function chosen() {
  const trigger = $("filter-trigger").value;
  const error = $("filter-error").value;
  const options = [trigger && `--trigger ${trigger}`, error && `--error '${error.replaceAll("'", "'\\''")}'`];
  return options.filter(Boolean).join(" ") || "--all";
}

function letterRow(letter, actions, now) {
  const button = (text, kind, run) =>
    make("button", {
      type: "button",
      class: kind,
      textContent: text,
      "aria-label": `${text} dead letter ${letter.id}`,
      dataset: { focus: `l:${letter.id}:${text}` },
      on: { click: run },
    });
  return make(
    "tr",
    {},
    make("td", { class: "full" }, make("div", { class: "name", textContent: letter.table }), make("div", { class: "sub mono", textContent: letter.event_id })),
    make("td", { dataset: { label: "Trigger" } }, letter.trigger),
    make("td", { class: "wide", dataset: { label: "Error" } }, letter.error, letter.status && !letter.error.includes(letter.status) ? make("span", { class: "sub", textContent: ` (${letter.status})` }) : null),
    make("td", { class: "number", dataset: { label: "Attempts" } }, count(letter.attempts)),
    make(
      "td",
      { dataset: { label: "Last failed" } },
      make("time", { dateTime: letter.last_failed_at, title: moment(letter.last_failed_at), textContent: ago(Date.parse(letter.last_failed_at) / 1000, now) }),
    ),
    make(
      "td",
      { class: "actions full" },
      button("Show", "quiet", () => openLetter(letter.id)),
      actions.replay ? button("Replay", "", (event) => replay(event.currentTarget, letter)) : null,
      button("Discard", "danger", (event) => discard(event.currentTarget, letter)),
    ),
  );
}

const replay = (button, letter) =>
  act(button, `api/dead-letters/${letter.id}/replay`, (answer) =>
    answer.delivered ? `${letter.event_id} was delivered to ${letter.trigger}.` : `It stays a dead letter: ${answer.error}`,
  );

async function discard(button, letter) {
  const sure = await confirmed(
    `Discard dead letter ${letter.id}?`,
    `The change of ${letter.table} for ${letter.trigger} will never be delivered. This can’t be undone.`,
    "Discard",
  );
  if (sure) await act(button, `api/dead-letters/${letter.id}/discard`, () => `Dead letter ${letter.id} was discarded.`);
}

async function openLetter(id) {
  let letter;
  let event;
  try {
    letter = await api(`api/dead-letters/${id}`);
    event = await (await ask(`api/dead-letters/${id}/event`)).text();
  } catch (error) {
    announce(error.answered ? error.message : "pgbridge did not answer.");
    return;
  }
  const pairs = [
    ["Trigger", letter.trigger],
    ["Table", letter.table],
    ["Event", letter.event_id],
    ["Error", letter.error],
    ["Status", letter.status],
    ["Attempts", letter.attempts],
    ["First failed", moment(letter.first_failed_at)],
    ["Last failed", moment(letter.last_failed_at)],
    ["Request", letter.request_id],
  ].filter(([, value]) => value != null && value !== "");
  const block = (title, text) => (text ? [make("h3", { textContent: title }), make("pre", { tabIndex: 0, textContent: text })] : []);
  $("letter-title").textContent = `Dead letter ${letter.id}`;
  $("letter-body").replaceChildren(
    make("dl", { class: "pairs" }, ...pairs.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: String(value) })])),
    ...block("What the target said", letter.detail),
    ...block("Its log", letter.log_tail),
    ...block("The event", indented(event)),
  );
  $("letter").showModal();
}

// -- asking -----------------------------------------------------------------------------------------------------------

let failedSince = null;
let paused = false;
let onlyTrouble = false;

function askForToken(problem) {
  token.forget();
  $("content").hidden = true;
  $("login").hidden = false;
  $("login-error").hidden = !problem;
  $("login-error").textContent = problem ?? "";
  $("state").textContent = "token needed";
  $("state").dataset.tone = "quiet";
  banner(null);
  $("token").focus();
}

async function tick() {
  try {
    const status = await api("api/status");
    failedSince = null;
    $("login").hidden = true;
    $("content").hidden = false;
    const before = last;
    last = status;
    render(status);
    const letters = (s) => s?.triggers.map((trigger) => trigger.dead_letters).join();
    if (letters(before) !== letters(status)) await refreshLetters();
  } catch (error) {
    if (error instanceof Unauthorized) {
      if ($("login").hidden) askForToken(token.get() ? "The token was not accepted." : null);
      return;
    }
    failedSince ??= Date.now() / 1000;
    $("state").textContent = "no answer";
    $("state").dataset.tone = "bad";
    const seen = last ? ` What you see is from ${clock(last.now)}.` : "";
    banner(`${error.answered ? error.message : "pgbridge does not answer."} Trying again since ${clock(failedSince)}.${seen}`, "bad");
  }
}

let questions = 0;

async function refreshLetters() {
  if ($("content").hidden) return;
  const question = ++questions; // a slow answer must not replace that to a later question
  const query = new URLSearchParams(new FormData($("filter")));
  for (const [name, value] of [...query]) if (!value) query.delete(name);
  try {
    const answer = await api(`api/dead-letters?${query}`);
    if (question === questions) renderLetters(answer);
  } catch (error) {
    if (error instanceof Unauthorized || question !== questions) return;
    $("letters").hidden = true;
    $("no-letters").hidden = false;
    $("no-letters").textContent = error.answered ? `Dead letters can’t be read: ${error.message}` : "Dead letters can’t be read now.";
  }
}

const idle = () => paused || document.hidden || !$("login").hidden;

function every(milliseconds, run) {
  const again = async () => {
    if (!idle()) await run();
    setTimeout(again, milliseconds);
  };
  setTimeout(again, milliseconds);
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  token.set($("token").value.trim());
  $("token").value = "";
  $("login").hidden = true;
  await tick();
});
$("refresh").addEventListener("click", (event) => {
  paused = !paused;
  event.currentTarget.setAttribute("aria-pressed", String(!paused));
  event.currentTarget.textContent = `Auto refresh: ${paused ? "off" : "on"}`;
  if (!paused) tick();
});
$("only-trouble").addEventListener("click", () => {
  onlyTrouble = !onlyTrouble;
  if (last) renderTriggers(last, last.now);
});
$("filter").addEventListener("input", refreshLetters);
$("filter").addEventListener("submit", (event) => event.preventDefault());
document.querySelectorAll("[data-close]").forEach((button) => button.addEventListener("click", () => button.closest("dialog").close()));
document.addEventListener("visibilitychange", () => idle() || tick());

await tick();
every(STATUS_EVERY_MS, tick);
every(LETTERS_EVERY_MS, refreshLetters);
