// What the tests are told by whoever started the service for them: tests/it/typescript_client.rs.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";

import { PresigndClient } from "../dist/index.js";

export const baseUrl = required("TEST_URL");
export const token = required("TEST_TOKEN");

export function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run these tests by "cargo test --test it typescript_client"`);
  return value;
}

/** A client that does not wait long before it tries again. */
export function newClient(options = {}) {
  return new PresigndClient({ baseUrl, token, retryDelay: 20, ...options });
}

/** `size` bytes that are the same each time and of which no two parts are alike. */
export function bytesOf(size, seed = 1) {
  const bytes = new Uint8Array(size);
  const words = new Uint32Array(bytes.buffer, 0, size >> 2);
  let state = seed;
  for (let index = 0; index < words.length; index++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    words[index] = state;
  }
  return bytes;
}

export function fileOf(name, size, options = {}) {
  return new File([bytesOf(size)], name, { lastModified: 1, ...options });
}

export function sha256(bytes) {
  return createHash("sha256").update(new Uint8Array(bytes)).digest("hex");
}

/** What a browser's `localStorage` is, without the browser. */
export class MemoryStore {
  items = new Map();

  getItem(key) {
    return this.items.get(key) ?? null;
  }

  setItem(key, value) {
    this.items.set(key, value);
  }

  removeItem(key) {
    this.items.delete(key);
  }
}

/** Begins to upload `file`, stops as soon as that is recorded, and gives what was. */
export async function interrupted(client, file, options) {
  const stop = new AbortController();
  let issued;
  const onIssued = (upload) => {
    issued = upload;
    stop.abort();
  };
  await assert.rejects(client.upload(file, { ...options, signal: stop.signal, onIssued }), { name: "AbortError" });
  return issued;
}

/** Resolves once the machine's clock is after `instant`, as the store's is. */
export async function after(instant) {
  const end = Date.parse(instant);
  while (Date.now() <= end) await new Promise((resolve) => setTimeout(resolve, 50));
}

/** The requests of `run`, as `METHOD path`, sent by this process with `fetch`. */
export async function requestsOf(run) {
  const requests = [];
  const original = globalThis.fetch;
  globalThis.fetch = (url, options) => {
    const { pathname, origin } = new URL(url);
    const path = origin === new URL(baseUrl).origin ? pathname.replace(/[0-9a-f-]{36}/, "{id}") : "store";
    requests.push(`${options?.method ?? "GET"} ${path}`);
    return original(url, options);
  };
  try {
    await run();
  } finally {
    globalThis.fetch = original;
  }
  return requests;
}

/** Runs `run` while `answer` answers what it wants to. It is given `send`, by which the rest goes where it is sent. */
export async function answering(answer, run) {
  const send = globalThis.fetch;
  globalThis.fetch = async (url, options) => (await answer(url, options, send)) ?? send(url, options);
  try {
    await run();
  } finally {
    globalThis.fetch = send;
  }
}

/** How the service refuses. */
export function problem(status, code) {
  return Response.json({ type: "about:blank", title: code, status, code }, { status });
}
