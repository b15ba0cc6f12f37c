// Two turns with a picoLLM server through OpenAI's own client: npm install && node openai.mjs [URL] [MODEL]
import OpenAI from "openai";

const [url = "http://127.0.0.1:8008", model = "sft"] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: process.env.PICOLLM_API_KEY ?? "none" });

const messages = [];
for (const question of ["What is 12 + 30?", "And twice that?"]) {
  messages.push({ role: "user", content: question });
  console.log(`> ${question}`);
  const stream = client.chat.completions.stream({ model, messages, temperature: 0, max_tokens: 64 });
  stream.on("content", text => process.stdout.write(text));
  const { choices, usage } = await stream.finalChatCompletion();
  console.log(`\n  (ended by ${choices[0].finish_reason}${usage ? `, ${usage.completion_tokens} tokens` : ""})`);
  messages.push({ role: "assistant", content: choices[0].message.content });
}
