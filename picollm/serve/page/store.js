// Conversations, in this browser only. One is {id, title, system, messages}; a message is {role, content}, and of
// the assistant perhaps parts, finish, and base: what the base model said at the same place.

const store = {
  conversations: [],
  settings: {},

  load() {
    const read = (key, otherwise) => {
      try {
        return JSON.parse(localStorage.getItem(key)) ?? otherwise;
      } catch {
        return otherwise;
      }
    };
    this.conversations = read("picollm.conversations", []).filter(isConversation);
    this.settings = read("picollm.settings", {});
    if (!this.conversations.length) this.create();
  },

  save() {
    try {
      localStorage.setItem("picollm.conversations", JSON.stringify(this.conversations));
      localStorage.setItem("picollm.settings", JSON.stringify(this.settings));
    } catch {
      say("This browser has no room left: export conversations and delete some.", true);
    }
  },

  create() {
    const made = { id: crypto.randomUUID?.() ?? String(Math.random()), title: "", system: "", messages: [] };
    this.conversations.unshift(made);
    return made;
  },

  remove(id) {
    this.conversations = this.conversations.filter(one => one.id !== id);
    if (!this.conversations.length) this.create();
  },

  exported() {
    return JSON.stringify({ picollm: 1, conversations: this.conversations }, null, 1);
  },

  // Adds what an export holds, or one conversation as data sets have it; returns how many.
  add(text) {
    const found = JSON.parse(text);
    const list = Array.isArray(found) ? found : found.conversations ?? [found];
    const good = list.filter(isConversation).map(one => {
      const messages = one.messages.filter(message => message.role !== "system").map(fromRow);
      const system = one.messages.find(message => message.role === "system")?.content ?? one.system ?? "";
      return { id: crypto.randomUUID?.() ?? String(Math.random()), title: String(one.title ?? ""), system, messages };
    });
    for (const one of good) one.title ||= titleOf(one);
    this.conversations.unshift(...good);
    return good.length;
  },
};

function isConversation(one) {
  const says = message =>
    ["system", "user", "assistant"].includes(message?.role) &&
    (typeof message.content === "string" || Array.isArray(message.content));
  return Boolean(one && Array.isArray(one.messages) && one.messages.every(says));
}

function fromRow({ role, content, parts, finish, base }) {
  if (Array.isArray(content)) [parts, content] = [content, textOf(content)];
  return { role, content, ...(parts && { parts }), ...(finish && { finish }), ...(base && { base }) };
}

function textOf(parts) {
  return parts.filter(part => part.type === "text").map(part => part.text).join("");
}

function titleOf(conversation) {
  return (conversation.messages[0]?.content ?? "").trim().split("\n")[0].slice(0, 60);
}
