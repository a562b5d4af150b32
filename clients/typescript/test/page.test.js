// The page, as people use it.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";

import { launch, limitUploads, newPage } from "./browser.js";
import { baseUrl, bytesOf, newClient, sha256, token } from "./service.js";

const MEBIBYTE = 1024 * 1024;

let browser;
let folder;
before(async () => {
  browser = await launch();
  folder = await mkdtemp(join(tmpdir(), "presignd-"));
});
after(async () => {
  await browser?.close();
  await rm(folder, { recursive: true });
});

async function fileOnDisk(name, size) {
  const path = join(folder, name);
  await writeFile(path, bytesOf(size, name.length));
  return path;
}

async function signedIn(options) {
  const opened = await newPage(browser, options);
  await opened.page.goto(`${baseUrl}/#token=${token}`);
  await opened.page.waitForSelector("#drop");
  return opened;
}

/** The row of a file among those on their way. */
function transferOf(page, path) {
  return page.locator("#transfer-list .item").filter({ has: page.getByText(basename(path), { exact: true }) });
}

async function until(page, path, state) {
  const row = transferOf(page, path);
  try {
    await row.and(page.locator(`[data-state="${state}"]`)).waitFor({ timeout: 200_000 });
  } catch (cause) {
    throw new Error(`expected ${state}, is ${await row.getAttribute("data-state")}: ${await row.innerText()}`, { cause });
  }
}

/** Downloads by the first row of that name in the list, and gives the digest of what came. */
async function downloaded(page, name) {
  const row = page.locator("#upload-list .item").filter({ has: page.getByText(name, { exact: true }) }).first();
  const [download] = await Promise.all([
    // In a tab of its own, or in none.
    page.context().waitForEvent("download"),
    row.getByRole("button", { name: `Download ${name}` }).click(),
  ]);
  assert.equal(download.suggestedFilename(), name);
  return sha256(await readFile(await download.path()));
}

/** Uploads a file whose first PUT goes nowhere, and resolves once that is on its way. */
async function held(page, path) {
  let hold;
  const isHeld = new Promise((resolve) => (hold = resolve));
  await page.route("**", async (route) => {
    if (route.request().method() !== "PUT" || !hold) return route.fallback();
    hold();
    hold = undefined;
  });
  await page.setInputFiles("#files", [path]);
  await isHeld;
}

async function latest() {
  const { uploads } = await newClient().listUploads({ limit: 1 });
  return uploads[0];
}

test("several files are chosen, sent, listed and downloaded again", async () => {
  const { context, page, errors } = await signedIn();
  const paths = await Promise.all([
    fileOnDisk("empty.txt", 0),
    fileOnDisk("one.txt", 1),
    fileOnDisk("five.bin", 5 * MEBIBYTE),
    fileOnDisk("more.bin", 5 * MEBIBYTE + 1),
    fileOnDisk("large.bin", 250 * MEBIBYTE),
  ]);
  await page.setInputFiles("#files", paths);
  for (const path of paths) await until(page, path, "done");
  assert.equal(await page.locator("#total").getAttribute("value"), "1");
  assert.match(await page.locator("#total-text").textContent(), /^5 of 5 files/);
  await page.locator("#upload-list .item").nth(4).waitFor();
  for (const path of paths) {
    assert.equal(await downloaded(page, basename(path)), sha256(await readFile(path)), path);
  }
  assert.deepEqual(errors, []);
  await context.close();
});

test("names in any script are sent, shown and saved", async () => {
  const { context, page, errors } = await signedIn();
  const names = ["отчёт", "報告書", "보고서", "تقرير", "דוח", "रिपोर्ट", "รายงาน", "έκθεση", "հաշվետվություն", "ანგარიში"];
  const paths = await Promise.all(names.map((name) => fileOnDisk(`${name}.txt`, 10)));
  await page.setInputFiles("#files", paths);
  for (const path of paths) await until(page, path, "done");
  await page.locator("#upload-list .item").nth(9).waitFor();
  for (const path of paths) {
    assert.equal(await downloaded(page, basename(path)), sha256(await readFile(path)), path);
  }
  assert.deepEqual(errors, []);
  await context.close();
});

