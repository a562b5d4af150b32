// Files that travel as a whole, by the method in TEST_METHOD.

import assert from "node:assert/strict";
import { openAsBlob } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { PresigndError, needsToken } from "../dist/index.js";
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
  required,
  sha256,
  token,
} from "./service.js";

const method = required("TEST_METHOD");
const client = newClient();

async function assertStored(upload, bytes) {
  const response = await client.download(upload.id);
  assert.equal(sha256(await response.arrayBuffer()), sha256(bytes));
}

for (const size of [0, 1, 300_000, 5 * 1024 * 1024 + 1]) {
  test(`${size} bytes arrive`, async () => {
    const file = fileOf("lorem ipsum.bin", size);
    const seen = [];
    const upload = await client.upload(file, { method, onProgress: (progress) => seen.push(progress) });
    assert.equal(upload.state, "confirmed");
    assert.equal(upload.method, method);
    assert.equal(upload.file_size, size);
    await assertStored(upload, bytesOf(size));
    assert.deepEqual(seen.at(-1), { loaded: size, total: size });
    assert.ok(seen.every(({ loaded }, index) => loaded >= (seen[index - 1]?.loaded ?? 0)), JSON.stringify(seen));
    const before = seen.filter(({ loaded }) => loaded > 0 && loaded < size).length;
    assert.ok(size < 1_000_000 || before > 5, `progress is told on the way, not only at the end: ${before} times`);
  });
}

test("names of every script are kept, and so are types and metadata", async () => {
  const names = ["отчёт.txt", "報告書.txt", "보고서.txt", "تقرير.txt", "דוח.txt", "रिपोर्ट.txt", "รายงาน.txt", "έκθεση.txt", "🦀.txt", "über \"x\" 'y'.txt"];
  for (const name of names) {
    const file = new File([name], name, { type: "text/plain" });
    const upload = await client.upload(file, { method, metadata: { case: "42" } });
    assert.equal(upload.original_file_name, name);
    assert.equal(upload.file_type, "text/plain");
    assert.deepEqual(upload.metadata, { case: "42" });
    const response = await client.download(upload.id);
    assert.equal(await response.text(), name);
  }
});

test("a recording's type goes without its codecs where these need a comma", async () => {
  const types = { "video/webm;codecs=vp8,opus": "video/webm", "video/webm;codecs=vp8": "video/webm;codecs=vp8" };
  for (const [type, expected] of Object.entries(types)) {
    const upload = await client.upload(new File(["1"], "a.webm", { type }), { method });
    assert.equal(upload.file_type, expected);
  }
});

test("an answer that was lost costs no second transfer", async () => {
  let lost = 0;
  const losing = async (url, options, send) => {
    if (url.startsWith(baseUrl) || lost > 0) return undefined;
    lost += 1;
    await (await send(url, options)).text();
    throw new TypeError("fetch failed");
  };
  const requests = await requestsOf(() =>
    answering(losing, async () => {
      const upload = await client.upload(fileOf("a.bin", 1000), { method });
      assert.equal(upload.state, "confirmed");
      await assertStored(upload, bytesOf(1000));
    }),
  );
  assert.equal(lost, 1);
  assert.equal(requests.filter((request) => /^(PUT|POST) store$/.test(request)).length, 1, requests.join(", "));
});

test("the callback token confirms when the user's session has ended meanwhile", async () => {
  const ended = async (url, { headers } = {}) =>
    url.endsWith("/complete") && !headers["x-callback-token"] ? problem(401, "token_expired") : undefined;
  await answering(ended, async () => {
    const upload = await client.upload(fileOf("a.bin", 1000), { method });
    assert.equal(upload.state, "confirmed");
  });

  let given = 0;
  const leaving = newClient({
    retries: 1,
    token: async () => {
      if ((given += 1) > 1) throw new Error("signed out");
      return token;
    },
  });
  assert.equal((await leaving.upload(fileOf("a.bin", 1000), { method })).state, "confirmed");
});

