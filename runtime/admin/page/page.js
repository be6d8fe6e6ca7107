// The operator's page: it reads `/v1/stream` and `/v1/lanes`, and shows them. The order is that of the page, with the
// connection last. Keys, topics, reasons and errors come from others: they become text nodes, never HTML.

const RECONNECT_MS = 2000;
const SILENCE_MS = 5000; // A status arrives every second; without one for this long, the connection counts as lost.
const STRIPS_LIMIT = 50;
const NOTICES_LIMIT = 256;
const PROBLEMS_LIMIT = 5;
const HISTORY_MS = 600000;
const WARNING_MS = 60000; // The summary shows a warning for this long.

const $ = (id) => document.getElementById(id);

// Variables that end in `At` hold times of this browser's clock.
const model = {
  status: null,
  receivedAt: 0,
  lostAt: null,
  lostBecause: "",
  token: "",
  tokenNeeded: false,
  restart: null,
  notices: new Map(), // By text; the last one is the newest.
  noticesSeen: new Set(),
  lanes: null,
  lanesError: "",
  history: [],
  allPartitions: false,
  order: { positions: new Map(), signature: "", at: 0 },
};

// ---- Formats

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const decimal = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat("en", { notation: "compact" });
const clock = (ms) => new Date(ms).toLocaleTimeString("sv"); // HH:MM:SS

const known = (value) => value != null;
const shown = (format) => (value) => (known(value) ? format(value) : "–");
const count = shown(whole.format);
const offset = shown(String);
const digest = shown((sha256) => sha256.slice(0, 12));
const rate = shown((value) => `${(value < 10 ? decimal : whole).format(value)}/s`);
const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
const sum = (values) => values.reduce((total, value) => total + value, 0);
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const ended = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);
const todo = (remedy) => remedy && `What to do: ${ended(remedy)}`;
const joined = (texts, separator) => texts.filter(Boolean).join(separator);

const duration = shown((ms) => {
  const [seconds, minutes, hours] = [1e3, 6e4, 36e5].map((unit) => Math.floor(ms / unit));
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (seconds < 60) return `${seconds} s`;
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
});

const microseconds = shown((us) => (us < 1000 ? `${us} µs` : `${decimal.format(us / 1000)} ms`));
const bytes = shown((value) => {
  const unit = value && Math.floor(Math.log2(value) / 10);
  return `${decimal.format(value / 1024 ** unit)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
});

// ---- Elements
//
// They are created once and then updated, so that focus, selection and open details survive each update.

/** Builds an element. If `attributes` is a string, it is the class. */
function build(element, attributes, children) {
  if (typeof attributes === "string") attributes = { class: attributes };
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const h = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) =>
  build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function attr(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets a text; without one, the element is hidden. */
function setOptional(element, text) {
  setText(element, text || "");
  element.hidden = !text;
}

/** Sets a text in which backticks mark code; without one, the element is hidden. */
function setMarked(element, text) {
  element.hidden = !text;
  setSentence(element, [text || ""]);
}

/** Sets texts. Those that change every second are a `{ tick }`: they are shown, but not announced. */
function setSentence(element, parts) {
  const ticks = parts.map((part) => part.tick).filter(Boolean);
  const stable = parts.map((part) => part.tick ? "\0" : part).join("");
  if (element.stable !== stable) {
    element.stable = stable;
    const marked = (text) => text.split("`").map((piece, index) => index % 2 ? h("code", {}, piece) : piece);
    element.replaceChildren(...parts.flatMap((part) => part.tick ? h("span", { "aria-hidden": "true" }) : marked(part)));
  }
  element.querySelectorAll("span").forEach((span, index) => setText(span, ticks[index]));
}

const paragraph = (kind, ...children) => h("p", kind, ...children);
const badge = () => h("span", "badge");
const muted = (...children) => h("span", "muted", ...children);
const facts = () => h("dl", "facts");

function setBadge(element, text, tone = "") {
  setOptional(element, text);
  attr(element, "data-tone", tone);
}

/** Makes the children of `parent` those of `items`, in this order. A row is an object with its `element`. */
function reconcile(parent, items, keyOf, create, update = () => {}) {
  parent.keyed ??= new Map();
  const keys = new Set(items.map(keyOf));
  for (const [key, row] of parent.keyed) {
    if (keys.has(key)) continue;
    row.element.remove();
    parent.keyed.delete(key);
  }
  let cursor = parent.firstElementChild;
  items.forEach((item, index) => {
    const key = keyOf(item, index);
    let row = parent.keyed.get(key);
    if (!row) parent.keyed.set(key, (row = create(item)));
    update(row, item);
    if (row.element === cursor) cursor = cursor.nextElementSibling;
    else if (row.element.isConnected && parent.moveBefore) parent.moveBefore(row.element, cursor); // Keeps the focus.
    else parent.insertBefore(row.element, cursor);
  });
}

function setFacts(list, facts) {
  const create = ([name]) => {
    const value = h("dd");
    return { element: h("div", {}, h("dt", {}, name), value), value };
  };
  reconcile(list, Object.entries(facts), ([name]) => name, create, (row, [, value]) => setText(row.value, value));
}

function setOptions(select, values) {
  reconcile(select, values, (value) => value, (value) => ({ element: h("option", { value }, value) }));
}

/** Returns whether the operator has the focus or a selection in this element. */
function isInUse(element) {
  const selection = document.getSelection();
  return element.contains(document.activeElement) || (!selection.isCollapsed && element.contains(selection.anchorNode));
}

