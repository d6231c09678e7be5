// The chat page. The log below is the only state: a meme's element knows its meme, and the server knows the rest.

const REACTIONS = ["😂", "👍", "❤️", "🔥", "💩", "👎"];
const UNREACHABLE = "The bot cannot be reached. Is it still running?";
const UNREADABLE = "This file cannot be read: is it a folder, or was it moved?";
const LISTED = 30; // the most memes that the server lists

const log = document.getElementById("log");
const empty = document.getElementById("empty");
const text = document.getElementById("text");
const memes = new Map(); // id → {meme, node}
const gone = new Set(); // ids of memes that are not shown any more: an answer that was on its way may still bring one

// ---------------------------------------------------------------- small things

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

async function api(method, path, body) {
  const json = body !== undefined && !(body instanceof FormData);
  let answer;
  try {
    answer = await fetch(path, {
      method,
      body: json ? JSON.stringify(body) : body,
      headers: json ? { "Content-Type": "application/json" } : {},
    });
  } catch {
    throw new Error(UNREACHABLE);
  }
  if (answer.ok) return answer;
  const [, meme] = /\/memes\/([^/]+)/.exec(path) ?? [];
  if (meme && [404, 410].includes(answer.status)) check(meme);
  const problem = await answer.json().catch(() => ({}));
  throw new Error(problem.error ?? `The bot answered with an error (${answer.status}).`);
}

const plain = (emoji) => emoji.replace(/\uFE0F/g, ""); // the server counts ❤ and ❤️ as one
const announce = (sentence) => { document.getElementById("announcer").textContent = sentence; };

// ---------------------------------------------------------------- the log

let following = true; // the newest is kept in view, unless the reader has scrolled up
let lastY = 0;
let lastHeight = 0;

function follow() {
  if (!following) return;
  log.lastElementChild?.scrollIntoView({ block: "start" }); // the end of the page, or the top of a tall card
  remember();
}

function remember() {
  lastY = scrollY;
  lastHeight = document.documentElement.scrollHeight;
}

addEventListener("scroll", () => {
  const height = document.documentElement.scrollHeight;
  // A page that became shorter scrolls up by itself, and may have grown again before anybody hears of it.
  if (scrollY < lastY && height === lastHeight) following = false;
  if (innerHeight + scrollY > height - 80) following = true;
  remember();
}, { passive: true });
log.addEventListener("load", ({ target }) => { if (target.closest(".frame")) follow(); }, true);

function append(node) {
  empty.hidden = true;
  node.classList.add("new");
  log.append(node);
  follow();
  return node;
}

function say(sentence) {
  following = true;
  append(make("li", { class: "said" }, sentence));
}

function note(sentence, problem = true, place) {
  announce(sentence);
  const node = make("li", { class: problem ? "note problem" : "note" }, sentence);
  if (place) place.replaceWith(node);
  else append(node);
}

// ---------------------------------------------------------------- a meme

function show(meme, place) {
  if (gone.has(meme.id)) return place?.remove();
  const known = memes.get(meme.id);
  if (known) {
    place?.remove();
    return vote(known, meme);
  }
  const node = card(meme);
  memes.set(meme.id, node.entry);
  if (place) place.replaceWith(node);
  else append(node);
  empty.hidden = true;
}

function remove(id) {
  gone.add(id);
  memes.get(id)?.node.remove();
  memes.delete(id);
  empty.hidden = log.childElementCount > 0;
}

async function check(id) {
  const { status } = await fetch(`/memes/${id}`, { method: "HEAD", cache: "no-store" }).catch(() => ({}));
  // A page may stay open for longer than pictures are kept; what was said of them can be read all the same.
  if (status === 410 && memes.has(id)) note("The picture of this meme is not kept any more.", false, memes.get(id).node);
  if (status === 404 || status === 410) remove(id);
}

