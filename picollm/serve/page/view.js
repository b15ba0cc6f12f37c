// What is on the screen, drawn from the state.

const $ = id => document.getElementById(id);

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function drawList() {
  $("list").replaceChildren(...store.conversations.map(one => {
    const title = one.title || "New conversation";
    const open = el("button", { class: "open", "aria-current": one === state.current ? "true" : null,
      onclick: () => choose(one) }, title);
    const remove = el("button", { "aria-label": `Delete ${title}`, onclick: () => discard(one) }, "\u00d7");
    return el("li", {}, open, remove);
  }));
}

// The parts of a reply as elements. A call stands inside its sentence: while Markdown is read, a character that no
// text is allowed to have holds its place.
const CALL = "\uE000";

function words(parts) {
  const calls = [];
  const text = parts.map((part, index) => {
    if (part.type === "text") return part.text.replaceAll(CALL, "\uFFFD");
    if (part.type !== "python") return "";
    const answer = parts[index + 1]?.type === "python_output" ? ` = ${parts[index + 1].text}` : "";
    calls.push(el("span", { class: "call", title: "calculator" }, `${part.text}${answer}`));
    return CALL;
  });
  const fragment = markdown(text.join(""));
  const walker = document.createTreeWalker(fragment, NodeFilter.SHOW_TEXT);
  const holders = [];
  while (walker.nextNode()) if (walker.currentNode.data.includes(CALL)) holders.push(walker.currentNode);
  for (const node of holders) {
    const [first, ...rest] = node.data.split(CALL);
    node.replaceWith(first, ...rest.flatMap(piece => [calls.shift(), piece]));
  }
  return fragment;
}

function bubble(reply, name) {
  const parts = reply.parts ?? [{ type: "text", text: reply.content }];
  const node = el("div", { class: "bubble" }, words(parts));
  if (name) node.prepend(el("div", { class: "model" }, name));
  if (reply.writing) node.classList.add("writing");
  else if (!parts.some(part => part.text)) node.append(el("span", { class: "note" }, "(an empty reply)"));
  if (reply.finish === "length") node.append(el("p", { class: "note" }, "(cut at the longest reply)"));
  if (reply.finish === "stopped") node.append(el("p", { class: "note" }, "(stopped)"));
  return node;
}

function turn(message, index, isLast) {
  const node = el("article", { class: `turn ${message.role}`, "data-index": index });
  node.append(el("div", { class: "who" }, message.role === "user" ? "You" : state.model ?? "assistant"));
  if (message.role === "user") {
    node.append(el("div", { class: "bubble" }, message.content));
    return node;
  }
  if (message.base) {
    node.append(el("div", { class: "pair" }, bubble(message.base, state.base), bubble(message, state.model)));
  } else node.append(bubble(message));
  if (isLast && !state.abort) {
    const again = el("button", { onclick: regenerate }, "Regenerate");
    node.append(el("div", { class: "actions" }, again, ...copyButton(message.content)));
  }
  return node;
}

function welcome() {
  const both = state.base ? ' "base | SFT" asks the base model the same.' : "";
  return el("p", { class: "note welcome" }, `"tokens" shows what the model sees.${both}`);
}

function draw() {
  const { messages } = state.current;
  const nodes = messages.map((message, index) => turn(message, index, index === messages.length - 1));
  $("log").replaceChildren(...(nodes.length ? nodes : [welcome()]));
  $("log").scrollTop = $("log").scrollHeight;
  drawList();
  if ($("show-tokens").checked && !state.abort) drawTokens();
}

// Redraws the reply that is being written, and nothing else.
function drawLast() {
  const log = $("log");
  const follow = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  const { messages } = state.current;
  log.lastElementChild?.replaceWith(turn(messages.at(-1), messages.length - 1, true));
  if (follow) log.scrollTop = log.scrollHeight;
}

async function drawTokens() {
  const sent = history(state.current);
  if (!sent.length) return;
  try {
    const rendered = await api.render(sent);
    const rows = tokenRows(rendered);
    const turns = [...$("log").querySelectorAll(".turn:not(.system)")];
    $("log").querySelectorAll(".tokens, .legend, .turn.system").forEach(node => node.remove());
    const shift = sent[0].role === "system" ? 1 : 0;
    if (shift) {
      $("log").prepend(el("article", { class: "turn system" }, el("div", { class: "who" }, "System"), rows[0]));
    }
    $("log").prepend(legend(rendered));
    turns.forEach(node => {
      const at = places.get(state.current.messages[Number(node.dataset.index)]);
      if (at !== undefined && rows[at]) node.insertBefore(rows[at], node.querySelector(".actions"));
    });
  } catch (error) {
    say(error.message, true);
  }
}