// ---- Partitions without progress

const nameOf = ({ topic, partition }) => `${topic}/${partition}`;
const meaningOf = ({ meaning, reason }) => meaning || reason;

function meaningAtOffset(blocked) {
  if (!known(blocked.offset)) return meaningOf(blocked);
  const text = meaningOf(blocked).replace(/the event\b/, `the event at offset ${blocked.offset}`);
  return text.includes("at offset") ? text : `${text} (offset ${blocked.offset})`;
}

function topicsOf({ awaited_topics: topics }) {
  return topics?.length && `topic ${topics.join(", ")}`;
}

/** Adds to each partition its handler (`of`), names, and why it has stopped. */
function prepare(status) {
  for (const of of status.handlers) {
    for (const partition of of.partitions) {
      const name = nameOf(partition);
      const stopped = partition.state === "stopped";
      const own = `topic ${partition.topic} partition ${partition.partition} stopped: `; // The page names it already.
      const reason = stopped && ended(partition.stop_reason?.replace(own, "") || "the reason is in the log");
      partition.stalled &&= !stopped;
      Object.assign(partition, { of, name, key: `${of.handler} ${name}`, stopped, stopReason: reason });
    }
  }
}

// ---- The sentence

/** Lists what is wrong, worst first. */
function problemsOf(status) {
  const problems = [];
  const add = (tone, kind, sentence, more = {}) => problems.push({ tone, kind, number: 1, sentence, ...more });
  const { handlers } = status;
  for (const { handler, state, failures, partitions } of handlers) {
    const all = state === "stopped" && failures.length;
    if (all) add("problem", "stopped", [`${handler} has stopped: ${ended(failures.join("; "))}`]);
    for (const partition of partitions.filter(({ stopped }) => stopped && !all)) {
      add("problem", "stopped", [`${handler}: partition ${partition.name} has stopped: ${partition.stopReason}`]);
    }
  }
  for (const { handler, unresponsive_ms: ms } of handlers) {
    const time = { tick: ` for ${duration(ms)}` };
    const what = [`${handler} has not responded`, time, "; its data is that of its last response."];
    if (known(ms)) add("problem", "not responding", what);
  }
  for (const { handler, no_broker_reachable: none } of handlers) {
    const what = `${handler}: no broker can be reached: every connection is down, or has not responded for 10 s.`;
    if (none) add("problem", "without brokers", [what], { remedy: "check that the brokers run and respond" });
  }
  for (const { handler, transactions } of handlers) {
    const what = `${handler}: the brokers can't keep transactions: ${ended(transactions?.unavailable ?? "")}`;
    const remedy = "check that the brokers run; it is tried again";
    if (transactions?.unavailable) add("problem", "without transactions", [what], { remedy });
  }
  for (const handler of handlers) addStalls(handler, add);
  for (const { handler, grown_topics: grown } of handlers) {
    for (const { topic, partitions, at_start: before } of grown ?? []) {
      const what = `${handler}: topic ${topic} has ${partitions} partitions, at start ${before}: keys have moved.`;
      add("warning", "grown topic", [what], { remedy: "see docs/recipes/partition-count.md" });
    }
  }
  for (const { handler, group, state, failures, blocking_topic: topic, partitions, totals } of handlers) {
    if (topic) {
      const remedy = "check that the brokers of this topic run and accept its records";
      const what = `${handler}: new calls wait, because too many outputs are queued, most of them for topic ${topic}.`;
      add("warning", "blocked", [what], { remedy });
    }
    if (state === "running" && !partitions.length && totals.partitions_lost) {
      const remedy = "check that the brokers run and respond";
      const what = `${handler} has no partition: group ${group} removed this process, or the brokers do not respond.`;
      add("warning", "without partitions", [what], { remedy });
    }
    if (state === "stopped" && !failures.length) add("warning", "ended", [`${handler} has ended.`]);
    if (/starting|joining|draining/.test(state)) add("warning", state, [`${handler} is ${state} (group ${group}).`]);
  }
  return problems;
}

/** Adds the stalls of a handler. Partitions that stall for the same reason are one problem. */
function addStalls(handler, add) {
  const reasons = new Map();
  for (const partition of handler.partitions.filter(({ stalled }) => stalled)) {
    const reason = partition.blocked?.reason;
    reasons.set(reason, [...(reasons.get(reason) ?? []), partition]);
  }
  for (const stalls of reasons.values()) {
    const number = stalls.length;
    const one = number === 1;
    const all = number === handler.partitions.length ? "all " : "";
    const [{ name, blocked, stalled_ms: ms }] = stalls.sort((a, b) => b.stalled_ms - a.stalled_ms);
    const time = known(ms) ? { tick: `${one ? "" : `, the longest (${name})`} for ${duration(ms)}` } : "";
    const verb = one && time ? "has made" : one ? "makes" : "make";
    const what = `${handler.handler}: ${one ? `partition ${name}` : `${all}${number} partitions`} ${verb} no progress`;
    const why = blocked ? `: ${one ? meaningAtOffset(blocked) : meaningOf(blocked)}` : "";
    const attempt = one && blocked?.attempt ? { tick: ` (attempt ${blocked.attempt})` } : "";
    const topics = one && blocked && topicsOf(blocked);
    add("problem", "stalled", [what, time, why, topics ? ` (${topics})` : "", attempt, "."], { ...blocked, number });
  }
}