function card(meme) {
  const entry = { meme: { reactions: {}, mine: [], ...meme } };
  const reactions = make("div", { class: "row reactions", role: "group", "aria-label": "Reactions" });
  const actions = make("div", { class: "row actions" },
    make("button", { type: "button", onclick: () => another(meme, {}) }, "Another one"),
    make("a", { class: "button", href: `${meme.url}?download=1`, download: "" }, "Download"),
    ...(meme.candidates.length ? [why(meme)] : [])); // the model wrote none of somebody's own words
  entry.node = make("li", { class: "meme", id: `meme-${meme.id}`, "aria-label": "Meme" },
    make("a", { class: "frame", href: meme.url, target: "_blank" },
      make("img", { src: meme.url, alt: meme.alt, onerror: () => check(meme.id) }),
      make("span", { class: "unseen" }, "Full size")),
    reactions, actions, ...candidates(meme));
  entry.node.entry = entry;
  vote(entry, entry.meme);
  return entry.node;
}

function vote(entry, { reactions, mine }) {
  if (!reactions) return; // the answer to a post knows of no votes
  Object.assign(entry.meme, { reactions, mine });
  const bar = entry.node.querySelector(".reactions");
  const shown = [...REACTIONS, ...Object.keys(reactions).filter((e) => !REACTIONS.map(plain).includes(plain(e)))];
  shown.forEach((emoji) => {
    const pressed = mine.some((each) => plain(each) === plain(emoji));
    const count = reactions[plain(emoji)] ?? reactions[emoji] ?? 0;
    bar.querySelector(`[data-emoji="${emoji}"]`) ?? bar.append(pill(entry, emoji));
    const button = bar.querySelector(`[data-emoji="${emoji}"]`);
    button.hidden = !count && !REACTIONS.includes(emoji);
    button.setAttribute("aria-pressed", pressed);
    button.setAttribute("aria-label", `${emoji} ${count}`);
    button.lastChild.textContent = count || "";
  });
}

function pill(entry, emoji) {
  const button = make("button", { type: "button", "data-emoji": emoji, onclick() {
    turn = turn.then(toggle);
  } }, emoji, make("span"));
  const path = `/api/memes/${entry.meme.id}/reactions/${encodeURIComponent(emoji)}`;
  let turn = Promise.resolve(); // a second press waits for the first, so that it undoes it
  const toggle = async () => {
    const method = button.getAttribute("aria-pressed") === "true" ? "DELETE" : "PUT";
    try {
      vote(entry, await (await api(method, path)).json());
    } catch (error) {
      note(error.message);
    }
  };
  return button;
}

function candidates(meme) {
  if (meme.candidates.length < 2) return [];
  const drawn = JSON.stringify(meme.boxes);
  const choice = (candidate, place) => {
    const current = JSON.stringify(candidate.boxes) === drawn;
    return make("li", {}, make("button", {
      type: "button",
      "aria-current": current && "true",
      onclick: () => { if (!current) another(meme, { candidate: place }); },
    }, ...candidate.boxes.filter(Boolean).map((box) => make("span", { dir: "auto" }, box))));
  };
  return [make("details", { class: "candidates" },
    make("summary", {}, `Pick of the ${meme.candidates.length} best`),
    make("ul", {}, ...meme.candidates.map(choice)))];
}

function why(meme) {
  let figure;
  const button = make("button", { type: "button", "aria-expanded": "false", async onclick() {
    if (!figure) {
      button.setAttribute("aria-busy", "true");
      try {
        const picture = await (await api("GET", `/memes/${meme.id}/attention`)).blob();
        const alt = `Where each of the words looked: ${meme.boxes.join(" / ")}`;
        const image = make("img", { src: URL.createObjectURL(picture), alt });
        await image.decode();
        const large = make("a", { href: `/memes/${meme.id}/attention`, target: "_blank" }, image);
        figure = make("figure", { class: "attention", hidden: true }, make("div", {}, large),
          make("figcaption", {}, "Each word over the part of the picture that it looked at."));
        button.closest(".meme").append(figure);
      } catch (error) {
        note(error.message);
        return;
      } finally {
        button.removeAttribute("aria-busy");
      }
    }
    figure.hidden = !figure.hidden;
    button.setAttribute("aria-expanded", !figure.hidden);
    figure.scrollIntoView({ block: "nearest" });
  } }, "Why these words?");
  return button;
}

// ---------------------------------------------------------------- asking for memes, one after the other

let line = Promise.resolve();
let waiting = 0;
let heard = []; // memes that the feed told of while one of ours, maybe the same, was being made

