// Towards a store behind a proxy that breaks the first connections in the middle, as many as PRESIGND_BREAKS says.

import assert from "node:assert/strict";
import { test } from "node:test";

import { bytesOf, fileOf, newClient, required, sha256 } from "./service.js";

const breaks = Number(required("PRESIGND_BREAKS"));

test("a transfer that breaks off is tried again, for as long as it is told to", async () => {
  const file = fileOf("a.bin", 3_000_000);
  let failures = 0;
  let last = 0;
  const onProgress = ({ loaded }) => {
    if (loaded < last) failures += 1;
    last = loaded;
  };
  const impatient = newClient({ retries: breaks - 2 }).upload(file, { method: "put" });
  await assert.rejects(impatient, { name: "PresigndError", code: "network_error", status: 0 });
  const client = newClient();
  const upload = await client.upload(file, { method: "put", onProgress });
  assert.equal(upload.state, "confirmed");
  assert.equal(failures, 1, "the one that was left");
  const response = await client.download(upload.id);
  assert.equal(sha256(await response.arrayBuffer()), sha256(bytesOf(3_000_000)));
});
