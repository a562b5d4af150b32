// The client in a browser, on the page that the service serves.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { launch, limitUploads, newPage } from "./browser.js";
import { baseUrl, bytesOf, newClient, required, sha256, token } from "./service.js";

const method = required("TEST_METHOD");

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

/** Uploads `size` bytes in the page, and gives what the page saw. */
function uploadIn(page, size, { stopAt = Infinity, ...options } = {}) {
  const bytes = Buffer.from(bytesOf(size)).toString("base64");
  const run = async ({ bytes, token, stopAt, options }) => {
    const { PresigndClient } = await import("./web/client.js");
    const client = new PresigndClient({ baseUrl: location.origin, token, retryDelay: 20 });
    const content = Uint8Array.from(atob(bytes), (character) => character.charCodeAt(0));
    const file = new File([content], "a.bin", { lastModified: 1 });
    const progress = [];
    const stop = new AbortController();
    const onProgress = (seen) => {
      progress.push(seen);
      if (seen.loaded >= stopAt) stop.abort();
    };
    try {
      const upload = await client.upload(file, { ...options, store: sessionStorage, signal: stop.signal, onProgress });
      return { upload, progress };
    } catch (error) {
      return { error: error.name, code: error.code, message: error.message, progress };
    }
  };
  return page.evaluate(run, { bytes, token, stopAt, options: { method, ...options } });
}

async function assertStored(upload, size) {
  assert.equal(upload?.state, "confirmed");
  const response = await newClient().download(upload.id);
  assert.equal(sha256(await response.arrayBuffer()), sha256(bytesOf(size)));
}

// An empty file has no parts, so nobody can ask for them.
for (const size of [...(method === "multipart" ? [21_000_000] : [0]), 1, 5 * 1024 * 1024, 5 * 1024 * 1024 + 1]) {
  test(`${size} bytes arrive from Chromium`, async () => {
    const { context, page } = await newPage(browser);
    await page.goto(baseUrl);
    const { upload, progress, ...failure } = await uploadIn(page, size);
    assert.deepEqual(failure, {});
    await assertStored(upload, size);
    assert.deepEqual(progress.at(-1), { loaded: size, total: size });
    await context.close();
  });
}

test("progress is told while bytes are on their way, and what is stopped goes on", async () => {
  const { context, page } = await newPage(browser);
  await page.goto(baseUrl);
  const size = 3_000_000;
  await limitUploads(page, 1_500_000);
  const stopped = await uploadIn(page, size, { stopAt: 500_000 });
  assert.equal(stopped.error, "AbortError", JSON.stringify(stopped));
  assert.ok(stopped.progress.some(({ loaded }) => loaded > 0 && loaded < size), JSON.stringify(stopped.progress));
  const { uploads } = await newClient().listUploads({ limit: 1 });
  await limitUploads(page);
  const { upload } = await uploadIn(page, size);
  assert.equal(upload.id, uploads[0].id);
  await assertStored(upload, size);
  await context.close();
});

test("a network that goes and comes back is waited for", async () => {
  const { context, page } = await newPage(browser);
  await page.goto(baseUrl);
  await limitUploads(page, 1_500_000);
  const size = 3_000_000;
  const uploading = uploadIn(page, size);
  await page.waitForFunction(() => Object.keys(sessionStorage).some((key) => key.startsWith("presignd:")));
  await context.setOffline(true);
  await page.waitForFunction(() => !navigator.onLine);
  await limitUploads(page);
  await context.setOffline(false);
  const { upload, ...failure } = await uploading;
  assert.deepEqual(Object.keys(failure), ["progress"], JSON.stringify(failure));
  await assertStored(upload, size);
  await context.close();
});
