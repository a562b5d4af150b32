// Large files, which the policy has sent in parts of 5 MiB.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  MemoryStore,
  after,
  answering,
  baseUrl,
  bytesOf,
  fileOf,
  interrupted,
  newClient,
  problem,
  requestsOf,
  sha256,
} from "./service.js";

const MEBIBYTE = 1024 * 1024;
const client = newClient();

async function assertStored(upload, size) {
  assert.equal(upload.state, "confirmed");
  const response = await client.download(upload.id);
  assert.equal(sha256(await response.arrayBuffer()), sha256(bytesOf(size)));
}

const count = (requests, request) => requests.filter((sent) => sent === request).length;

for (const [size, parts] of [
  [5 * MEBIBYTE + 1, 2],
  [10 * MEBIBYTE, 2],
  [42 * MEBIBYTE + 7, 9],
]) {
  test(`${size} bytes travel in ${parts} parts`, async () => {
    const seen = [];
    let upload;
    const requests = await requestsOf(async () => {
      upload = await client.upload(fileOf("large.bin", size), { onProgress: (progress) => seen.push(progress) });
    });
    assert.equal(upload.method, "multipart");
    assert.equal(count(requests, "PUT store"), parts);
    const signed = count(requests, "POST /api/v1/uploads/{id}/parts");
    assert.equal(signed, Math.ceil(parts / 4), "one call for as many as travel at the same time");
    assert.deepEqual(seen.at(-1), { loaded: size, total: size });
    assert.ok(seen.every(({ loaded }, index) => loaded >= (seen[index - 1]?.loaded ?? 0)), "it never falls");
    await assertStored(upload, size);
  });
}

test("completing is waited for though its answer is cut off", async () => {
  let asked = 0;
  const slow = (url) => {
    if (!url.endsWith("/complete") || asked > 12) return undefined;
    asked += 1;
    return asked === 1 ? problem(504, "request_timeout") : problem(409, "parts_gone");
  };
  await answering(slow, async () => {
    const upload = await client.upload(fileOf("large.bin", 6 * MEBIBYTE));
    await assertStored(upload, 6 * MEBIBYTE);
  });
  assert.equal(asked, 13);
});

test("parts are bound to their digests where the policy requires it", async () => {
  const size = 17 * MEBIBYTE;
  let issued;
  const onIssued = (given) => (issued = given);
  const upload = await client.upload(fileOf("large.bin", size), { policy: "checked", onIssued });
  assert.equal(issued.upload.part_checksums, true);
  await assertStored(upload, size);
});

test("as many parts travel at the same time as are asked for", async () => {
  for (const concurrency of [1, 3]) {
    let most = 0;
    let now = 0;
    const original = globalThis.fetch;
    globalThis.fetch = async (url, options) => {
      if (options?.method !== "PUT") return original(url, options);
      most = Math.max(most, (now += 1));
      return original(url, options).finally(() => (now -= 1));
    };
    try {
      await client.upload(fileOf("large.bin", 30 * MEBIBYTE), { concurrency });
    } finally {
      globalThis.fetch = original;
    }
    assert.equal(most, concurrency);
  }
});

test("only the missing parts are sent when it goes on", async () => {
  const size = 30 * MEBIBYTE;
  const store = new MemoryStore();
  const stop = new AbortController();
  let issued;
  const stopped = client.upload(fileOf("large.bin", size), {
    store,
    concurrency: 1,
    signal: stop.signal,
    onIssued: (upload) => (issued = upload),
    onProgress: ({ loaded }) => loaded > 11 * MEBIBYTE && stop.abort(),
  });
  await assert.rejects(stopped, { name: "AbortError" });

  const seen = [];
  let upload;
  const requests = await requestsOf(async () => {
    upload = await client.upload(fileOf("large.bin", size), { store, onProgress: ({ loaded }) => seen.push(loaded) });
  });
  assert.equal(upload.id, issued.id);
  assert.deepEqual(requests.slice(0, 2), ["POST /api/v1/uploads/{id}/renew", "GET /api/v1/uploads/{id}/parts"]);
  assert.equal(count(requests, "PUT store"), 4);
  assert.equal(seen[0], 10 * MEBIBYTE, "what has arrived counts from the beginning");
  await assertStored(upload, size);
});

