// undici, which is also what Node's own fetch is: ADDRESS, TLS ADDRESS, CA FILE.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline/promises";
import { Client, fetch, upgrade } from "undici";

const [plain, tls, caFile] = process.argv.slice(2);

const first = await fetch(`${plain}/first?x=%2F`);
assert.equal((await first.json()).target, "/first?x=%2F");
console.log("ready");
await createInterface({ input: process.stdin })[Symbol.asyncIterator]().next();

// Refused once, and replayed with its body.
const replayed = await fetch(`${plain}/order`, { method: "POST", body: "order" });
assert.equal(replayed.status, 200);
assert.equal((await replayed.json()).body, "order");
const pieces = new ReadableStream({
  start(controller) {
    for (let number = 0; number < 100; number++) {
      controller.enqueue(new TextEncoder().encode(`${number} `));
    }
    controller.close();
  },
});
const streamed = await fetch(`${plain}/order`, { method: "PUT", body: pieces, duplex: "half" });
assert.equal((await streamed.json()).body.split(" ").length, 101);
console.log("fetch");

const pipelined = new Client(plain, { pipelining: 10 });
const answers = await Promise.all(
  Array.from({ length: 100 }, async (_, number) => {
    const { statusCode, body } = await pipelined.request({ path: `/${number}`, method: "GET" });
    assert.equal(statusCode, 200);
    return (await body.json()).target;
  }),
);
assert.deepEqual(answers, Array.from({ length: 100 }, (_, number) => `/${number}`));
await pipelined.close();
console.log("pipelining");

await assert.rejects(upgrade(`${plain}/no`, { protocol: "websocket" }));
console.log("upgrade refused");

const both = new Client(tls, { allowH2: true, connect: { ca: readFileSync(caFile) } });
const { statusCode, body } = await both.request({ path: "/http2", method: "POST", body: "x" });
assert.equal(statusCode, 200);
assert.equal((await body.json()).body, "x");
await both.close();
console.log("http2");
process.exit(0);
