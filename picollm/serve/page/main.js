// What happens when somebody does something.

const state = { current: null, model: null, base: null, abort: null };
const NUMBERS = ["temperature", "top_p", "top_k", "max_tokens", "seed"];

function given() {
  const found = {};
  for (const name of NUMBERS) if ($(name).value !== "") found[name] = Number($(name).value);
  return found;
}

// Where each message stands in what is sent.
const places = new WeakMap();

// The messages as they are sent. An exchange with an empty reply can be no part of a conversation, and one whose
// reply is still missing is the question.
function history(conversation) {
  const sent = conversation.system ? [{ role: "system", content: conversation.system }] : [];
  const put = message => {
    places.set(message, sent.length);
    const parts = message.parts?.some(part => part.type !== "text") ? { parts: message.parts } : {};
    sent.push({ role: message.role, content: message.content, ...parts });
  };
  const { messages } = conversation;
  for (let index = 0; index < messages.length; index += 2) {
    const [asked, reply] = messages.slice(index, index + 2);
    places.delete(asked);
    if (!reply || reply.writing) put(asked);
    else if (reply.content || reply.parts?.length) (put(asked), put(reply));
  }
  return sent;
}

async function write(model, messages, reply, signal, parameters) {
  const delta = parts => {
    extend(reply.parts, parts);
    reply.content = textOf(reply.parts);
    drawLast();
  };
  try {
    reply.finish = await api.chat({ model, messages, ...parameters }, signal, delta);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    reply.finish = "stopped";
  } finally {
    delete reply.writing;
  }
}

async function answer(parameters = given()) {
  const conversation = state.current;
  const fresh = () => ({ content: "", parts: [], writing: true });
  const reply = { role: "assistant", ...fresh() };
  if ($("compare").checked && state.base) reply.base = fresh();
  conversation.messages.push(reply);
  const messages = history(conversation);
  state.abort = new AbortController();
  setBusy(true);
  draw();
  const { signal } = state.abort;
  try {
    const both = [write(state.model, messages, reply, signal, parameters)];
    if (reply.base) both.push(write(state.base, messages, reply.base, signal, parameters));
    await Promise.all(both);
    say(reply.finish === "stopped" ? "Stopped." : "");
  } catch (error) {
    state.abort.abort();
    if (!reply.content) conversation.messages.pop();
    failed(error);
  } finally {
    state.abort = null;
    setBusy(false);
    store.save();
    draw();
  }
}

function failed(error) {
  say(error.message, true);
  $("status").append(" ", el("button", { type: "button", onclick: retry }, "Retry"));
}

function retry() {
  say("");
  if (state.current.messages.at(-1)?.role === "user") answer();
  else connect();
}

function send() {
  const text = $("input").value;
  if (!text.trim() || state.abort) return;
  const { messages } = state.current;
  if (messages.at(-1)?.role === "user") messages.pop(); // one that was never answered
  messages.push({ role: "user", content: text });
  state.current.title ||= titleOf(state.current);
  $("input").value = "";
  fit();
  store.save();
  say("");
  answer();
}

function regenerate() {
  if (state.abort || state.current.messages.at(-1)?.role !== "assistant") return;
  state.current.messages.pop();
  const parameters = given();
  delete parameters.seed; // another reply is wanted, not the same one again
  answer({ ...parameters, temperature: parameters.temperature || 0.8 });
}

function setBusy(busy) {
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  $("log").setAttribute("aria-busy", String(busy));
}

function choose(conversation) {
  state.abort?.abort();
  state.current = conversation;
  $("system").value = conversation.system;
  showMenu(false);
  say("");
  draw();
  $("input").focus();
}

function discard(conversation) {
  if (!confirm(`Delete "${conversation.title || "New conversation"}"?`)) return;
  store.remove(conversation.id);
  store.save();
  choose(state.current === conversation ? store.conversations[0] : state.current);
}

function start() {
  const [newest] = store.conversations;
  choose(newest.messages.length ? store.create() : newest);
}

async function connect() {
  try {
    const models = await api.models();
    [state.model, state.base] = models.map(model => model.id);
    $("title").textContent = state.model;
    $("compare-label").hidden = !state.base;
    say("");
    draw();
  } catch (error) {
    failed(error);
    if (error.message.includes("API key")) showSettings(true);
  }
}

function download() {
  const url = URL.createObjectURL(new Blob([store.exported()], { type: "application/json" }));
  el("a", { href: url, download: "picollm-conversations.json" }).click();
  URL.revokeObjectURL(url);
}

async function upload() {
  try {
    const count = store.add(await $("file").files[0].text());
    store.save();
    choose(store.conversations[0]);
    say(`${count} imported.`);
  } catch {
    say("This file holds no conversations.", true);
  }
  $("file").value = "";
}

function showMenu(shown) {
  $("side").classList.toggle("shown", shown);
  $("menu").setAttribute("aria-expanded", String(shown));
}

function showSettings(shown) {
  $("settings").hidden = !shown;
  $("settings-button").setAttribute("aria-expanded", String(shown));
}

function fit() {
  $("input").rows = Math.min(10, $("input").value.split("\n").length);
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

function listen() {
  $("composer").addEventListener("submit", event => (event.preventDefault(), send()));
  $("settings").addEventListener("submit", event => event.preventDefault());
  $("input").addEventListener("input", fit);
  $("input").addEventListener("keydown", event => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) (event.preventDefault(), send());
  });
  document.addEventListener("keydown", event => {
    if (event.key === "Escape") (state.abort?.abort(), showMenu(false));
  });
  $("stop").addEventListener("click", () => (state.abort?.abort(), $("input").focus()));
  $("new").addEventListener("click", start);
  $("export").addEventListener("click", download);
  $("import").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", upload);
  $("menu").addEventListener("click", () => showMenu(!$("side").classList.contains("shown")));
  $("log").addEventListener("click", () => showMenu(false));
  $("settings-button").addEventListener("click", () => showSettings($("settings").hidden));
  $("show-tokens").addEventListener("change", draw);
  $("system").addEventListener("input", () => ((state.current.system = $("system").value), store.save()));
  $("key").addEventListener("change", connect);
  $("theme").addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    store.settings.theme = (store.settings.theme ?? dark) === "dark" ? "light" : "dark";
    setTheme(store.settings.theme);
    store.save();
  });
  for (const name of [...NUMBERS, "key"]) {
    if (store.settings[name] !== undefined) $(name).value = store.settings[name];
    $(name).addEventListener("change", () => ((store.settings[name] = $(name).value), store.save()));
  }
}

store.load();
setTheme(store.settings.theme);
listen();
choose(store.conversations[0]);
connect();
