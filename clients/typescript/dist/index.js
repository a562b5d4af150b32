// Generated from src/ by "npm run build". Do not edit.

// src/error.ts
var PresigndError = class extends Error {
  name = "PresigndError";
  /** Stable, and meant for programs. */
  code;
  /** The HTTP status of the answer; 0 where there was none. */
  status;
  /** What is special about this very failure, for people. */
  detail;
  /** The fields that break rules, each with its rule. */
  fields;
  /** Names the request in the service's log. */
  requestId;
  /** Seconds after which the server wants to be asked again. */
  retryAfter;
  constructor(code, title, details = {}) {
    const rules = details.fields?.map(({ field, rule }) => `${field}: ${rule}`) ?? [];
    super([title, ...details.detail ? [details.detail] : [], ...rules].join("; "), { cause: details.cause });
    this.code = code;
    this.status = details.status ?? 0;
    this.detail = details.detail;
    this.fields = details.fields ?? [];
    this.requestId = details.requestId;
    this.retryAfter = details.retryAfter;
  }
  /** Whether the same request may well succeed later. */
  get transient() {
    return this.code === "network_error" || [408, 429].includes(this.status) || this.status >= 500;
  }
};
async function errorOf(response) {
  const retryAfter = seconds(response.headers.get("retry-after"));
  const details = { status: response.status, retryAfter };
  try {
    const problem = await response.json();
    if (problem.code) {
      const { detail, errors: fields, request_id: requestId } = problem;
      return new PresigndError(problem.code, problem.title, { ...details, detail, fields, requestId });
    }
  } catch {
  }
  return unexpected(response, details);
}
async function answerOf(response, signal) {
  try {
    return await response.json();
  } catch (cause) {
    signal?.throwIfAborted();
    if (cause instanceof SyntaxError) throw unexpected(response, { status: response.status, cause });
    throw new PresigndError("network_error", "The answer broke off", { cause });
  }
}
function unexpected({ status, headers }, details) {
  const requestId = headers.get("x-request-id") ?? void 0;
  const title = `An answer with status ${status} that is not the service's`;
  return new PresigndError("unexpected_answer", title, { ...details, requestId });
}
function seconds(value) {
  if (!value) return void 0;
  const number = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1e3;
  return number > 0 ? number : void 0;
}

// src/retry.ts
var LONGEST_PAUSE = 3e4;
var LONGEST_RETRY_AFTER = 3e5;
var final = /* @__PURE__ */ new WeakSet();
async function retry(options, attempt, again = () => false) {
  for (let failures = 0; ; failures++) {
    options.signal?.throwIfAborted();
    try {
      return await attempt(failures);
    } catch (error) {
      if (!(error instanceof PresigndError) || final.has(error)) throw error;
      const asked = (error.retryAfter ?? 0) * 1e3;
      const wanted = again(error, failures);
      const helps = (error.transient || wanted) && asked <= LONGEST_RETRY_AFTER;
      if (!helps || failures >= options.retries) {
        final.add(error);
        throw error;
      }
      await pause(asked + backoff(options.retryDelay, failures), options.signal);
      await online(options.signal);
    }
  }
}
function backoff(first, failures) {
  return Math.min(LONGEST_PAUSE, first * 2 ** failures) * (0.5 + Math.random() / 2);
}
function pause(milliseconds, signal) {
  return until(signal, (done) => {
    const timer = setTimeout(done, milliseconds);
    return () => clearTimeout(timer);
  });
}
async function online(signal) {
  if (globalThis.navigator?.onLine !== false) return;
  await until(signal, (done) => {
    const timer = setTimeout(done, LONGEST_PAUSE);
    addEventListener("online", done, { once: true });
    return () => {
      clearTimeout(timer);
      removeEventListener("online", done);
    };
  });
}
function until(signal, start) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const undo = start(() => {
      undo();
      signal?.removeEventListener("abort", aborted);
      resolve();
    });
    const aborted = () => {
      undo();
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", aborted, { once: true });
  });
}

