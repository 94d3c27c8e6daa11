// Checks deliveries as a receiver of the gateway's own webhooks does in Node.js: one JSON object with `headers` and `body` for
// each line of stdin, and for each what it makes of it on stdout.
//
// Usage: node verify.mjs SECRET
import { createHmac, timingSafeEqual } from "node:crypto";
import { createInterface } from "node:readline";

const secret = process.argv[2];

// The secret is text, and what is signed is the body as it came.
function gatewayAccepts(headers, body) {
  const wanted = createHmac("sha256", secret).update(body, "utf8").digest();
  const given = Buffer.from(headers["x-hub-signature-256"].slice("sha256=".length), "hex");
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { headers, body } = JSON.parse(line);
  console.log(JSON.stringify({ gateway: gatewayAccepts(headers, body) }));
}