test("the same file for another purpose is another upload", async () => {
  const store = new MemoryStore();
  const file = fileOf("a.bin", 1000);
  const first = await interrupted(client, file, { method, store, metadata: { case: "42", by: "x" } });
  const upload = await client.upload(file, { method, store, metadata: { case: "43", by: "x" } });
  assert.notEqual(upload.id, first.id);
  assert.equal(upload.metadata.case, "43");
  const again = await client.upload(file, { method, store, metadata: { by: "x", case: "42" } });
  assert.equal(again.id, first.id);
});

test("it stops also while it waits for a token", async () => {
  const stop = new AbortController();
  const reason = new Error("enough");
  const token = () => {
    queueMicrotask(() => stop.abort(reason));
    return new Promise(() => {});
  };
  const stopped = newClient({ token }).upload(fileOf("a.bin", 1000), { method, signal: stop.signal });
  await assert.rejects(stopped, reason);
});

test("a file on disk is streamed, and one that changed meanwhile is called unreadable", async (context) => {
  const folder = await mkdtemp(join(tmpdir(), "presignd-"));
  context.after(() => rm(folder, { recursive: true }));
  const path = join(folder, "a.bin");
  await writeFile(path, bytesOf(1_000_000));
  const upload = await client.upload(await openAsBlob(path), { method, name: "a.bin" });
  await assertStored(upload, bytesOf(1_000_000));

  const blob = await openAsBlob(path);
  await writeFile(path, bytesOf(999_999));
  await assert.rejects(client.upload(blob, { method, name: "a.bin" }), { name: "PresigndError", code: "file_unreadable" });
});

test("a promised checksum holds", async () => {
  const bytes = bytesOf(1000);
  const digest = async (data) => Buffer.from(await crypto.subtle.digest("SHA-256", data)).toString("base64");
  const upload = await client.upload(new File([bytes], "a.bin"), { method, checksumSha256: await digest(bytes) });
  assert.equal(upload.checksum_sha256, await digest(bytes));
  const other = client.upload(new File([bytes], "a.bin"), { method, checksumSha256: await digest(bytesOf(1000, 2)) });
  await assert.rejects(other, (error) => ["storage_error", "upload_mismatch"].includes(error.code));
});

test("a checksum that the policy requires is computed", async () => {
  const upload = await client.upload(fileOf("a.bin", 1000), { method, policy: "checked" });
  assert.equal(upload.checksum_sha256, Buffer.from(sha256(bytesOf(1000)), "hex").toString("base64"));
  await assertStored(upload, bytesOf(1000));
});

test("an expired URL is replaced on the way", async () => {
  let first;
  let upload;
  const requests = await requestsOf(async () => {
    upload = await client.upload(fileOf("a.bin", 1000), {
      method,
      policy: "brief",
      onIssued: async (issued) => {
        first = issued;
        await after(issued.upload.expires_at);
      },
    });
  });
  assert.equal(upload.state, "confirmed");
  assert.ok(upload.expires_at > first.expires_at, `${first.expires_at} ${upload.expires_at}`);
  const sent = `${first.upload.method} store`;
  const uploads = "POST /api/v1/uploads";
  assert.deepEqual(requests, [uploads, sent, `${uploads}/{id}/renew`, sent, `${uploads}/{id}/complete`]);
  await assertStored(upload, bytesOf(1000));
});

