// Towards a store behind a proxy that breaks the first connections in the middle, as many as TEST_BREAKS says.

import assert from "node:assert/strict";
import { test } from "node:test";

import { bytesOf, fileOf, newClient, required, sha256 } from "./service.js";

const breaks = Number(required("TEST_BREAKS"));
const parts = required("TEST_METHOD") === "multipart";
const size = parts ? 20_000_000 : 3_000_000;
const method = parts ? "multipart" : "put";

test("a transfer that breaks off is tried again, for as long as it is told to", async () => {
  const file = fileOf("a.bin", size);
  let left = breaks;
  if (!parts) {
    const impatient = newClient({ retries: 1 }).upload(file, { method });
    await assert.rejects(impatient, { name: "PresigndError", code: "network_error", status: 0 });
    left -= 2;
  }
  let failures = 0;
  let last = 0;
  const onProgress = ({ loaded }) => {
    if (loaded < last) failures += 1;
    last = loaded;
  };
  const client = newClient();
  const upload = await client.upload(file, { method, onProgress });
  assert.equal(upload.state, "confirmed");
  assert.equal(failures, left);
  const response = await client.download(upload.id);
  assert.equal(sha256(await response.arrayBuffer()), sha256(bytesOf(size)));
});
