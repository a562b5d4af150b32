// Chromium, as Debian has it, driven by playwright-core from where .ci/install puts it.

import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { required } from "./service.js";

const { chromium } = await import(pathToFileURL(join(required("TEST_NODE_MODULES"), "playwright-core/index.mjs")).href);

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export function launch() {
  return chromium.launch({ executablePath: "/usr/bin/chromium", args: FLAGS });
}

/** A page with a window of its own, whose errors end up in `errors`. */
export async function newPage(browser, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const errors = [];
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  // Leaving a page whose uploads are not finished asks first.
  page.on("dialog", (dialog) => dialog.accept());
  return { context, page, errors };
}

/** Lets the page send at most so many bytes in a second; without a number, as many as there is room for. */
export async function limitUploads(page, bytesPerSecond = -1) {
  const session = await page.context().newCDPSession(page);
  await session.send("Network.enable");
  const free = { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: bytesPerSecond };
  await session.send("Network.emulateNetworkConditions", free);
}