test("progress is shown with rate and time left, and a paused upload goes on", async () => {
  const { context, page } = await signedIn();
  await limitUploads(page, MEBIBYTE);
  const path = await fileOnDisk("paused.bin", 4 * MEBIBYTE);
  await page.setInputFiles("#files", [path]);
  const row = transferOf(page, path);
  await row.getByText(/^[\d.,]+ (KiB|MiB) of 4 MiB · .*\/s · .* left$/).waitFor();
  await page.locator("#total-text").getByText(/^0 of 1 file · .* left$/).waitFor();
  assert.ok(Number(await row.locator("progress").getAttribute("value")) > 0);

  await row.getByRole("button", { name: "Pause paused.bin" }).click();
  await until(page, path, "paused");
  const issued = await latest();
  assert.equal(issued.state, "issued");
  await limitUploads(page);
  await row.getByRole("button", { name: "Resume paused.bin" }).click();
  await until(page, path, "done");
  const confirmed = await latest();
  assert.deepEqual([confirmed.id, confirmed.state], [issued.id, "confirmed"]);
  assert.equal(await downloaded(page, "paused.bin"), sha256(await readFile(path)));
  await context.close();
});

test("a pause that is taken back at once does no harm", async () => {
  const { context, page } = await signedIn();
  const path = await fileOnDisk("hurried.bin", 1000);
  await held(page, path);
  await transferOf(page, path).evaluate((row) => {
    window.states = [];
    new MutationObserver(() => window.states.push(row.dataset.state)).observe(row, { attributeFilter: ["data-state"] });
    // Before the run that is to pause can end.
    row.querySelector(".pause").click();
    row.querySelector(".resume").click();
  });
  await until(page, path, "done");
  const states = await page.evaluate(() => window.states);
  assert.ok(!states.includes("failed"), states.join(" "));
  assert.equal(await downloaded(page, "hurried.bin"), sha256(await readFile(path)));
  await context.close();
});

test("a download leaves the page and its uploads alone, whether it brings a file or an error", async () => {
  const { context, page } = await signedIn();
  const [sent, other] = await Promise.all([fileOnDisk("sent.txt", 10), fileOnDisk("held.bin", 1000)]);
  await page.setInputFiles("#files", [sent]);
  await until(page, sent, "done");
  await held(page, other);
  const dialogs = [];
  page.on("dialog", (dialog) => dialogs.push(dialog.type()));

  const isStore = (url) => url.origin !== new URL(baseUrl).origin;
  const refusal = { status: 403, contentType: "application/xml", body: "<Error><Code>AccessDenied</Code></Error>" };
  await context.route(isStore, (route) => route.fulfill(refusal), { times: 1 });
  const [tab] = await Promise.all([
    context.waitForEvent("page"),
    page.getByRole("button", { name: "Download sent.txt" }).first().click(),
  ]);
  await tab.waitForURL(isStore);
  assert.equal(page.url(), `${baseUrl}/`);

  assert.equal(await downloaded(page, "sent.txt"), sha256(await readFile(sent)));
  assert.deepEqual(dialogs, []);
  await until(page, other, "uploading");
  await context.close();
});

test("a scanner's verdict comes by itself, and changes nothing else", async () => {
  const { context, page } = await newPage(browser);
  await page.clock.install();
  await page.clock.pauseAt(Date.now() + 1000);
  const states = ["inspecting", "issued", "confirmed"];
  const uploads = Array.from({ length: 21 }, (_, index) => ({
    id: `01890a5d-ac96-774b-bcce-b302099a80${index + 10}`,
    state: states[index] ?? "expired",
    original_file_name: `${index}.txt`,
    file_size: 1,
    created_at: new Date().toISOString(),
  }));
  const requests = [];
  const refused = (detail) => ({ status: 403, json: { title: "Refused", code: "scope_missing", detail } });
  await page.route("**/api/v1/**", (route) => {
    const { pathname, searchParams } = new URL(route.request().url());
    const request = `${route.request().method()} ${pathname.replace("/api/v1/", "").replace(uploads[0].id, "{id}")}`;
    requests.push(request);
    if (request === "GET uploads/{id}") return route.fulfill({ json: { ...uploads[0], state: "confirmed" } });
    if (request !== "GET uploads") return route.fulfill(refused(request));
    const isFirst = !searchParams.has("cursor");
    const listed = isFirst ? uploads.slice(0, 20) : uploads.slice(20);
    return route.fulfill({ json: { uploads: listed, next_cursor: isFirst ? "more" : null } });
  });
  const named = (name) => page.locator("#upload-list .item").filter({ has: page.getByText(name, { exact: true }) });
  const alert = page.locator("#alert");
  await page.goto(`${baseUrl}/#token=${token}`);
  await named("1.txt").waitFor();

  uploads[3].original_file_name = "reloaded.txt";
  await page.getByRole("button", { name: "Discard 1.txt" }).click();
  await named("reloaded.txt").waitFor();
  assert.match(await alert.textContent(), /DELETE/);

  await page.getByRole("button", { name: "Show more" }).click();
  await named("20.txt").waitFor();
  await page.getByRole("button", { name: "Download 2.txt" }).click();
  await alert.getByText(/downloads/).waitFor();
  assert.equal(requests.filter((request) => request === "GET uploads").length, 3);
  requests.length = 0;
  await page.clock.runFor(3000);
  await named("0.txt").and(page.locator('[data-state="confirmed"]')).waitFor();
  assert.deepEqual(requests, ["GET uploads/{id}"]);
  assert.equal(await page.locator("#upload-list .item").count(), 21);
  assert.match(await alert.textContent(), /downloads/);
  await context.close();
});