// src/api.ts
var TIMEOUT = 3e4;
var Api = class {
  base;
  retries;
  #token;
  constructor(base, token, retries) {
    this.base = base.replace(/\/+$/, "");
    this.#token = token;
    this.retries = retries;
  }
  /** The answer to `method` on `path`. Only for what may be repeated. */
  async call(method, path, call = {}) {
    const ask = (authorization) => this.#ask(method, path, call, authorization);
    const attempt = async () => {
      const response = await (call.anonymous ? ask() : this.#authorized(ask, call.signal));
      if (!response.ok) throw await errorOf(response);
      return answerOf(response);
    };
    return retry({ ...this.retries, signal: call.signal }, attempt, call.again);
  }
  /** The answer to a GET of `path`, whatever it is, whose body is still to come. */
  open(path, signal) {
    const ask = (authorization) => fetchOf("The service", this.base + path, signal, { authorization });
    return this.#authorized(ask, signal);
  }
  /** What `ask` is answered, once more with a fresh token where the service refuses the one at hand. */
  async #authorized(ask, signal) {
    const token = this.#token;
    if (typeof token === "string") return ask(`Bearer ${token}`);
    const response = await ask(`Bearer ${await freshOf(token, false, signal)}`);
    if (response.status !== 401) return response;
    await response.body?.cancel();
    return ask(`Bearer ${await freshOf(token, true, signal)}`);
  }
  async #ask(method, path, call, authorization) {
    call.signal?.throwIfAborted();
    const cut = new AbortController();
    const abort = () => cut.abort();
    const timer = setTimeout(abort, call.timeout ?? TIMEOUT);
    call.signal?.addEventListener("abort", abort);
    const json = call.body === void 0 ? {} : { "content-type": "application/json" };
    try {
      const response = await fetch(this.base + path, {
        method,
        headers: { ...authorization ? { authorization } : {}, accept: "application/json", ...json, ...call.headers },
        body: call.body === void 0 ? null : JSON.stringify(call.body),
        signal: cut.signal
      });
      const body = await response.arrayBuffer();
      return new Response(body, response);
    } catch (cause) {
      call.signal?.throwIfAborted();
      throw new PresigndError("network_error", "The service does not answer", { cause });
    } finally {
      clearTimeout(timer);
      call.signal?.removeEventListener("abort", abort);
    }
  }
};
async function freshOf(token, isRefused, signal) {
  let stop = () => {
  };
  try {
    const stopped = new Promise((_, reject) => {
      const aborted = () => reject(signal?.reason);
      signal?.addEventListener("abort", aborted);
      stop = () => signal?.removeEventListener("abort", aborted);
    });
    return await Promise.race([token(isRefused), stopped]);
  } catch (cause) {
    signal?.throwIfAborted();
    throw new PresigndError("network_error", "The token cannot be had", { cause });
  } finally {
    stop();
  }
}
async function fetchOf(whom, url, signal, headers = {}) {
  try {
    return await fetch(url, { headers, signal: signal ?? null });
  } catch (cause) {
    signal?.throwIfAborted();
    throw new PresigndError("network_error", `${whom} does not answer`, { cause });
  }
}

// src/transfer.ts
var PIECE = 64 * 1024;
var SET_BY_TRANSPORT = /* @__PURE__ */ new Set(["content-length", "host"]);
async function send(transfer) {
  const transport = typeof XMLHttpRequest === "undefined" ? sendByFetch : sendByXhr;
  const given = Object.entries(transfer.headers).filter(([name]) => !SET_BY_TRANSPORT.has(name.toLowerCase()));
  const cut = new AbortController();
  const abort = () => cut.abort();
  let timer;
  let ended = false;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(abort, transfer.stallTimeout);
  };
  const onProgress = (sent) => {
    if (ended) return;
    alive();
    transfer.onProgress(sent);
  };
  transfer.signal?.throwIfAborted();
  transfer.signal?.addEventListener("abort", abort);
  alive();
  try {
    return await transport({ ...transfer, headers: Object.fromEntries(given), signal: cut.signal, onProgress });
  } catch (cause) {
    transfer.signal?.throwIfAborted();
    await read(transfer.body.slice(transfer.offset, transfer.offset + 1));
    throw new PresigndError("network_error", "The transfer to the store broke off", { cause });
  } finally {
    ended = true;
    clearTimeout(timer);
    transfer.signal?.removeEventListener("abort", abort);
  }
}
function sendByXhr({ method, url, headers, body, signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    signal.addEventListener("abort", () => xhr.abort());
    xhr.open(method, url);
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => onProgress(event.loaded);
    xhr.onload = () => resolve({ status: xhr.status, text: xhr.responseText });
    xhr.onerror = xhr.onabort = () => reject(new Error("no answer"));
    xhr.send(body);
  });
}
async function sendByFetch({ method, url, headers, body, signal, onProgress }) {
  let sent = 0;
  const pieces = {
    async pull(controller) {
      const piece = new Uint8Array(await body.slice(sent, sent + PIECE).arrayBuffer());
      controller.enqueue(piece);
      onProgress(sent += piece.byteLength);
      if (sent >= body.size) controller.close();
    }
  };
  const response = await fetch(url, {
    method,
    headers: { ...headers, "content-length": String(body.size) },
    body: body.size > 0 ? new ReadableStream(pieces, { highWaterMark: 0 }) : body,
    signal,
    // Not in the DOM's types yet, and required for a stream.
    ...{ duplex: "half" }
  });
  return { status: response.status, text: await response.text() };
}
async function read(part) {
  try {
    return await part.arrayBuffer();
  } catch (cause) {
    throw new PresigndError("file_unreadable", "The file has changed or gone since it was picked", { cause });
  }
}