test("URLs of parts that run out in the middle are replaced", async () => {
  const size = 30 * MEBIBYTE;
  let issued;
  let upload;
  let sent = 0;
  const requests = await requestsOf(async () => {
    const original = globalThis.fetch;
    globalThis.fetch = async (url, options) => {
      // From the third part on, all that was signed at the beginning has run out.
      if (options?.method === "PUT" && (sent += 1) === 3) await after(issued.upload.expires_at);
      return original(url, options);
    };
    upload = await client.upload(fileOf("large.bin", size), {
      policy: "brief",
      concurrency: 1,
      onIssued: (given) => (issued = given),
    });
  });
  assert.ok(count(requests, "POST /api/v1/uploads/{id}/renew") >= 1, requests.join("\n"));
  assert.ok(upload.expires_at > issued.expires_at);
  await assertStored(upload, size);
});

test("after a change of network it goes on, with a fresh scope", async () => {
  for (const size of [1000, 30 * MEBIBYTE]) {
    const original = globalThis.fetch;
    let issued;
    let upload;
    const requests = await requestsOf(async () => {
      const inner = globalThis.fetch;
      globalThis.fetch = (url, options) => {
        // Issued for a client that is at another address by the time it sends: the service believes this header here.
        const first = url === `${baseUrl}/api/v1/uploads`;
        const headers = { ...options?.headers, ...(first && { "x-forwarded-for": "127.0.0.11" }) };
        return inner(url, { ...options, headers });
      };
      upload = await client.upload(fileOf("a.bin", size), { onIssued: (given) => (issued = given) });
    });
    assert.equal(globalThis.fetch, original);
    assert.equal(issued.client_network, "127.0.0.11/32");
    assert.equal(upload.client_network, "127.0.0.1/32");
    assert.equal(count(requests, "POST /api/v1/uploads/{id}/renew"), 1, requests.join("\n"));
    await assertStored(upload, size);
  }
});

test("an upload that was given up meanwhile fails, and leaves nothing behind", async () => {
  const store = new MemoryStore();
  const onIssued = ({ id }) => client.abort(id);
  const file = fileOf("large.bin", 10 * MEBIBYTE);
  await assert.rejects(client.upload(file, { store, onIssued }), { code: "invalid_state", status: 409 });
  assert.equal(store.items.size, 0);
});

test("an upload whose parts the store has lost is begun anew", async () => {
  const size = 10 * MEBIBYTE;
  const store = new MemoryStore();
  const file = fileOf("large.bin", size);
  const lost = await interrupted(client, file, { store });
  const isLost = (url) => url.includes(lost.id) && (url.endsWith("/parts") || url.endsWith("/complete"));
  const told = [];
  const seen = [];
  let upload;
  let requests;
  await answering(
    (url) => (isLost(url) ? problem(409, "parts_gone") : undefined),
    async () => {
      requests = await requestsOf(async () => {
        upload = await client.upload(file, {
          store,
          onIssued: ({ id }) => told.push(id),
          onProgress: (progress) => seen.push(progress),
        });
      });
    },
  );
  const uploads = "POST /api/v1/uploads";
  const first = [`${uploads}/{id}/renew`, "GET /api/v1/uploads/{id}/parts", `${uploads}/{id}/complete`];
  assert.deepEqual(requests.slice(0, 3), first);
  assert.equal(count(requests, uploads), 1);
  assert.deepEqual(told, [lost.id, upload.id]);
  assert.notEqual(upload.id, lost.id);
  assert.deepEqual(seen.at(-1), { loaded: size, total: size });
  assert.equal(store.items.size, 0);
  await assertStored(upload, size);
});

test("parts that are gone for a moment are waited for, and those that are for good end the upload", async () => {
  const size = 10 * MEBIBYTE;
  const store = new MemoryStore();
  let left;
  const gone = (url) => (url.endsWith("/complete") && left-- > 0 ? problem(409, "parts_gone") : undefined);
  await answering(gone, async () => {
    left = 2;
    await assertStored(await client.upload(fileOf("large.bin", size), { store }), size);
    left = Infinity;
    const ended = client.upload(fileOf("large.bin", size), { store });
    await assert.rejects(ended, { name: "PresigndError", code: "parts_gone", status: 409 });
  });
  assert.equal(store.items.size, 0);
});