/** Returns the sentence for a status, the word and the title for it, and the other problems. */
function assess(status) {
  const { state, handlers } = status;
  const all = problemsOf(status);
  const problems = all.filter(({ tone }) => tone === "problem");
  if (state.name === "starting") {
    const sentence = [`The process is starting: ${state.step}`, { tick: `, for ${duration(state.step_ms)}` }, "."];
    return { tone: "warning", word: "Starting", sentence, problems };
  }
  if (state.name === "draining") {
    const sentence = ["The process is draining: it finishes its calls, commits, and leaves its groups."];
    return { tone: "warning", word: "Draining", sentence, problems };
  }
  if (all.length) {
    const [first, ...rest] = all;
    const total = (kind, list) => `${sum(list.map((item) => item.kind === kind ? item.number : 0))} ${kind}`;
    const also = [...new Set(rest.map(({ kind }) => kind))].map((kind) => total(kind, rest)).join(", ");
    const sentence = [...first.sentence, also && ` Also: ${also}.`];
    const word = first.tone === "problem" ? "Problem" : "Attention";
    return { ...first, word, title: total(first.kind, all), sentence, problems: rest };
  }
  const partitions = handlers.flatMap((handler) => handler.partitions);
  const starting = partitions.filter((partition) => partition.state === "starting").length;
  if (!partitions.length) return { word: "Idle", sentence: ["No partition is assigned to this process."], problems };
  const sentence = `All partitions make progress.${starting ? ` Starting: ${starting} of ${partitions.length}.` : ""}`;
  return { tone: "ok", word: "OK", title: "OK", sentence: [sentence], problems };
}

/** Returns the last warning, unless it is old, the summary already shows it, or it comes from librdkafka. */
function lastWarning({ time_ms: now }) {
  const isNew = ({ level, message, time_ms: ms }) =>
    level !== "INFO" && now - ms < WARNING_MS && !/^(partition stalled|partition stopped|librdkafka log)$/.test(message);
  const notice = [...model.notices.values()].findLast(isNew);
  if (!notice) return "";
  const { topic, error, failure, warning, code, remedy } = notice.fields;
  const details = joined([topic && `topic ${topic}`, error ?? failure ?? warning ?? code], ", ");
  const what = joined([notice.message, details], ": ");
  return joined([`Last warning, ${clock(notice.time_ms)}: ${ended(what)}`, todo(remedy)], " ");
}

/** Returns what `assess` does, as far as the page has data. */
function view(lost, since) {
  const { status, tokenNeeded } = model;
  if (tokenNeeded) return { tone: "warning", word: "Token required", sentence: ["This server requires a token."] };
  if (!lost) return status ? assess(status) : { word: "Connecting", sentence: ["Connecting."] };
  const gone = { tone: "problem", word: "No connection", title: "no connection" };
  if (!status) return { ...gone, sentence: ["The process can't be reached", { tick: ` for ${since}` }, "."] };
  const last = assess(status);
  return { ...last, ...gone, sentence: ["The connection to the process is lost. Before that: ", ...last.sentence] };
}

function renderSummary() {
  const { status, lostAt, tokenNeeded, restart } = model;
  const lost = lostAt !== null && Date.now() - lostAt >= 1000;
  const since = duration(Date.now() - lostAt);
  const { tone = "", word, title = word.toLowerCase(), sentence, error, remedy, problems = [] } = view(lost, since);
  document.title = `${title} · Keylane`;
  document.body.dataset.stale = lost;
  $("token-form").hidden = !tokenNeeded;
  attr($("summary"), "data-tone", tone);
  setText($("tone"), word);
  setSentence($("sentence"), sentence);
  setOptional($("last-error"), error && `Last error: ${error}`);
  setMarked($("remedy"), todo(remedy));
  setMarked($("last-warning"), status && !lost && !tokenNeeded && lastWarning(status));

  const items = problems.slice(0, PROBLEMS_LIMIT);
  const left = problems.length - items.length;
  if (left) items.push({ sentence: [`${plural(left, "other problem")}: see the partitions and the handlers.`] });
  const create = () => {
    const [what, remedy] = [h("span"), muted()];
    return { element: h("li", {}, what, " ", remedy), what, remedy };
  };
  reconcile($("problems"), items, (_, index) => index, create, (row, item) => {
    setSentence(row.what, item.sentence);
    setMarked(row.remedy, todo(item.remedy));
  });

  let connection = "";
  if (lost) {
    const data = status ? `Connection lost for ${since}; the data below is from ${clock(model.receivedAt)}.` : "";
    connection = joined([data, model.lostBecause, "Reconnecting every 2 s."], " ");
  } else if (status && !tokenNeeded) {
    connection = `Connected; the data is from ${clock(model.receivedAt)}.`;
    if (restart && Date.now() - restart.at < HISTORY_MS) {
      connection += ` The process was restarted at ${clock(restart.at)} (pid ${restart.from}, now ${status.pid}).`;
    }
  }
  setMarked($("connection"), connection);
  attr($("connection"), "data-lost", lost);
}