// src/upload.ts
var COMPLETE_TIMEOUT = 6e5;
async function upload(api, file, options) {
  const name = options.name ?? file.name;
  if (!name) throw new TypeError("expected a File, or options.name");
  return new Run(api, file, name, options).finish();
}
function keyOf(api, file, name, options) {
  const { lastModified = 0 } = file;
  const { policy = "default", method, metadata = {}, checksumSha256 } = options;
  const of = [api.base, policy, name, file.size, typeOf(file, options), lastModified];
  const wishes = [method, checksumSha256, Object.entries(metadata).sort()];
  return `presignd:${JSON.stringify([...of, ...wishes])}`;
}
function typeOf(file, { type = file.type }) {
  return type.includes(",") ? type.replace(/;.*/s, "") : type;
}
var Run = class {
  #api;
  #file;
  #name;
  #options;
  #key;
  /** Bytes on their way: of each part that is, and of all that have arrived. */
  #sending = /* @__PURE__ */ new Map();
  #arrived = 0;
  /** Signed parts that wait to be sent. */
  #signed = /* @__PURE__ */ new Map();
  #signing;
  #grant;
  constructor(api, file, name, options) {
    this.#api = api;
    this.#file = file;
    this.#name = name;
    this.#options = options;
    this.#key = keyOf(api, file, name, options);
  }
  async finish() {
    this.#options.signal?.throwIfAborted();
    try {
      const upload2 = await this.#resume() ?? await this.#run(await this.#issue(), false);
      await this.#forget();
      this.#arrived = this.#file.size;
      this.#report();
      return upload2;
    } catch (error) {
      if (isOver(error)) await this.#forget();
      throw error;
    }
  }
  async #issue() {
    const { policy, method, metadata, checksumSha256 } = this.#options;
    const body = {
      original_file_name: this.#name,
      file_size: this.#file.size,
      file_type: typeOf(this.#file, this.#options),
      policy,
      method,
      metadata,
      checksum_sha256: checksumSha256
    };
    const ask = (more = {}) => this.#post("", { body: { ...body, ...more }, headers: { "idempotency-key": randomKey() } });
    return ask().catch(async (error) => {
      const isRequired = error instanceof PresigndError && error.fields.some(({ field }) => field === "checksum_sha256");
      if (!isRequired || checksumSha256) throw error;
      return ask({ checksum_sha256: await sha256(this.#file) });
    });
  }
  /** The remembered upload, taken up again; or none, when there is none, or nothing is left of it to go on with. */
  async #resume() {
    const remembered = await attempted(() => this.#options.store?.getItem(this.#key));
    const id = remembered && idIn(remembered);
    if (!id) return void 0;
    const upload2 = await this.#takeUp(id);
    if (!upload2) await this.#forget();
    return upload2;
  }
  async #takeUp(id) {
    let grant;
    try {
      grant = await this.#post(`/${id}/renew`);
    } catch (error) {
      if (!isOver(error)) throw error;
      if (error.code !== "invalid_state") return void 0;
      const upload2 = await this.#get(`/${id}`);
      return upload2.state === "confirmed" || upload2.state === "inspecting" ? upload2 : void 0;
    }
    return this.#run(grant, true).catch(unless("parts_gone", "method_unsupported"));
  }
  /** Takes an upload, new or `resumed`, to its end. */
  async #run(grant, resumed) {
    this.#grant = grant;
    this.#arrived = 0;
    if (grant.upload.method === "CREDENTIALS") {
      await this.#call("DELETE", `/${grant.id}`).catch(() => {
      });
      throw unsupported();
    }
    await this.#remember();
    await this.#options.onIssued?.(grant);
    return this.#sendAndConfirm(resumed);
  }
  async #remember() {
    const { id, confirm_until: until2 } = this.#grant;
    const remembered = { id, name: this.#name, size: this.#file.size, until: until2 };
    await attempted(() => this.#options.store?.setItem(this.#key, JSON.stringify(remembered)));
  }
  async #forget() {
    await attempted(() => this.#options.store?.removeItem(this.#key));
  }
  async #sendAndConfirm(resumed) {
    const { method } = this.#grant.upload;
    for (let round = 0; ; round++) {
      const again = resumed || round > 0;
      if (again && method !== "MULTIPART") {
        const confirmed = await this.#confirm(0).catch(unless("upload_incomplete"));
        if (confirmed) return confirmed;
      }
      const sending = method === "MULTIPART" ? this.#sendParts(again) : this.#sendWhole();
      const found = await sending.catch(unless("invalid_state", "parts_gone"));
      if (found) return found;
      try {
        return await this.#confirm(this.#api.retries.retries);
      } catch (error) {
        const missing = error instanceof PresigndError && error.code === "upload_incomplete";
        if (!missing || method !== "MULTIPART" || round > 0) throw error;
      }
    }
  }
  /** Confirms. A store may need a moment until it shows what it has taken: `patience` is how often that is waited for. */
  async #confirm(patience) {
    let left = patience;
    const unseen = this.#grant.upload.method === "MULTIPART" ? "parts_gone" : "upload_incomplete";
    let atItUntil = 0;
    const again = ({ code, status }) => {
      if ([0, 408, 504].includes(status)) atItUntil = Date.now() + COMPLETE_TIMEOUT;
      return code === unseen && left-- > 0;
    };
    const { id, callback } = this.#grant;
    const ask = (more = {}) => this.#post(`/${id}/complete`, { timeout: COMPLETE_TIMEOUT, again, ...more });
    const isUnanswered = (error) => error instanceof PresigndError && [0, 401].includes(error.status);
    for (; ; ) {
      try {
        return await ask().catch((error) => {
          if (!isUnanswered(error)) throw error;
          const headers = { "x-callback-token": callback.token };
          return ask({ anonymous: true, headers }).catch((other) => {
            throw isUnanswered(other) ? error : other;
          });
        });
      } catch (error) {
        const isAtIt = error instanceof PresigndError && error.code === "parts_gone" && Date.now() < atItUntil;
        if (!isAtIt) throw error;
        await pause(Math.min(LONGEST_PAUSE, this.#api.retries.retryDelay * 16), this.#options.signal);
      }
    }
  }
  /** Gives the upload where it turns out to be confirmed already. */
  async #sendWhole() {
    let confirmed;
    await this.#transfer(0, async (failures, isAnswered) => {
      if (!isAnswered) confirmed = await this.#confirm(0).catch(unless("upload_incomplete"));
      if (confirmed) return void 0;
      if (failures > 0) await this.#renew();
      const target = this.#grant.upload;
      if (target.method === "POST") {
        const form = formOf(target.fields, this.#file);
        return { ...target, body: form.body, headers: { "content-type": form.type }, offset: form.offset };
      }
      if (target.method === "PUT") return { ...target, body: this.#file, offset: 0 };
      throw unsupported();
    });
    return confirmed;
  }
  /** Sends the parts that the store does not have: all, unless it is asked because this goes `again`. */
  async #sendParts(again) {
    const target = this.#grant.upload;
    if (target.method !== "MULTIPART") return;
    const pending = new Set(Array.from({ length: target.part_count }, (_, index) => index + 1));
    this.#arrived = 0;
    this.#signed.clear();
    if (again) {
      const { parts } = await this.#get(`/${this.#grant.id}/parts`);
      for (const { part_number: number, size } of parts) {
        if (size === this.#piece(number).size && pending.delete(number)) this.#arrived += size;
      }
      this.#report();
    }
    const worker = async () => {
      for (const number of pending) {
        pending.delete(number);
        const body = this.#piece(number);
        await this.#transfer(number, async () => ({
          ...await this.#part(number, pending),
          method: "PUT",
          body,
          offset: 0
        }));
      }
    };
    const workers = Array.from({ length: this.#concurrency }, () => worker().finally(() => pending.clear()));
    await Promise.allSettled(workers);
    await Promise.all(workers);
  }
  /** Where part `number` goes. Signs the next few with it. */
  async #part(number, pending) {
    for (; ; ) {
      const part = this.#signed.get(number);
      if (this.#signed.delete(number) && part) return part;
      this.#signing ??= this.#sign(number, [...pending].slice(0, this.#concurrency - 1)).finally(() => this.#signing = void 0);
      await this.#signing;
    }
  }
  get #concurrency() {
    return this.#options.concurrency ?? 4;
  }
  /** The bytes of part `number`. */
  #piece(number) {
    const target = this.#grant.upload;
    const size = target.method === "MULTIPART" ? target.part_size : 0;
    return this.#file.slice((number - 1) * size, number * size);
  }
  async #sign(number, next) {
    const target = this.#grant.upload;
    const body = { part_numbers: [number, ...next] };
    if (target.method === "MULTIPART" && target.part_checksums) {
      body.part_numbers = [number];
      body.checksums_sha256 = { [number]: await sha256(this.#piece(number)) };
    }
    const ask = () => this.#post(`/${this.#grant.id}/parts`, { body });
    const { parts } = await ask().catch(async (error) => {
      unless("network_changed", "renew_required")(error);
      await this.#renew();
      return ask();
    });
    for (const part of parts) this.#signed.set(part.part_number, part);
  }
  async #renew() {
    this.#grant = await this.#post(`/${this.#grant.id}/renew`);
    this.#signed.clear();
    await this.#remember();
  }
  /** Sends what `prepare` describes until the store has taken it, or there is nothing more to send. */
  async #transfer(number, prepare) {
    const { signal, stallTimeout = 6e4 } = this.#options;
    let isAnswered = true;
    const attempt = async (failures) => {
      const prepared = await prepare(failures, isAnswered);
      if (!prepared) return;
      const size = number > 0 ? prepared.body.size : this.#file.size;
      const onProgress = (sent) => {
        this.#sending.set(number, Math.min(size, Math.max(0, sent - prepared.offset)));
        this.#report();
      };
      try {
        isAnswered = false;
        const answer = await send({ ...prepared, signal, stallTimeout, onProgress });
        isAnswered = true;
        if (answer.status >= 300 && answer.status !== 412) throw refusal(answer, number > 0);
        this.#arrived += size;
      } finally {
        this.#sending.delete(number);
        this.#report();
      }
    };
    await retry({ ...this.#api.retries, signal }, attempt, mayPass);
  }
  #report() {
    const loaded = [...this.#sending.values()].reduce((sum, sent) => sum + sent, this.#arrived);
    this.#options.onProgress?.({ loaded, total: this.#file.size });
  }
  #get(path) {
    return this.#call("GET", path);
  }
  #post(path, call) {
    return this.#call("POST", path, call);
  }
  #call(method, path, call) {
    return this.#api.call(method, `/api/v1/uploads${path}`, { ...call, signal: this.#options.signal });
  }
};
function idIn(remembered) {
  try {
    const { id } = JSON.parse(remembered);
    return id && encodeURIComponent(id);
  } catch {
    return void 0;
  }
}
function isOver(error) {
  const codes = [
    "not_found",
    "invalid_state",
    "parts_gone",
    "policy_withdrawn",
    "policy_refused",
    "upload_expired",
    "upload_mismatch",
    "revoked"
  ];
  return error instanceof PresigndError && codes.includes(error.code);
}
function unsupported() {
  return new PresigndError("method_unsupported", "The policy has files sent with credentials, which this client cannot");
}
function mayPass({ code, status, detail }, failures) {
  if (code !== "storage_error") return false;
  if (status === 403 || detail === "ExpiredToken") return failures < 2;
  return status === 409 || detail === "RequestTimeout";
}
function unless(...codes) {
  return (error) => {
    if (error instanceof PresigndError && codes.includes(error.code)) return void 0;
    throw error;
  };
}
function formOf(fields, file) {
  const boundary = `presignd-${randomKey()}`;
  const head = (name, more = "") => `--${boundary}\r
Content-Disposition: form-data; name="${name}"${more}\r
\r
`;
  const before = new Blob([
    ...Object.entries(fields).map(([name, value]) => `${head(name)}${value}\r
`),
    head("file", '; filename="file"')
  ]);
  const body = new Blob([before, file, `\r
--${boundary}--\r
`]);
  return { body, type: `multipart/form-data; boundary=${boundary}`, offset: before.size };
}
function refusal({ status, text }, isPart) {
  const detail = /<Code>(\w+)<\/Code>/.exec(text)?.[1];
  if (isPart && detail === "NoSuchUpload") return new PresigndError("parts_gone", "The store has no parts of it any more");
  return new PresigndError("storage_error", `The store has answered ${status}`, { status, detail });
}
async function sha256(blob) {
  if (!crypto.subtle) throw new PresigndError("digest_unavailable", "Browsers compute digests only on pages that came by HTTPS");
  if (blob.size >= 2 ** 31) throw new PresigndError("digest_unavailable", "Browsers compute digests of less than 2 GiB: give checksumSha256");
  const digest = await crypto.subtle.digest("SHA-256", await read(blob));
  return btoa(String.fromCharCode(...new Uint8Array(digest)));
}
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
async function attempted(step) {
  try {
    return await step();
  } catch {
    return void 0;
  }
}