test("an aborted signal stops it, and the same call goes on with the same upload", async () => {
  const store = new MemoryStore();
  const file = fileOf("a.bin", 5_000_000);
  const stop = new AbortController();
  const reason = new Error("enough");
  let first;
  const stopped = client.upload(file, {
    method,
    store,
    signal: stop.signal,
    onIssued: (issued) => (first = issued),
    onProgress: ({ loaded }) => loaded > 0 && stop.abort(reason),
  });
  await assert.rejects(stopped, (error) => error === reason);
  assert.equal((await client.getUpload(first.id)).state, "issued");
  assert.equal(store.items.size, 1);

  const upload = await client.upload(file, { method, store });
  assert.equal(upload.id, first.id);
  assert.equal(upload.state, "confirmed");
  assert.equal(store.items.size, 0);
  await assertStored(upload, bytesOf(5_000_000));
  const other = await client.upload(file, { method, store });
  assert.notEqual(other.id, first.id, "what is confirmed is not resumed");
  for (const garbage of ["", "{", "null", "{}", '{"id":"../policies"}']) {
    store.getItem = () => garbage;
    assert.equal((await client.upload(fileOf("a.bin", 10), { method, store })).state, "confirmed");
  }

  await assert.rejects(client.upload(file, { method, signal: AbortSignal.abort(reason) }), (error) => error === reason);
});

test("a signal that is aborted while the token is awaited stops it before anything is sent", async () => {
  const stop = new AbortController();
  const reason = new Error("enough");
  const waiting = newClient({
    token: async () => {
      stop.abort(reason);
      return token;
    },
  });
  const requests = await requestsOf(() =>
    assert.rejects(waiting.listUploads({ signal: stop.signal }), (error) => error === reason),
  );
  assert.deepEqual(requests, []);
});

test("what was confirmed or given up behind its back is not sent again", async () => {
  const store = new MemoryStore();
  const file = fileOf("a.bin", 1000);
  const given = await interrupted(client, file, { method, store });
  await client.abort(given.id);
  const fresh = await interrupted(client, file, { method, store });
  assert.notEqual(fresh.id, given.id);

  // The bytes arrive, and the page is closed before it hears of it.
  const { items } = store;
  const copy = new Map(items);
  assert.equal((await client.upload(file, { method, store })).id, fresh.id);
  store.items = copy;
  const requests = await requestsOf(async () => {
    assert.equal((await client.upload(file, { method, store })).id, fresh.id);
  });
  assert.deepEqual(requests, ["POST /api/v1/uploads/{id}/renew", "GET /api/v1/uploads/{id}"]);
  assert.equal(store.items.size, 0);
});

test("what was revoked is forgotten, and begun anew where nobody had told", async () => {
  const store = new MemoryStore();
  const file = fileOf("a.bin", 1000);
  const revokedAt = (end) => (url) => (url.endsWith(end) ? problem(410, "revoked") : undefined);
  await answering(revokedAt("/complete"), () =>
    assert.rejects(client.upload(file, { method, store }), { code: "revoked", status: 410 }),
  );
  assert.equal(store.items.size, 0);

  const { id } = await interrupted(client, file, { method, store });
  await answering(revokedAt("/renew"), async () => {
    const upload = await client.upload(file, { method, store });
    assert.notEqual(upload.id, id);
    await assertStored(upload, bytesOf(1000));
  });
  assert.equal(store.items.size, 0);
});

test("what is to be sent with credentials is given up, and not remembered", async () => {
  const store = new MemoryStore();
  const file = fileOf("a.bin", 1000);
  let id;
  const credentialsAt = (end) => async (url, options, send) => {
    if (!url.endsWith(end)) return undefined;
    const response = await send(url, options);
    const grant = await response.json();
    id = grant.id;
    return Response.json({ ...grant, upload: { method: "CREDENTIALS" } }, response);
  };
  const onIssued = () => assert.fail("it is not begun");
  const unsupported = { name: "PresigndError", code: "method_unsupported" };
  await answering(credentialsAt("/uploads"), () =>
    assert.rejects(client.upload(file, { method, store, onIssued }), unsupported),
  );
  assert.equal(store.items.size, 0);
  assert.equal((await client.getUpload(id)).state, "aborted");

  const given = await interrupted(client, file, { method, store });
  await answering(credentialsAt("/renew"), async () => {
    assert.notEqual((await client.upload(file, { method, store })).id, given.id);
  });
  assert.equal(id, given.id);
});

