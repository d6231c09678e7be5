// The blind rating page. The server says what is shown next; nothing here knows who wrote a meme.

const ONE = [
  { name: "funny", words: "Is it funny?", answers: [["yes", "Yes"], ["no", "No"]] },
  { name: "fits", words: "Do the words fit the picture?", answers: [["yes", "Yes"], ["no", "No"]] },
  { name: "person", words: "Who wrote the words?", answers: [["yes", "A person"], ["no", "A program"]] },
];
const TWO = [
  { name: "funny", words: "Which one is funnier?", answers: [["first", "A"], ["same", "Same"], ["second", "B"]] },
  { name: "fits", words: "Which words fit the picture better?", answers: [["first", "A"], ["same", "Same"], ["second", "B"]] },
];

const at = (id) => document.getElementById(id);
let memes = []; // as they are shown

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

async function ask(method, body) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  const answer = await fetch("/api/rate", { method, headers, body: body && JSON.stringify(body) }).catch(() => {
    throw new Error("The bot cannot be reached. Is it still running?");
  });
  const value = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(value.error ?? `The bot answered with an error (${answer.status}).`);
  return value;
}

// ---------------------------------------------------------------- what is shown

function show(task) {
  memes = task.memes;
  const left = memes.length > 0;
  at("progress").textContent = `${task.done} of ${task.all} rated`;
  at("task").hidden = !left;
  at("finished").hidden = left;
  at("back").disabled = at("again").disabled = task.done === 0;
  at("shown").replaceChildren(...memes.map((meme, i) => make("figure", {},
    make("img", { src: meme.url, alt: meme.alt }), ...(memes.length === 2 ? [make("figcaption", {}, "AB"[i])] : []))));
  at("shown").classList.toggle("pair", memes.length === 2);
  at("questions").replaceChildren(...asked().map(question));
  const key = (name) => make("kbd", {}, name);
  at("keys").replaceChildren("Keys: ", ...asked()[0].answers.flatMap((_, i) => [key(i + 1), " "]),
    "answer the next question, ", key("Enter"), " goes on, ", key("Backspace"), " goes back.");
  at("announcer").textContent = left ? `Meme ${task.done + 1} of ${task.all}` : "All memes are rated.";
  mark();
  if (left) at("shown").focus({ preventScroll: true });
  scrollTo(0, 0);
}

const asked = () => (memes.length === 2 ? TWO : ONE);

function question({ name, words, answers }) {
  const choices = answers.map(([value, label]) =>
    make("label", { class: "button" }, make("input", { type: "radio", name, value, required: "" }), label));
  return make("fieldset", { "data-question": name }, make("legend", {}, words), make("div", { class: "choices" }, ...choices));
}

const given = () => Object.fromEntries(new FormData(at("task")));
const open = () => asked().find(({ name }) => !(name in given()));

function mark() {
  for (const set of document.querySelectorAll("[data-question]")) {
    set.classList.toggle("next", set.dataset.question === open()?.name);
  }
}

// ---------------------------------------------------------------- what raters do

let busy = false;

async function tell(method, body) {
  if (busy) return; // a key that is held down answers once
  busy = true;
  try {
    show(await ask(method, body));
    at("problem").hidden = true;
  } catch (error) {
    at("problem").textContent = error.message;
    at("problem").hidden = false;
  } finally {
    busy = false;
  }
}

const next = (answers) => tell("POST", { memes: memes.map(({ id }) => id), answers });
const back = () => tell("DELETE");

at("task").addEventListener("submit", (event) => {
  event.preventDefault();
  next(given());
});
at("task").addEventListener("change", mark);
at("pass").addEventListener("click", () => next({}));
at("back").addEventListener("click", back);
at("again").addEventListener("click", back);

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const missing = open();
  if (event.key === "Backspace" && !at("back").disabled) {
    event.preventDefault();
    back();
  } else if (at("task").hidden) {
    return;
  } else if (event.key === "Enter" && event.target.tagName !== "BUTTON") {
    event.preventDefault();
    at("task").requestSubmit();
  } else if (missing && missing.answers[event.key - 1]) {
    const [value] = missing.answers[event.key - 1];
    at("task").querySelector(`[name="${missing.name}"][value="${value}"]`).checked = true;
    mark();
  }
});

tell("GET");