// `preview`: the address of what the meme will look like; `words`: what was typed; `name`: the file's
function request(preview, ask, words, name) {
  const place = making(preview);
  waiting += 1;
  line = line.then(async () => {
    if (place.isConnected) await fulfil(place, ask, words, name); // else everything was forgotten while it waited
    URL.revokeObjectURL(preview);
    waiting -= 1;
    heard.splice(0).forEach((meme) => show(meme));
  });
}

async function fulfil(place, ask, words, name) {
  announce("Making a meme…");
  place.classList.remove("waiting");
  place.querySelector("p").textContent = "Thinking of something…";
  try {
    const meme = await ask();
    show(meme, place);
    openLatest(meme.id);
    follow();
    announce(`Here is the meme. ${meme.alt}`);
  } catch (error) {
    note(name ? `${name}: ${error.message}` : error.message, true, place);
    giveBack(words);
  }
}

function making(url) {
  following = true;
  const picture = make("img", { alt: "", src: url });
  picture.addEventListener("error", () => picture.remove()); // not every picture is one that a browser can show
  return append(make("li", { class: "making waiting", "aria-busy": "true" },
    make("div", { class: "frame" }, picture, make("div", { class: "spinner" })),
    make("p", {}, "Waiting for its turn…")));
}

function openLatest(id) {
  const held = document.activeElement;
  const closing = held.closest(".candidates ul")?.closest(".meme");
  for (const details of log.querySelectorAll(".candidates")) details.open = details.closest(".meme").id === `meme-${id}`;
  if (!closing || closing.id === `meme-${id}`) return;
  // What is closed cannot keep the focus: the same control of the new card takes it, or else the one that closed it.
  const place = [...closing.querySelectorAll(".candidates button")].indexOf(held);
  const same = memes.get(id)?.node.querySelectorAll(".candidates button")[place];
  (same ?? closing.querySelector("summary")).focus({ preventScroll: true });
}

function post(file, words) {
  request(URL.createObjectURL(file), async () => {
    await tryToRead(file);
    const form = new FormData();
    form.set("image", file, file.name || "picture");
    if (words) form.set("text", words);
    return (await api("POST", "/api/memes", form)).json();
  }, words, file.name);
}

async function tryToRead(file) { // fetch fails in the same way for a file as for a bot that is down
  const reader = file.stream().getReader(); // not a slice: that of a file that is gone may be empty
  try {
    await reader.read();
  } catch {
    throw new Error(UNREADABLE);
  } finally {
    reader.cancel().catch(() => {});
  }
}

function again(meme, path, wish, words) {
  request(meme.url, async () => (await api("POST", `/api/memes/${meme.id}/${path}`, wish)).json(), words);
}

const another = (meme, wish, words) => again(meme, "redo", wish, words);

function giveBack(words = "") { // for another try, unless something else is being typed
  text.value ||= words;
}

// ---------------------------------------------------------------- what people do

function take(files) {
  if (!files.length) return;
  const words = text.value.trim();
  text.value = "";
  if (words) say(words);
  for (const file of files) post(file, words);
}

function send() {
  const words = text.value.trim();
  if (!words) return document.getElementById("pick").click();
  if (/^\/forget$/i.test(words)) return forget();
  const command = /^\/meme(?=\s|$)/i.test(words);
  if (!command && /^\/\w+/.test(words)) return note("This page knows two commands: /meme and /forget.", false);
  if (!command && !words.includes("|")) {
    return note("Now add a picture, and these words go along with it. To write on the last one: /meme top | bottom", false);
  }
  const last = [...log.querySelectorAll(".meme")].at(-1)?.entry.meme;
  if (!last) return note("There is no picture to write on yet. Add one, and your words go on it.", false);
  text.value = "";
  say(words);
  const own = words.replace(/^\/meme(?=\s|$)/i, "").trim();
  if (own) again(last, "text", { boxes: own.split("|").map((box) => box.trim()) }, words);
  else another(last, {}, words);
}