test("a page in the service's place is no answer, and asked for once", async () => {
  const page = () => new Response("<!doctype html>", { headers: { "content-type": "text/html" } });
  const unexpected = { name: "PresigndError", code: "unexpected_answer", status: 200 };
  let requests;
  await answering(page, async () => {
    requests = await requestsOf(async () => {
      await assert.rejects(client.listUploads(), unexpected);
      await assert.rejects(client.upload(fileOf("a.bin", 10), { method }), unexpected);
    });
  });
  assert.deepEqual(requests, ["GET /api/v1/uploads", "POST /api/v1/uploads"]);

  const upload = await client.upload(fileOf("a.bin", 10), { method, policy: "ticketed" });
  const atTickets = (answer) => (url) => (url.startsWith(`${baseUrl}/t/`) ? answer() : undefined);
  await answering(atTickets(page), () => assert.rejects(client.download(upload.id), unexpected));

  let breaks = 1;
  const broken = new ReadableStream({ pull: (controller) => controller.error(new TypeError("terminated")) });
  await answering(
    atTickets(() => (breaks-- > 0 ? new Response(broken) : undefined)),
    () => assertStored(upload, bytesOf(10)),
  );
  assert.ok(breaks < 0, "asked once more");
});

test("what the service refuses is told with code, fields and request id, and not tried again", async () => {
  const cases = [
    [{ policy: "none" }, 422, "invalid_request", "policy"],
    [{ policy: "small" }, 422, "policy_refused", "file_size"],
    [{ name: "a/b" }, 422, "invalid_request", "original_file_name"],
  ];
  for (const [options, status, code, field] of cases) {
    const requests = await requestsOf(() =>
      assert.rejects(client.upload(fileOf("a.bin", 2000), { method, ...options }), (error) => {
        assert.ok(error instanceof PresigndError);
        assert.deepEqual([error.status, error.code, error.fields[0].field], [status, code, field]);
        assert.match(error.requestId, /^[0-9a-f]{32}$/);
        assert.match(error.message, new RegExp(field));
        return true;
      }),
    );
    assert.deepEqual(requests, ["POST /api/v1/uploads"]);
  }
  await assert.rejects(client.download("01890a5d-ac96-774b-bcce-b302099a8057"), { status: 404, code: "not_found" });
  await assert.rejects(client.upload(new Blob(["x"])), TypeError);
});

test("uploads are listed, shown and given up", async () => {
  const issued = [];
  for (let index = 0; index < 3; index++) {
    const stop = new AbortController();
    const onIssued = ({ id }) => {
      issued.push(id);
      stop.abort();
    };
    await client.upload(fileOf("a.bin", 1), { method, signal: stop.signal, onIssued }).catch(() => {});
  }
  await client.abort(issued[0]);
  const page = await client.listUploads({ limit: 2 });
  assert.deepEqual(page.uploads.map(({ id }) => id), [issued[2], issued[1]]);
  const next = await client.listUploads({ limit: 1, cursor: page.next_cursor });
  assert.equal(next.uploads[0].id, issued[0]);
  assert.equal((await client.listUploads({ state: "aborted", limit: 1 })).uploads[0].id, issued[0]);
  await assert.rejects(client.download(issued[1]), { status: 409, code: "upload_not_confirmed" });
});

test("a token that is refused is asked for once more", async () => {
  const asked = [];
  const refreshing = newClient({
    baseUrl: `${baseUrl}/`,
    token: async (refused) => {
      asked.push(refused);
      return refused ? token : "outdated";
    },
  });
  await refreshing.listUploads();
  assert.deepEqual(asked, [false, true]);
  await assert.rejects(newClient({ token: "garbage" }).listUploads(), { status: 401, code: "token_invalid" });
  await assert.rejects(newClient({ token: () => "garbage" }).listUploads(), { status: 401, code: "token_invalid" });
});