test("after a reload in the middle the same file, chosen again, goes on", async () => {
  const { context, page } = await signedIn();
  await limitUploads(page, MEBIBYTE);
  const path = await fileOnDisk("reloaded.bin", 4 * MEBIBYTE);
  await page.setInputFiles("#files", [path]);
  await transferOf(page, path).getByText(/of 4 MiB · .*\/s/).waitFor();
  const issued = await latest();
  await page.reload();
  await page.locator("#unfinished-list").getByText("reloaded.bin").waitFor();
  assert.equal(await page.locator("#transfers").isVisible(), false);

  await limitUploads(page);
  await page.setInputFiles("#files", [path]);
  await until(page, path, "done");
  const confirmed = await latest();
  assert.deepEqual([confirmed.id, confirmed.state], [issued.id, "confirmed"]);
  assert.equal(await page.locator("#unfinished").isVisible(), false);
  assert.equal(await downloaded(page, "reloaded.bin"), sha256(await readFile(path)));
  await context.close();
});

test("of a large file only the missing parts are sent after a reload", async () => {
  const { context, page } = await signedIn();
  await limitUploads(page, 8 * MEBIBYTE);
  const path = await fileOnDisk("parts.bin", 60 * MEBIBYTE);
  await page.setInputFiles("#files", [path]);
  await page.waitForResponse((response) => response.request().method() === "PUT" && response.ok());
  const issued = await latest();
  await page.reload();
  await page.locator("#unfinished-list").getByText("parts.bin").waitFor();
  // What has been over for long is not offered for ever.
  await page.evaluate(() => {
    const [key, value] = Object.entries(localStorage).find(([key]) => key.startsWith("presignd-unfinished:"));
    const old = { ...JSON.parse(value), name: "old.bin", until: new Date(Date.now() - 2 * 86_400_000).toISOString() };
    localStorage.setItem(`${key}-old`, JSON.stringify(old));
  });
  await page.reload();
  await page.locator("#unfinished-list").getByText("parts.bin").waitFor();
  assert.equal(await page.locator("#unfinished-list").getByText("old.bin").count(), 0);
  assert.equal(await page.evaluate(() => Object.keys(localStorage).filter((key) => key.endsWith("-old")).length), 0);

  let sent = 0;
  page.on("request", (request) => (sent += request.method() === "PUT"));
  await limitUploads(page);
  await page.setInputFiles("#files", [path]);
  await until(page, path, "done");
  const confirmed = await latest();
  assert.deepEqual([confirmed.id, confirmed.state, confirmed.method], [issued.id, "confirmed", "multipart"]);
  assert.ok(sent > 0 && sent < 12, `${sent} of 12 parts`);
  assert.equal(await downloaded(page, "parts.bin"), sha256(await readFile(path)));
  await context.close();
});

test("a cancelled upload is given up", async () => {
  const { context, page } = await signedIn();
  await limitUploads(page, MEBIBYTE);
  const path = await fileOnDisk("cancelled.bin", 4 * MEBIBYTE);
  await page.setInputFiles("#files", [path]);
  await transferOf(page, path).getByText(/of 4 MiB · .*\/s/).waitFor();
  await transferOf(page, path).getByRole("button", { name: "Cancel cancelled.bin" }).click();
  await page.locator('#upload-list .item[data-state="aborted"]').getByText("cancelled.bin").waitFor();
  assert.equal((await latest()).state, "aborted");
  assert.equal(await page.locator("#transfers").isVisible(), false);
  await page.reload();
  await page.locator("#upload-list .item").first().waitFor();
  assert.equal(await page.locator("#unfinished").isVisible(), false);
  await context.close();
});