async function forget() {
  if (!confirm("Remove your memes and your votes? Nothing is learnt from them any more then.")) return;
  text.value = "";
  for (const place of log.querySelectorAll(".making.waiting")) place.remove(); // never posted, then
  try {
    const { memes: removed, votes } = await (await api("DELETE", "/api/me")).json();
    for (const node of log.querySelectorAll(".said, .note")) node.remove();
    await refresh();
    note(`Forgotten: ${count(removed, "meme")} and ${count(votes, "vote")} of yours.`, false);
  } catch (error) {
    note(error.message);
    giveBack("/forget");
  }
}

const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;

document.getElementById("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});

for (const button of document.querySelectorAll("[data-opens]")) {
  button.addEventListener("click", () => document.getElementById(button.dataset.opens).click());
}

for (const id of ["pick", "camera"]) {
  document.getElementById(id).addEventListener("change", ({ target }) => {
    take([...target.files]);
    target.value = ""; // so that the same picture can be picked again
  });
}

addEventListener("paste", (event) => {
  const files = [...event.clipboardData?.files ?? []];
  if (!files.length || carriesWords(event.clipboardData, files)) return;
  event.preventDefault();
  take(files);
});

// Office programs put a rendering beside what was copied, file managers the names beside the files.
function carriesWords(clipboard, files) {
  const lines = clipboard.getData("text/plain").split(/[\r\n]+/).map((written) => written.trim());
  return lines.some((written) => written && !files.some(({ name }) => written.endsWith(name)));
}

const veil = document.getElementById("veil");
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  veil.hidden = false;
});
addEventListener("dragleave", (event) => { if (!event.relatedTarget) veil.hidden = true; });
addEventListener("drop", (event) => {
  veil.hidden = true;
  if (!carriesFiles(event)) return;
  event.preventDefault();
  take([...event.dataTransfer.files]);
});

// ---------------------------------------------------------------- every window live

async function refresh() {
  const shown = [...memes.keys()]; // what comes while the list is on its way may not be in it
  const { memes: latest } = await (await api("GET", "/api/memes")).json();
  const listed = new Set(latest.map(({ id }) => id));
  // A full list says nothing of memes that are older than all of it.
  const first = latest.length < LISTED ? 0 : shown.findIndex((id) => listed.has(id));
  if (first >= 0) shown.slice(first).filter((id) => !listed.has(id)).forEach(remove);
  latest.forEach(hear);
  empty.hidden = log.childElementCount > 0;
}

function hear(meme) {
  if (waiting && !memes.has(meme.id)) heard.push(meme);
  else show(meme);
}

function connect() {
  // Browsers allow a site six connections, so one window listens and tells the others of the same browser.
  const channel = new BroadcastChannel("quipbot-feed");
  const tell = (news) => { channel.postMessage(news); apply(news); };
  const apply = ({ kind, meme, online }) => {
    if (kind === "connection") {
      const connection = document.getElementById("connection");
      connection.hidden = online;
      connection.dataset.live = online;
      if (online) refresh().catch(() => {}); // what was missed meanwhile; the feed itself tells when it breaks
    } else if (kind === "gone") {
      remove(meme.id);
    } else if (kind === "meme" || [...memes.keys(), ...heard.map(({ id }) => id)].includes(meme.id)) {
      hear(meme); // votes on a meme from before the list stay unsaid
    }
  };
  channel.addEventListener("message", ({ data }) => apply(data));

  const listen = () => {
    const source = new EventSource("/api/feed");
    source.addEventListener("open", () => tell({ kind: "connection", online: true }));
    source.addEventListener("error", () => {
      tell({ kind: "connection", online: false });
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
    });
    for (const kind of ["meme", "reactions", "gone"]) {
      source.addEventListener(kind, ({ data }) => tell({ kind, meme: JSON.parse(data) }));
    }
  };
  const lead = () => new Promise(listen); // never settles: the lock is kept as long as the window lives
  if (navigator.locks) navigator.locks.request("quipbot-feed", lead);
  else listen(); // plain http from another machine has no locks
}

addEventListener("beforeunload", (event) => { if (waiting) event.preventDefault(); }); // the queue is this page's only

addEventListener("visibilitychange", () => { if (!document.hidden) refresh().catch(() => {}); });

refresh().catch((error) => note(error.message)).finally(() => {
  openLatest([...memes.keys()].at(-1));
  follow();
  connect();
});
