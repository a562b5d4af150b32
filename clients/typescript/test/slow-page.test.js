// One large upload from the page by a slow line, while something happens on the other side: TEST_URL's service has URLs
// that run out in the middle, or it is killed and started again.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { launch, limitUploads, newPage } from "./browser.js";
import { baseUrl, bytesOf, newClient, sha256, token } from "./service.js";

const SIZE = 40_000_000;

test("a large upload arrives all the same", async (context) => {
  const browser = await launch();
  const folder = await mkdtemp(join(tmpdir(), "presignd-"));
  context.after(async () => {
    await browser.close();
    await rm(folder, { recursive: true });
  });
  const path = join(folder, "slow.bin");
  await writeFile(path, bytesOf(SIZE));
  const { page } = await newPage(browser);
  await page.goto(`${baseUrl}/#token=${token}`);
  await limitUploads(page, SIZE / 10);
  await page.setInputFiles("#files", [path]);
  await page.locator('#transfer-list .item[data-state="done"]').waitFor({ timeout: 180_000 });
  const client = newClient();
  const { uploads } = await client.listUploads();
  assert.deepEqual(uploads.map(({ state, method }) => [state, method]), [["confirmed", "multipart"]]);
  if (process.env.TEST_LIFE) {
    const life = Date.parse(uploads[0].expires_at) - Date.parse(uploads[0].created_at);
    assert.ok(life > 1000 * Number(process.env.TEST_LIFE), "the URLs have run out, and the upload was renewed");
  }
  const response = await client.download(uploads[0].id);
  assert.equal(sha256(await response.arrayBuffer()), sha256(bytesOf(SIZE)));
});