function renderLimits(status) {
  const create = ({ handler }) => {
    const [limit, detail] = [badge(), muted()];
    return { element: h("li", {}, h("strong", {}, handler), limit, detail), limit, detail };
  };
  reconcile($("limits"), status.handlers, ({ handler }) => handler, create, (row, handler) => {
    const { cause, detail, remedy } = handler.limited_by ?? {};
    const { partitions } = handler;
    const running = handler.state === "running" && partitions.length > 0;
    const bad = partitions.filter(({ stalled, stopped }) => stalled || stopped).length;
    const good = cause === "caught_up";
    const caughtUp = `caught up${bad ? `, except for ${plural(bad, "partition")}` : ""}`;
    const limit = good ? caughtUp : cause ? `limited by ${cause.replaceAll("_", " ")}` : "limit not known yet";
    const state = handler.state === "running" ? "no partition" : handler.state;
    setBadge(row.limit, running ? limit : state, running && good && !bad ? "ok" : "");
    const left = handler.catch_up_ms ? `About ${duration(handler.catch_up_ms)} to the end of the log.` : "";
    setMarked(row.detail, running && joined([detail && ended(capital(detail)), left, !good && todo(remedy)], " "));
  });
  const { memory } = status;
  setText($("process"), joined([
    status.host, `pid ${status.pid}`, `version ${status.version}`, `up ${duration(status.uptime_ms)}`,
    plural(status.workers, "worker"), `records ${bytes(memory?.arena_bytes)} of ${bytes(status.memory_budget_bytes)}`,
    `output backlog ${bytes(memory?.output_backlog_bytes)}`, `linear guest memory ${bytes(memory?.guest_bytes)}`,
    `resident ${bytes(memory?.resident_bytes)}`,
    `configuration ${digest(status.configuration_sha256)}`,
  ], " · "));
}

// ---- The partitions

const PARTS = [
  ["committed", "committed"],
  ["settled", "settled, not committed"],
  ["beyond", "settled beyond an unsettled event"],
  ["queued", "queued or in progress"],
  ["unread", "not read"],
];

/** The pattern is an attribute: the URL in a style sheet would be relative to the sheet. */
const partRect = ([name], width) => s("rect", { class: `part ${name}`, height: "100%", width, fill: `url(#fill-${name})` });

/** Draws the strip of a log. The width of the uncommitted part grows with the logarithm of the lag; the widths within it are proportional. */
function drawStrip(row, partition) {
  const { committable, next_offset: next, log_end: end, completed_beyond: beyond, queued } = partition;
  const begin = partition.committed ?? committable;
  const counts = [committable - begin, beyond, queued, end - (next ?? end)].map((value) => Math.max(0, value));
  const lag = sum(counts);
  const share = Math.min(94, (100 * Math.log10(1 + lag / 10)) / 6);
  // Parts that are not empty are visible, however small they are.
  const widths = counts.map((value) => value && Math.max(1, (share * value) / lag));
  widths.unshift(begin > 0 ? 100 - sum(widths) : 0);
  let x = 100 - sum(widths);
  widths.forEach((width, index) => {
    if (index === 2) attr(row.mark, "x", `${x.toFixed(1)}%`);
    attr(row.rects[index], "x", `${x.toFixed(1)}%`);
    attr(row.rects[index], "width", `${width.toFixed(1)}%`);
    x += width;
  });
  attr(row.mark, "width", partition.stalled ? 3 : 0);
  const label = counts.map((value, index) => `${count(value)} ${PARTS[index + 1][1]}`).join(", ");
  attr(row.strip, "aria-label", known(committable) ? label : "start not known yet");
}

/** Returns the partitions in the order of the page: those without progress first, then the largest lags. */
function ranked(status) {
  const { order } = model;
  const partitions = status.handlers.flatMap((handler) => handler.partitions);
  const severity = ({ stopped, stalled }) => (stopped ? 2 : stalled ? 1 : 0);
  const signature = partitions.map((partition) => partition.key + severity(partition)).join();
  const idle = Date.now() - order.at >= 10000 && !isInUse($("partition-groups"));
  if (signature === order.signature && !idle) {
    // Rows must not move every second, nor while someone reads one.
    return partitions.sort((a, b) => order.positions.get(a.key) - order.positions.get(b.key));
  }
  // A short list keeps the order of its numbers unless lags differ considerably.
  const short = partitions.length <= STRIPS_LIMIT;
  const weight = ({ lag_unsettled: lag }) => (short ? Math.round(Math.log10(lag + 30)) : lag);
  partitions.sort((a, b) => severity(b) - severity(a) || weight(b) - weight(a));
  model.order = { positions: new Map(partitions.map(({ key }, index) => [key, index])), signature, at: Date.now() };
  return partitions;
}

function renderPartitions(status) {
  const all = ranked(status);
  const shown = new Set(model.allPartitions ? all : all.slice(0, STRIPS_LIMIT));
  const many = all.length > STRIPS_LIMIT;
  const order = many && `${count(shown.size)} shown; stopped and stalled ones first, then the largest lags`;
  setText($("partitions-note"), joined([plural(all.length, "partition"), order], ", "));
  const more = model.allPartitions ? `Show the first ${STRIPS_LIMIT}` : `Show all ${count(all.length)} partitions`;
  setOptional($("partitions-all"), many && more);

  const groups = status.handlers.filter(({ partitions }) => partitions.length);
  const bad = ({ partitions }) => partitions.some(({ stalled, stopped }) => stalled || stopped);
  groups.sort((a, b) => bad(b) - bad(a));
  reconcile($("partition-groups"), groups, ({ handler }) => handler, createGroup, (group, handler) => {
    const { partitions } = handler;
    const number = (name) => partitions.filter((partition) => partition[name]).length;
    const parts = ["stopped", "stalled"].map((name) => number(name) && `${number(name)} ${name}`);
    setText(group.note, joined([plural(partitions.length, "partition"), ...parts], ", "));
    const own = all.filter((partition) => partition.of === handler && shown.has(partition));
    reconcile(group.list, own, ({ key }) => key, createPartition, updatePartition);
  });
}

