// Receives webhooks of presignd and verifies them with the Standard Webhooks library.
//
//     npm install standardwebhooks
//     WEBHOOK_SECRET=whsec_… node receiver.mjs 8000
//
// Prints one line for each event that it sees for the first time.

import { createServer } from "node:http";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const webhook = new Webhook(process.env.WEBHOOK_SECRET);

// Delivery is at least once: the same webhook-id may come again. A real receiver keeps the ids in its database, in the
// transaction that does what the event asks for.
const seen = new Set();

async function receive(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  // The bytes as they came: parsed and written again, they would have another signature.
  const body = Buffer.concat(chunks).toString("utf8");
  try {
    webhook.verify(body, request.headers);
  } catch (error) {
    if (error instanceof WebhookVerificationError) return 400;
    throw error;
  }
  const eventId = request.headers["webhook-id"];
  if (!seen.has(eventId)) {
    seen.add(eventId);
    const event = JSON.parse(body);
    console.log(event.type, event.data.upload_id ?? event.data.id, eventId);
  }
  // Only now, because a 2xx is the end of it. Slow work belongs into a queue: presignd waits 15 seconds.
  return 204;
}

const server = createServer((request, response) => {
  receive(request).then(
    (status) => response.writeHead(status).end(),
    () => response.writeHead(500).end(),
  );
});
server.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("listening on", server.address().port));
