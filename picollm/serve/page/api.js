// The server's API, with fetch and nothing else.

const api = {
  headers() {
    const key = document.getElementById("key").value.trim();
    return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  },

  async request(path, options = {}) {
    let response;
    try {
      response = await fetch(path, { headers: this.headers(), ...options });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("The server does not answer. Is it still running?");
    }
    if (!response.ok) {
      const told = await response.json().catch(() => null);
      const wait = response.headers.get("Retry-After");
      throw new Error((told?.error?.message ?? `Error ${response.status}`) + (wait ? ` (in ${wait} s)` : ""));
    }
    return response;
  },

  async models() {
    return (await (await this.request("/v1/models")).json()).data;
  },

  async render(messages) {
    return (await this.request("/render", { method: "POST", body: JSON.stringify({ messages }) })).json();
  },

  // Calls onDelta(parts) with whatever comes, in order; returns why the reply ended.
  async chat(body, signal, onDelta) {
    const options = { method: "POST", signal, body: JSON.stringify({ ...body, stream: true }) };
    const reader = (await this.request("/v1/chat/completions", options)).body.getReader();
    const decoder = new TextDecoder();
    let text = "";
    let finish = null;
    for (;;) {
      const { done, value } = await reader.read().catch(error => {
        if (error.name === "AbortError") throw error;
        throw new Error("The connection broke off.");
      });
      if (done) break;
      text += decoder.decode(value, { stream: true });
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data === "[DONE]") return finish;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        const [choice] = chunk.choices;
        const { content, parts } = choice.delta;
        if (parts) onDelta(parts);
        else if (content) onDelta([{ type: "text", text: content }]);
        finish = choice.finish_reason ?? finish;
      }
    }
    throw new Error("The connection broke off.");
  },
};

// Adds parts to a reply; neighboring text is one part.
function extend(parts, more) {
  for (const part of more) {
    const last = parts.at(-1);
    if (part.type === "text" && last?.type === "text") last.text += part.text;
    else parts.push({ ...part });
  }
}