function createGroup({ handler }) {
  const [note, list] = [muted(), h("ul")];
  const head = h("div", "head", h("h3", {}, handler), note);
  return { element: h("div", "group", head, list), note, list };
}

function createPartition({ of, name }) {
  const row = {
    badge: badge(),
    paused: badge(),
    leftOut: badge(),
    rects: PARTS.map((part) => partRect(part, 0)),
    mark: s("rect", { class: "mark", y: -3, height: 22 }),
    values: [h("span"), h("span"), h("span")],
    facts: facts(),
    what: h("p"),
    error: paragraph("error"),
    remedy: h("p"),
  };
  row.strip = s("svg", { class: "strip", role: "img" }, ...row.rects, row.mark);
  row.why = h("div", "why", row.what, row.error, row.remedy);
  const cells = ["not settled", "not committed", "oldest"].map((label, index) =>
    h("span", "cell", muted(label), " ", row.values[index]));
  const title = h("span", "title", h("strong", {}, name), row.badge, row.paused, row.leftOut);
  row.details = h("details", {}, h("summary", {}, title, row.strip, ...cells), row.facts);
  row.details.ontoggle = render;
  row.element = h("li", { "data-partition": name, "data-handler": of.handler }, row.details, row.why);
  return row;
}

function updatePartition(row, partition) {
  const { blocked, stalled, stopped, state, stalled_ms: ms } = partition;
  const bad = stopped || stalled;
  attr(row.element, "data-stalled", Boolean(stalled));
  attr(row.element, "data-state", state);
  setBadge(row.badge, stalled ? "stalled" : state !== "active" && state, bad ? "problem" : "");
  const leftOut = known(partition.left_out) ? `topic ${partition.left_out.topic}: ${partition.left_out.error}` : null;
  setBadge(row.leftOut, leftOut && "left out of transactions", "warning");
  setBadge(row.paused, partition.read_limit && `reading paused: ${partition.read_limit}`, "warning");
  drawStrip(row, partition);
  setText(row.values[0], count(partition.lag_unsettled));
  setText(row.values[1], count(partition.lag_committed));
  setText(row.values[2], duration(partition.oldest_record_age_ms));
  const attempt = blocked?.attempt && `attempt ${blocked.attempt}`;
  const lane = blocked?.lane && `lane ${blocked.lane}`;
  const at = known(blocked?.offset) && `offset ${blocked.offset}`;
  const place = blocked && joined([blocked.reason, at, attempt, lane, topicsOf(blocked)], ", ");
  if (row.details.open) setFacts(row.facts, {
    "Committed offset": offset(partition.committed),
    "Committable offset": offset(partition.committable),
    "Next offset to read": offset(partition.next_offset),
    "End of the log": offset(partition.log_end),
    "Settled beyond an unsettled event": count(partition.completed_beyond),
    "Settled or missing, not claimed": count(partition.unclaimed),
    "Withheld events": count(partition.withheld),
    "Left out of transactions": leftOut ?? "no",
    "Queued or in progress": `${count(partition.queued)} (${bytes(partition.queued_bytes)})`,
    "Held back by the gate": count(partition.parked),
    "Running lanes": count(partition.running_lanes),
    "Unacknowledged lanes": count(partition.unacked_lanes),
    "Time since the oldest event was read": duration(partition.oldest_queued_ms),
    "Blocked on": place ?? "nothing",
  });
  row.why.hidden = !bad;
  if (!bad) return;
  const time = known(ms) ? ` for ${duration(ms)}` : "";
  const why = blocked ? `: ${meaningOf(blocked)} (${place})` : "";
  setText(row.what, stopped ? "The partition has stopped." : `No progress${time}${why}.`);
  setOptional(row.error, blocked?.error && `Last error: ${blocked.error}`);
  const see = blocked?.see && `See \`${blocked.see}\`.`;
  setMarked(row.remedy, stopped ? capital(partition.stopReason) : joined([todo(blocked?.remedy), see], " "));
}

// ---- The worst lanes

function renderLanes(status) {
  const select = $("lanes-handler");
  setOptions(select, status.handlers.map(({ handler }) => handler));
  if (!select.touched && status.handlers.length) {
    const stalled = status.handlers.find(({ partitions }) => partitions.some((partition) => partition.stalled));
    select.value = (stalled ?? status.handlers[0]).handler;
  }
  const { handler, by, lanes: all } = model.lanes ?? {};
  const lanes = handler === select.value && by === $("lanes-by").value ? all : null;
  const note = !lanes ? "No data yet." : lanes.length ? "" : "No lane has events.";
  setMarked($("lanes-note"), model.lanesError || note);
  $("lanes-table").hidden = !lanes?.length;
  if (isInUse($("lane-rows"))) return;
  reconcile($("lane-rows"), lanes ?? [], (lane) => `${nameOf(lane)} ${lane.lane}`, createLane, updateLane);
}

const LANE_COLUMNS = ["Lane", "Head", "Events", "State", "Attempt", "Age", "Last error"];

