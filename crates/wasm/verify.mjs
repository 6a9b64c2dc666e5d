// Verifies bundles with the WebAssembly build: node verify.mjs VERIFIER.wasm JUDGEMENT BUNDLE...
// JUDGEMENT is JSON, such as {"name": "integrity", "now": 1790000000}. One line of JSON per bundle.
import { readFile } from "node:fs/promises";

const [module, judgement, ...bundles] = process.argv.slice(2);
const { instance } = await WebAssembly.instantiate(await readFile(module), {});
const { input, verify, output, memory } = instance.exports;

for (const path of bundles) {
  const question = new TextEncoder().encode(judgement);
  const bundle = await readFile(path);
  const place = input(4 + question.length + bundle.length);
  new DataView(memory.buffer).setUint32(place, question.length, true);
  const room = new Uint8Array(memory.buffer, place + 4);
  room.set(question);
  room.set(bundle, question.length);
  const length = verify();
  console.log(new TextDecoder().decode(new Uint8Array(memory.buffer, output(), length)));
}