test("an upload that was begun without a network is sent when there is one", async () => {
  const { context, page } = await signedIn();
  const path = await fileOnDisk("offline.bin", 1000);
  await context.setOffline(true);
  await page.setInputFiles("#files", [path]);
  await transferOf(page, path).waitFor();
  await context.setOffline(false);
  await until(page, path, "done");
  await context.close();
});

test("what is refused says why, and can be tried again", async () => {
  const { context, page } = await signedIn();
  // Sparse: nobody reads it, because the policy refuses its size.
  const path = await fileOnDisk("large.bin", 0);
  await truncate(path, 2 * 1024 * MEBIBYTE);
  await page.setInputFiles("#files", [path]);
  await until(page, path, "failed");
  const row = transferOf(page, path);
  await row.getByText(/does not allow this file; file_size: must be at most 1GiB/).waitFor();
  await row.getByRole("button", { name: "Retry large.bin" }).click();
  await until(page, path, "failed");
  await row.getByRole("button", { name: "Cancel large.bin" }).click();
  await row.waitFor({ state: "detached" });
  await context.close();
});

test("files that are dropped are sent", async () => {
  const { context, page } = await signedIn();
  const transfer = await page.evaluateHandle(() => {
    const data = new DataTransfer();
    data.items.add(new File(["dropped"], "dropped.txt"));
    return data;
  });
  await page.dispatchEvent("#drop", "drop", { dataTransfer: transfer });
  await until(page, "dropped.txt", "done");
  assert.equal(await downloaded(page, "dropped.txt"), sha256(Buffer.from("dropped")));
  await context.close();
});

test("the token leaves the address, and a page without one asks for it", async () => {
  const { context, page } = await signedIn();
  assert.equal(page.url(), `${baseUrl}/`);
  assert.equal(await page.evaluate(() => history.length <= 2 && location.hash), "");
  assert.equal(await page.locator("#who").textContent(), "alice");

  const other = await context.newPage();
  await other.goto(baseUrl);
  const input = other.getByLabel("Token");
  await input.fill("garbage");
  await other.getByRole("button", { name: "Sign in" }).click();
  await other.getByText("The token is not valid.").waitFor();
  await input.fill(` Bearer ${token}`);
  await other.getByRole("button", { name: "Sign in" }).click();
  await other.locator("#upload-list .item").first().waitFor();
  await other.getByRole("button", { name: "Sign out" }).click();
  await input.waitFor();
  await context.close();
});

test("a browser that keeps nothing for the page is told what the page needs", async () => {
  const { context, page, errors } = await newPage(browser);
  // As where the browser's settings block it.
  await page.addInitScript(() => {
    const blocked = { get: () => { throw new DOMException("Access is denied for this document.", "SecurityError"); } };
    Object.defineProperties(window, { sessionStorage: blocked, localStorage: blocked });
  });
  await page.goto(`${baseUrl}/#token=${token}`);
  const told = page.locator("#sign-in-error");
  await told.filter({ hasText: "keep nothing" }).waitFor();
  await page.fill("#token", token);
  await page.press("#token", "Enter");
  assert.match(await told.innerText(), /Allow it to store data/);
  assert.deepEqual(errors, []);
  await context.close();
});

test("the page can be used by keyboard, and everything on it has a name", async () => {
  const { context, page } = await signedIn();
  await page.setInputFiles("#files", [await fileOnDisk("named.txt", 1)]);
  await page.locator("#upload-list .item").getByText("named.txt").first().waitFor();
  const focused = new Set();
  for (let presses = 0; presses < 12; presses++) {
    await page.keyboard.press("Tab");
    focused.add(await page.evaluate(() => document.activeElement.id || document.activeElement.ariaLabel));
  }
  for (const expected of ["sign-out", "files", "clear", "state", "refresh", "Download named.txt"]) {
    assert.ok(focused.has(expected), `${expected} is not among ${[...focused].join(", ")}`);
  }
  const nameless = await page.evaluate(() =>
    [...document.querySelectorAll("button, input, select, progress")]
      .filter((element) => !element.labels?.length && !element.ariaLabel && !element.textContent.trim())
      .map((element) => element.outerHTML),
  );
  assert.deepEqual(nameless, []);
  await context.close();
});