function createLane(lane) {
  const cells = LANE_COLUMNS.map((label) => h("td", { role: "cell", "data-label": label }));
  const [key, state, due] = [muted(), badge(), muted()];
  cells[0].append(h("code", {}, lane.lane), key);
  cells[3].append(state, due);
  return { element: h("tr", { role: "row", "data-lane": lane.lane }, ...cells), cells, key, state, due };
}

function updateLane({ cells, key, state, due }, lane) {
  setOptional(key, known(lane.key) && `key ${lane.key}`);
  setBadge(state, lane.state, lane.state === "delayed" ? "warning" : "");
  setOptional(due, known(lane.retry_in_ms) && `next attempt in ${duration(lane.retry_in_ms)}`);
  setText(cells[1], `${nameOf(lane)}, offset ${lane.offset}`);
  setText(cells[2], count(lane.events));
  setText(cells[4], lane.attempt ? count(lane.attempt) : "–");
  setText(cells[5], duration(lane.age_ms));
  setText(cells[6], lane.error ?? "–");
}

async function pollLanes() {
  const handler = $("lanes-handler").value;
  if (!handler || document.hidden || model.lostAt !== null || model.tokenNeeded) return;
  try {
    const query = new URLSearchParams({ handler, by: $("lanes-by").value, limit: 20 });
    const response = await request(`/v1/lanes?${query}`, AbortSignal.timeout(2000));
    model.lanesError = response.ok ? "" : await refusal(response);
    if (response.ok) model.lanes = await response.json();
  } catch {
    model.lanesError = "The lanes can't be read; this is retried.";
  }
  renderLanes(model.status);
}

// ---- The handlers

const BROKER_STATES = ["up", "unresponsive", "down", "idle"];

function brokersOf({ brokers }) {
  const number = (state) => brokers.filter((broker) => broker.state === state).length;
  return joined(BROKER_STATES.map((state) => number(state) && `${number(state)} ${state}`), ", ") || "–";
}

function brokerFact({ broker, state, round_trip_us: average, round_trip_p99_us: p99, throttle_ms: throttle }) {
  const time = known(average) && `round trip ${microseconds(average)}, p99 ${microseconds(p99)}`;
  return [`Broker ${broker}`, joined([state, time, throttle && `throttled for up to ${duration(throttle)}`], "; ")];
}

function transactionFacts(transactions) {
  if (!transactions) return {};
  const { p50_us: p50, p99_us: p99, records_per_transaction: records, last_abort: abort } = transactions;
  const results = `${count(transactions.committed)} committed, ${count(transactions.aborted)} aborted`;
  return {
    Transactions: rate(transactions.rate),
    "Transaction time p50, p99": known(p50) ? `${microseconds(p50)}, ${microseconds(p99)}` : "–",
    "Records per transaction": count(records),
    "Total transactions": results,
    "Kept outputs": bytes(transactions.kept_bytes),
    "Last abort": abort ? `${clock(abort.time_ms)}: ${abort.reason}` : "none",
  };
}

function stateFacts(state) {
  if (!state) return {};
  const { uncommitted, loading_calls: loading, restores, restored_records: records, restoring, failed } = state;
  const done = ({ next, end }) => (end > 0 ? `${Math.floor((100 * next) / end)} %` : "begins");
  const restored = `${count(restores)} partitions, ${count(records)} records`;
  return {
    "Uncommitted states": count(uncommitted),
    "Calls waiting for a state": count(loading),
    "Restored states": restored,
    "Being restored": restoring.map((partition) => `${partition.topic}/${partition.partition} ${done(partition)}`).join(", ") || "none",
    "Failing state files": failed.map(({ topic, partition, error }) => `${topic}/${partition}: ${error}`).join("; ") || "none",
  };
}

function createHandler({ handler }) {
  const row = { state: badge(), group: muted(), failures: paragraph("failures"), facts: facts(), more: facts() };
  const head = h("div", "head", h("h3", {}, handler), row.state, row.group);
  const details = h("details", {}, h("summary", {}, "Component, brokers, filter and other totals"), row.more);
  row.element = h("article", { class: "card", "data-handler": handler }, head, row.failures, row.facts, details);
  return row;
}

function updateHandler(row, handler) {
  const { rates, call_times: times, component, failures, state, instances } = handler;
  const total = ([name, value]) => [`Total ${name.replaceAll("_", " ")}`, count(value)];
  const rule = ({ rule, keep, events }) => [`${keep ? "Kept" : "Dropped"} by filter: ${rule ?? "no rule"}`, count(events)];
  const totals = Object.entries(handler.totals).map(total);
  const unresponsive = known(handler.unresponsive_ms);
  const bad = unresponsive || (state === "stopped" && failures.length);
  const tone = bad ? "problem" : state === "running" ? "ok" : "warning";
  setBadge(row.state, unresponsive ? `${state}, not responding` : state, tone);
  attr(row.element, "data-state", state);
  setText(row.group, `${handler.topics.join(", ")} · group ${handler.group}`);
  setMarked(row.failures, failures.join("; "));
  setFacts(row.facts, {
    Settled: rate(rates?.settled),
    Retries: rate(rates?.retries),
    "Dead letters": rate(rates?.dead_letters),
    Calls: `${count(handler.calls)} of ${count(handler.calls_limit)}`,
    "Calls waiting for a service": count(handler.waiting_calls),
    "Call time p50, p99": times ? `${microseconds(times.p50_us)}, ${microseconds(times.p99_us)}` : "–",
    Instances: `${count(instances.busy)} busy, ${count(instances.idle)} idle`,
    "Guest memory": bytes(handler.guest_memory_bytes),
    Lanes: `${count(handler.lanes)}, ${count(handler.ready_lanes)} ready`,
    "Lanes in retry": count(handler.retrying_lanes),
    Brokers: brokersOf(handler),
    "Fetched ahead": bytes(handler.fetch_queue_bytes),
    Delivery: handler.delivery,
    ...transactionFacts(handler.transactions),
    ...stateFacts(handler.keyed_state),
    Component: `${component.split("/").pop()} ${digest(handler.component_sha256)}`,
    ...Object.fromEntries(totals.slice(0, 5)),
  });
  setFacts(row.more, {
    "Component file": component,
    "Component SHA-256": offset(handler.component_sha256),
    "Dead-letter topics": handler.dead_letter_topics.join(", ") || "none",
    ...Object.fromEntries([...handler.brokers.map(brokerFact), ...handler.filter.map(rule), ...totals.slice(5)]),
  });
}

