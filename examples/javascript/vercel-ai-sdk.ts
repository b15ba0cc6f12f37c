// Two turns with a picoLLM server through the Vercel AI SDK: npm install && npx tsx vercel-ai-sdk.ts [URL] [MODEL]
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText, type ModelMessage } from "ai";

const [url = "http://127.0.0.1:8008", model = "sft"] = process.argv.slice(2);
const picollm = createOpenAICompatible({
  name: "picollm",
  baseURL: `${url}/v1`,
  apiKey: process.env.PICOLLM_API_KEY,
  includeUsage: true,
});

const messages: ModelMessage[] = [];
for (const question of ["What is 12 + 30?", "And twice that?"]) {
  messages.push({ role: "user", content: question });
  console.log(`> ${question}`);
  const reply = streamText({
    model: picollm(model),
    messages,
    temperature: 0,
    maxOutputTokens: 64,
    onError: ({ error }) => {
      throw error;
    },
  });
  for await (const text of reply.textStream) process.stdout.write(text);
  const { inputTokens, outputTokens } = await reply.usage;
  console.log(`\n  (${inputTokens} tokens read, ${outputTokens} written, ended by ${await reply.finishReason})`);
  messages.push({ role: "assistant", content: await reply.text });
}
