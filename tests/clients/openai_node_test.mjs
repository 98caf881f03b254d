// The stock OpenAI JavaScript client, unmodified. openai_node_test.py starts the server
// and runs this with its address and the folder of node_modules.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [address, packages] = process.argv.slice(2);
const require = createRequire(`${packages}/`);
const OpenAI = require("openai").default;
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "unused" });
const messages = [{ role: "user", content: "Tell me the capital of Mexico." }];

const models = await client.models.list();
assert.equal(models.data.length, 1);

const whole = await client.chat.completions.create({ model: "default", messages });
assert.match(whole.choices[0].message.content, /Mexico City/);
assert.equal(whole.choices[0].finish_reason, "stop");

let text = "";
let usage;
for await (const chunk of await client.chat.completions.create({
  model: "default", messages, stream: true, stream_options: { include_usage: true },
})) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, whole.choices[0].message.content);
assert.equal(usage.completion_tokens, whole.usage.completion_tokens);

// Ids behind events, for those who resume streams, disturb nobody.
let withIds = "";
for await (const chunk of await client.chat.completions.create(
  { model: "default", messages, stream: true },
  { headers: { "x-stream-resumable": "1" } })) {
  withIds += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(withIds, text);

const tools = [{
  type: "function",
  function: {
    name: "light", description: "Control the lights.",
    parameters: {
      type: "object",
      properties: { room: { type: "string" }, state: { type: "string", enum: ["on", "off"] } },
      required: ["room", "state"],
    },
  },
}];
const runner = client.chat.completions.stream({
  model: "default", messages: [{ role: "user", content: "Light off in the cellar." }], tools,
});
const called = await runner.finalChatCompletion();
assert.equal(called.choices[0].finish_reason, "tool_calls");
const call = called.choices[0].message.tool_calls[0];
assert.ok(call.id);
assert.equal(call.function.name, "light");
assert.deepEqual(JSON.parse(call.function.arguments), { room: "cellar", state: "off" });

await assert.rejects(
  client.chat.completions.create({ model: "default", messages: [] }),
  (error) => error instanceof OpenAI.BadRequestError && error.status === 400);

console.log("openai-node: ok");