// ---- The notices

/** Adds a notice. A warning or error replaces the earlier one with the same level, message, handler, topic and partition. */
function addNotice(notice) {
  const { notices, noticesSeen: seen } = model;
  const id = `${notice.time_ms} ${notice.id}`; // After a reconnect, the server sends its notices again.
  if (seen.has(id)) return;
  seen.add(id);
  const { level, message, fields: { handler, topic, partition } } = notice;
  const about = level === "INFO" ? id : JSON.stringify([level, message, handler, topic, partition]);
  notices.delete(about);
  notices.set(about, notice);
  if (notices.size > NOTICES_LIMIT) notices.delete(notices.keys().next().value);
  if (seen.size > 4 * NOTICES_LIMIT) seen.delete(seen.values().next().value);
}

function renderNotices() {
  setText($("notices-note"), model.notices.size ? "Newest first." : "None yet.");
  reconcile($("notice-rows"), [...model.notices].reverse(), ([about]) => about, createNotice, updateNotice);
}

function createNotice([, { level, message }]) {
  const row = { at: h("time"), times: muted(), fields: paragraph("fields"), remedy: paragraph("muted") };
  const title = h("p", {}, h("strong", {}, message), " ", row.times);
  const severity = badge();
  setBadge(severity, level, { ERROR: "problem", WARN: "warning" }[level]);
  row.element = h("li", {}, row.at, h("span", {}, severity), h("div", {}, title, row.fields, row.remedy));
  return row;
}

function updateNotice(row, [, { id, time_ms: ms, times, fields: { remedy, ...fields } }]) {
  if (row.id === id && row.ms === ms) return; // a selection in it stays
  Object.assign(row, { id, ms });
  const named = Object.entries(fields).map(([name, value]) => h("span", {}, muted(name), ` ${value}`));
  row.fields.replaceChildren(...named);
  setMarked(row.remedy, todo(remedy));
  const date = new Date(ms);
  attr(row.at, "datetime", date.toISOString());
  setText(row.at, date.toLocaleString("sv"));
  setOptional(row.times, times > 1 && `${count(times)} times`);
}

// ---- Rates and lag of the last 10 minutes

const CHARTS = [
  { title: "Settled events per second", format: rate, series: { settled: "settled" } },
  { title: "Lag in offsets", format: count, series: { lag_unsettled: "not settled", lag_committed: "not committed" } },
  { title: "Failures per second", format: rate, series: { retries: "retries", dead_letters: "dead letters" } },
];

function totalOf(items, name) {
  const values = items.map((item) => item[name]).filter(known);
  return values.length ? sum(values) : null;
}

function record(status, at) {
  const { history } = model;
  const handlers = status.handlers.map(({ handler, rates, partitions }) => {
    const [lag_unsettled, lag_committed] = ["lag_unsettled", "lag_committed"].map((lag) => totalOf(partitions, lag));
    return { handler, ...rates, lag_unsettled, lag_committed };
  });
  history.push({ at, handlers });
  while (history[0].at < at - HISTORY_MS) history.shift();
}

function createChart(chart) {
  const labels = Object.values(chart.series);
  const text = (x, anchor, content) => s("text", { x, y: "97%", "text-anchor": anchor }, content);
  chart.grid = [s("line", { x2: "100%" }), s("line", { x2: "100%" })];
  chart.top = s("text");
  chart.paths = labels.map((_, index) => s("path", `line line-${index}`));
  chart.values = labels.map(() => h("span"));
  chart.svg = s("svg", { class: "chart", role: "img" }, ...chart.grid, ...chart.paths, chart.top,
    text(0, "start", "10 min ago"), text("100%", "end", "now"));
  const legend = labels.map((label, index) => h("li", {}, h("span", `key key-${index}`), label, chart.values[index]));
  const caption = h("figcaption", {}, chart.title);
  $("charts").append(h("figure", {}, caption, h("ul", "series", ...legend), chart.svg));
}

function renderHistory(status) {
  const select = $("history-handler");
  setOptions(select, ["all", ...status.handlers.map(({ handler }) => handler)]);
  const chosen = ({ handler }) => select.selectedIndex < 1 || handler === select.value;
  for (const chart of CHARTS) {
    drawChart(chart, Object.keys(chart.series).map((name) => model.history.map(({ at, handlers }) =>
      ({ at, value: totalOf(handlers.filter(chosen), name) }))));
  }
}

