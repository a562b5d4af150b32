// A file that no link leads to, because a link cannot send the token: the page of TEST_URL fetches it and saves it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { launch, newPage } from "./browser.js";
import { baseUrl, bytesOf, fileOf, newClient, sha256, token } from "./service.js";

const SIZE = 20_000_000;

test("a file that needs the token is saved under its name", async (context) => {
  const browser = await launch();
  context.after(() => browser.close());
  await newClient().upload(fileOf("отчёт.bin", SIZE));
  const { page, errors } = await newPage(browser);
  await page.goto(`${baseUrl}/#token=${token}`);
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Download отчёт.bin" }).click(),
  ]);
  assert.equal(download.suggestedFilename(), "отчёт.bin");
  assert.equal(sha256(await readFile(await download.path())), sha256(bytesOf(SIZE)));
  assert.deepEqual(errors, []);
});