// src/client.ts
function needsToken({ delivery, uses }) {
  return uses === void 0 && delivery !== "url" && delivery !== "cdn";
}
var PresigndClient = class {
  #api;
  constructor({ baseUrl, token, retries = 5, retryDelay = 500 }) {
    this.#api = new Api(baseUrl, token, { retries, retryDelay });
  }
  /**
   * Uploads `file` and confirms it. The result is `confirmed`, or `inspecting` where the policy has a scanner look at it
   * first.
   */
  upload(file, options = {}) {
    return upload(this.#api, file, options);
  }
  /**
   * A URL to read a confirmed upload from: for a link, `location.href`, or an `<img>`. It is good for a short while. One
   * that `needsToken` is for `download` alone.
   */
  downloadUrl(id, { disposition, fileName, expiresIn, signal } = {}) {
    const body = { upload_id: id, disposition, file_name: fileName, expires_in: expiresIn };
    return this.#api.call("POST", "/api/v1/downloads", { body, signal });
  }
  /** The bytes of a confirmed upload, as a response: `.blob()`, `.text()`, or `.body` to stream it. */
  download(id, options = {}) {
    const { signal } = options;
    const attempt = async () => {
      const download = await this.downloadUrl(id, options);
      const response = await this.#open(download, signal);
      if (response.ok) return response;
      if (response.headers.get("content-type")?.startsWith("application/problem+json")) throw await errorOf(response);
      throw new PresigndError("storage_error", `The store has answered ${response.status}`, response);
    };
    const refused = (error, failures) => error.status === 403 && failures === 0;
    return retry({ ...this.#api.retries, signal }, attempt, refused);
  }
  async #open(download, signal) {
    const { upload_id, delivery, url, uses } = download;
    if (needsToken(download)) return this.#api.open(`/api/v1/files/${upload_id}${new URL(url).search}`, signal);
    if (uses === void 0 || delivery !== "url") return fetchOf("The store", url, signal);
    const redeemed = await fetchOf("The service", url, signal, { accept: "application/json" });
    if (!redeemed.ok) return redeemed;
    return fetchOf("The store", (await answerOf(redeemed, signal)).url, signal);
  }
  /** One of the caller's uploads. */
  getUpload(id, { signal } = {}) {
    return this.#api.call("GET", `/api/v1/uploads/${encodeURIComponent(id)}`, { signal });
  }
  /** The caller's uploads, newest first, a page at a time. */
  listUploads({ state, limit, cursor, signal } = {}) {
    const given = Object.entries({ state, limit, cursor }).filter(([, value]) => value !== void 0);
    const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
    return this.#api.call("GET", `/api/v1/uploads?${query}`, { signal });
  }
  /** Gives an upload up for good, and has removed what is in the store of it. */
  abort(id, { signal } = {}) {
    return this.#api.call("DELETE", `/api/v1/uploads/${encodeURIComponent(id)}`, { signal });
  }
};
export {
  PresigndClient,
  PresigndError,
  needsToken
};