function drawChart(chart, series) {
  const { clientWidth: width, clientHeight: height } = chart.svg;
  const [top, bottom] = [16, height - 20];
  const largest = Math.max(...series.flat().map(({ value }) => value));
  let scale = 1;
  for (let step = 0; scale < largest; step += 1) scale *= [2, 2.5, 2][step % 3];
  const y = (value) => (bottom - (value / scale) * (bottom - top)).toFixed(1);
  chart.grid.forEach((line, index) => ["y1", "y2"].forEach((name) => attr(line, name, y(index * scale))));
  attr(chart.top, "y", top - 3);
  setText(chart.top, compact.format(scale));
  const texts = Object.values(chart.series).map((label, index) => {
    const points = series[index];
    let path = "";
    let last = -Infinity;
    for (const { at, value } of points.filter((point) => known(point.value))) {
      const x = width * (1 - (points.at(-1).at - at) / HISTORY_MS);
      path += `${at - last < SILENCE_MS ? "L" : "M"}${x.toFixed(1)} ${y(value)}`;
      last = at;
    }
    attr(chart.paths[index], "d", path);
    const now = chart.format(points.at(-1).value);
    setText(chart.values[index], now);
    return `${label}: ${now} now`;
  });
  attr(chart.svg, "aria-label", `${chart.title}. ${texts.join("; ")}.`);
}

// ---- The whole page

function render() {
  const { status, tokenNeeded } = model;
  renderSummary();
  $("data").hidden = $("limits").hidden = !status || tokenNeeded;
  if (!status || document.hidden) return;
  renderLimits(status);
  renderPartitions(status);
  renderLanes(status);
  reconcile($("handler-cards"), status.handlers, ({ handler }) => handler, createHandler, updateHandler);
  renderNotices();
  renderHistory(status);
}

function receiveStatus(status) {
  const before = model.status;
  const now = Date.now();
  if (before && (before.pid !== status.pid || status.uptime_ms < before.uptime_ms)) {
    model.restart = { at: now, from: before.pid };
    model.lanes = null;
  }
  Object.assign(model, { status, receivedAt: now, lostAt: null, lostBecause: "", tokenNeeded: false });
  prepare(status);
  record(status, now);
  render();
  if (!before) pollLanes();
}

// ---- The connection

function request(path, signal) {
  const headers = model.token ? { authorization: `Bearer ${model.token}` } : {};
  return fetch(path, { headers, signal });
}

async function refusal(response) {
  const { error, hint } = await response.json().catch(() => ({}));
  return error ? ended(capital(joined([error, hint], ": "))) : `The server answered with status ${response.status}.`;
}

/** Calls `receive` with each server-sent event of a response. */
async function readEvents(response, receive) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const field = (name) => Array.from(event.matchAll(RegExp(`^${name}: ?(.*)`, "gm")), ([, text]) => text).join("\n");
      receive(field("event"), field("data"));
    }
  }
}

async function stream() {
  const abort = new AbortController();
  let heardAt = Date.now();
  const watch = setInterval(() => Date.now() - heardAt > SILENCE_MS && abort.abort(), 1000);
  try {
    const response = await request("/v1/stream", abort.signal);
    if (response.status === 401) return requireToken(model.token ? "The token is wrong." : "");
    if (!response.ok) return (model.lostBecause = await refusal(response));
    await readEvents(response, (event, data) => {
      heardAt = Date.now();
      const use = { status: receiveStatus, notice: addNotice }[event];
      queueMicrotask(() => use?.(JSON.parse(data))); // An exception in this page must not close the connection.
    });
  } catch {
    // The connection is lost, which the page shows.
  } finally {
    clearInterval(watch);
    abort.abort();
  }
}

function requireToken(message) {
  Object.assign(model, { tokenNeeded: true, token: "" });
  setMarked($("token-error"), message);
  render();
  $("token").focus();
}

async function connect() {
  for (;;) {
    await stream();
    if (model.tokenNeeded) {
      await new Promise((resolve) => (model.resume = resolve));
    } else {
      model.lostAt ??= Date.now();
      await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
    }
  }
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  const sendable = /^[\x21-\x7e]+$/.test(token);
  setMarked($("token-error"), sendable ? "" : "A token consists of visible ASCII characters.");
  if (!sendable) return;
  $("token").value = "";
  Object.assign(model, { token, tokenNeeded: false });
  model.resume();
});
$("partitions-all").addEventListener("click", () => {
  model.allPartitions = !model.allPartitions;
  render();
});
$("lanes-handler").addEventListener("change", ({ target }) => (target.touched = true));
for (const id of ["lanes-handler", "lanes-by"]) $(id).addEventListener("change", pollLanes);
$("history-handler").addEventListener("change", render);
document.addEventListener("visibilitychange", render);
addEventListener("resize", render);

for (const part of PARTS) {
  $("legend").append(h("li", {}, s("svg", { "aria-hidden": "true" }, partRect(part, "100%")), part[1]));
}
$("lane-columns").append(...LANE_COLUMNS.map((label) => h("th", { role: "columnheader", scope: "col" }, label)));
CHARTS.forEach(createChart);
setInterval(pollLanes, 2000);
setInterval(() => model.lostAt !== null && renderSummary(), 1000);
connect();