test("a file is downloaded under the name that was asked for", async () => {
  const upload = await client.upload(new File(["hello"], "a.txt"), { method });
  const { url } = await client.downloadUrl(upload.id, { fileName: "b.txt", expiresIn: 20 });
  const response = await fetch(url);
  assert.equal(response.headers.get("content-disposition"), 'attachment; filename="b.txt"');
  assert.equal(await response.text(), "hello");
});

for (const policy of ["streamed", "redirected", "ticketed"]) {
  test(`a file is downloaded where the policy has it ${policy}`, async () => {
    const bytes = bytesOf(100_000);
    const upload = await client.upload(fileOf("a.bin", bytes.length), { method, policy });
    const download = await client.downloadUrl(upload.id);
    assert.equal(needsToken(download), policy !== "ticketed");
    const bare = await fetch(download.url); // as whoever follows a link
    await bare.body.cancel();
    assert.equal(bare.status, needsToken(download) ? 401 : 200);
    await assertStored(upload, bytes);
    const response = await client.download(upload.id, { fileName: "b.bin" });
    assert.equal(response.headers.get("content-disposition"), 'attachment; filename="b.bin"');
    await response.body.cancel();
  });
}

test("a token that is refused at the file itself is asked for once more", async () => {
  const upload = await client.upload(fileOf("a.bin", 10), { method, policy: "streamed" });
  const given = [token, "outdated", token];
  const asked = [];
  const refreshing = newClient({
    token: (refused) => {
      asked.push(refused);
      return given.shift();
    },
  });
  const response = await refreshing.download(upload.id);
  assert.equal(sha256(await response.arrayBuffer()), sha256(bytesOf(10)));
  assert.deepEqual(asked, [false, false, true]);

  let first = true;
  const outdated = newClient({
    token: () => {
      const current = first ? token : "outdated";
      first = false;
      return current;
    },
  });
  await assert.rejects(outdated.download(upload.id), { status: 401, code: "token_invalid" });
});

test("a token goes only where the client asks for everything", async () => {
  const upload = await client.upload(fileOf("a.bin", 10), { method, policy: "streamed" });
  const sent = [];
  const original = globalThis.fetch;
  globalThis.fetch = async (url, options) => {
    sent.push(url);
    const response = await original(url, options);
    if (!url.endsWith("/downloads")) return response;
    const download = await response.json();
    return Response.json({ ...download, url: download.url.replace(baseUrl, "http://127.0.0.1:1") }, { status: 201 });
  };
  try {
    const response = await client.download(upload.id);
    assert.equal(sha256(await response.arrayBuffer()), sha256(bytesOf(10)));
  } finally {
    globalThis.fetch = original;
  }
  assert.equal(sent.length, 2);
  assert.ok(sent.every((url) => url.startsWith(`${baseUrl}/`)), `${sent.length} requests`);
});

test("a store that fails stops no upload, and neither does a token that comes late", async () => {
  const failing = () => {
    throw new DOMException("full", "QuotaExceededError");
  };
  const store = { getItem: failing, setItem: failing, removeItem: failing };
  const upload = await client.upload(fileOf("a.bin", 1000), { method, store });
  assert.equal(upload.state, "confirmed");

  let asked = 0;
  const unsteady = () => {
    if (asked++ % 2 === 0) throw new TypeError("Failed to fetch");
    return token;
  };
  const late = await newClient({ token: unsteady }).upload(fileOf("b.bin", 1000), { method });
  assert.equal(late.state, "confirmed");
  const never = () => Promise.reject(new TypeError("Failed to fetch"));
  const refused = newClient({ token: never, retries: 1 }).upload(fileOf("c.bin", 1000), { method });
  await assert.rejects(refused, ({ code, cause }) => code === "network_error" && cause instanceof TypeError);
});
