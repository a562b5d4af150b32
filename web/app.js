// The page for people. Everything that talks to the service or the store is the client's; this only shows it.

import { PresigndClient, PresigndError, needsToken } from "./client.js";

/** Files on their way at the same time; the others wait. */
const FILES_AT_ONCE = 3;

/** How often numbers on the page change, in milliseconds. */
const REFRESH = 250;

/** How often it is asked what became of uploads that are being inspected, in milliseconds. */
const LOOK_AGAIN = 3000;

/** How long a file that the page has fetched stays at hand for the browser to save, in milliseconds. */
const RELEASE_AFTER = 60_000;

const TOKEN = "presignd-token";

const BLOCKED = "This browser lets this page keep nothing, not even a token. Allow it to store data, and reload.";

const $ = (id) => document.getElementById(id);
const base = new URL(".", document.baseURI).href;

/** What this tab keeps; `null` where the browser's settings forbid that. */
const session = (() => {
  try {
    return sessionStorage;
  } catch {
    return null;
  }
})();

/** The token lives in this tab only. One in the address came from `presignd dev`: it goes from the history at once. */
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    // Only where `presignd dev` runs. Anywhere else a link could sign its reader in as the one who sent it.
    if (["127.0.0.1", "[::1]", "localhost"].includes(location.hostname)) session?.setItem(TOKEN, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return session?.getItem(TOKEN) ?? null;
}

/** What the token says of its user, which is only for show: whether that is true is the service's to judge. */
function claims(token) {
  try {
    const payload = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(payload), (character) => character.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return {};
  }
}

const A_DAY = 24 * 60 * 60 * 1000;

/** The unfinished uploads of one user, in `localStorage` where the browser has it. */
class Unfinished {
  constructor(user) {
    this.prefix = `presignd-unfinished:${user}:`;
    try {
      this.storage = localStorage;
    } catch {
      // Blocked by the browser's settings: then uploads do not outlive the page.
      this.storage = session;
    }
  }

  getItem(key) {
    return this.storage.getItem(this.prefix + key);
  }

  setItem(key, value) {
    try {
      this.storage.setItem(this.prefix + key, value);
    } catch {
      // Full. The upload itself needs no memory.
    }
  }

  removeItem(key) {
    this.storage.removeItem(this.prefix + key);
  }

  /** Each with its key. What can no longer be gone on with, by a wide margin for wrong clocks, is forgotten. */
  all() {
    // Also where it does not say until when.
    const isOver = ({ until }) => !(Date.parse(until) + A_DAY >= Date.now());
    const all = this.#all();
    for (const { key } of all.filter(isOver)) this.removeItem(key);
    return all.filter((upload) => !isOver(upload));
  }

  #all() {
    const keys = Array.from({ length: this.storage.length }, (_, index) => this.storage.key(index));
    return keys.filter((key) => key.startsWith(this.prefix)).flatMap((key) => this.#read(key));
  }

  /** The upload under `key`, or none where something else has written there. */
  #read(key) {
    try {
      return [{ key: key.slice(this.prefix.length), ...JSON.parse(this.storage.getItem(key)) }];
    } catch {
      return [];
    }
  }

  forget(id) {
    for (const { key } of this.all().filter((upload) => upload.id === id)) this.removeItem(key);
  }
}

const token = takeToken();
const { iss = "", sub = "" } = claims(token ?? "");
const unfinished = new Unfinished(JSON.stringify([iss, sub]));
const client = new PresigndClient({ baseUrl: base, token: () => session?.getItem(TOKEN) ?? "" });

// Words

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

function bytes(count) {
  const step = count < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log2(count) / 10));
  const value = count / 1024 ** step;
  const digits = step > 0 && value < 100 ? 1 : 0;
  return `${value.toLocaleString(undefined, { maximumFractionDigits: digits })} ${UNITS[step]}`;
}

function duration(seconds) {
  // Rounded before it is split: 59.5 seconds are a minute.
  const whole = Math.max(1, Math.ceil(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.ceil(whole / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Such as `3.2 MiB of 10 MiB · 1.1 MiB/s · 6 s left`. */
function progressText({ loaded, total, rate }) {
  const parts = [`${bytes(loaded)} of ${bytes(total)}`];
  if (rate > 0) parts.push(`${bytes(rate)}/s`);
  if (rate > 0 && loaded < total) parts.push(`${duration((total - loaded) / rate)} left`);
  return parts.join(" · ");
}

/** What went wrong, for people. */
function reason(error) {
  if (!(error instanceof PresigndError)) return "Something went wrong in this page.";
  if (error.code === "network_error") return navigator.onLine ? "The connection broke off." : "You are offline.";
  if (error.code === "file_unreadable") return "The file has changed or gone. Choose it again.";
  return `${error.message}.`;
}

/** For people who listen to the page rather than see it. */
function announce(text) {
  $("status").textContent = text;
}

/** Bytes in a second, smoothed over the last few seconds. */
class Rate {
  value = 0;
  #at = performance.now();
  #loaded = 0;

  update(loaded) {
    const seconds = (performance.now() - this.#at) / 1000;
    if (seconds < 0.2) return;
    const current = Math.max(0, loaded - this.#loaded) / seconds;
    const weight = 1 - Math.exp(-seconds / 3);
    this.value = this.value === 0 ? current : this.value + weight * (current - this.value);
    this.#at = performance.now();
    this.#loaded = loaded;
  }

  restart(loaded) {
    this.value = 0;
    this.#at = performance.now();
    this.#loaded = loaded;
  }
}

// Uploads

/** The file's progress row, and what the person at the page does with it. */
class Transfer {
  state = "waiting";
  loaded = 0;
  note = "";
  #id;
  #cut = new AbortController();
  #rate = new Rate();

  constructor(file) {
    this.file = file;
    const row = $("transfer-row").content.cloneNode(true);
    this.element = row.firstElementChild;
    const find = (name) => row.querySelector(name);
    this.parts = { bar: find("progress"), text: find(".text") };
    find(".name").textContent = file.name;
    find(".size").textContent = bytes(file.size);
    this.parts.bar.setAttribute("aria-label", file.name);
    for (const action of ["pause", "resume", "retry", "cancel"]) {
      this.parts[action] = find(`.${action}`);
      this.parts[action].setAttribute("aria-label", `${find(`.${action}`).textContent} ${file.name}`);
      this.parts[action].addEventListener("click", () => this[action]());
    }
    $("transfer-list").append(row);
    this.show();
  }

  get open() {
    return ["waiting", "uploading", "paused"].includes(this.state);
  }

  async start() {
    this.#enter("uploading");
    this.#cut = new AbortController();
    // This run's own: after a pause, the next may have begun before this one ends.
    const { signal } = this.#cut;
    this.#rate.restart(this.loaded);
    try {
      const options = { signal, store: unfinished, onIssued: (upload) => this.#issued(upload) };
      const upload = await client.upload(this.file, {
        ...options,
        onProgress: ({ loaded }) => (this.loaded = loaded),
      });
      this.note = upload.state === "inspecting" ? "Uploaded. A scanner looks at it now." : "Done.";
      this.#enter("done");
      announce(`${this.file.name}: uploaded`);
      files.reload();
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof PresigndError && error.status === 401) signOut("The token is not valid any more.");
      this.note = reason(error);
      this.#enter("failed");
      announce(`${this.file.name}: failed. ${this.note}`);
    } finally {
      queue.next();
    }
  }

  pause() {
    this.#enter("paused");
    this.#cut.abort();
  }

  resume() {
    this.#enter("waiting");
    queue.next();
  }

  retry() {
    this.resume();
  }

  async cancel() {
    const cancelled = this.open || this.state === "failed";
    this.#enter("cancelled");
    this.#cut.abort();
    this.element.remove();
    queue.remove(this);
    if (cancelled && this.#id) await discard(this.#id);
    if (cancelled) announce(`${this.file.name}: cancelled`);
  }

  /** Numbers change with the clock, not with every packet. */
  tick() {
    if (this.state !== "uploading") return;
    this.#rate.update(this.loaded);
    this.show();
  }

  get rate() {
    return this.state === "uploading" ? this.#rate.value : 0;
  }

  show() {
    const { size } = this.file;
    const { bar, text, pause, resume, retry, cancel } = this.parts;
    const all = this.state === "done" || (this.loaded === size && this.state === "uploading");
    bar.value = size > 0 ? this.loaded / size : Number(all);
    bar.hidden = this.state === "done" || this.state === "failed";
    const progress = progressText({ loaded: this.loaded, total: size, rate: this.rate });
    const note = this.note && this.state === "uploading" ? `${this.note} ` : "";
    text.textContent = {
      waiting: "Waiting",
      uploading: this.loaded === size && size > 0 ? "Checking…" : note + progress,
      paused: `Paused · ${progress}`,
      failed: this.note,
      done: this.note,
      cancelled: "Cancelled",
    }[this.state];
    this.element.dataset.state = this.state;
    pause.hidden = !["waiting", "uploading"].includes(this.state);
    resume.hidden = this.state !== "paused";
    retry.hidden = this.state !== "failed";
    cancel.hidden = this.state === "done";
  }

  #enter(state) {
    this.state = state;
    this.show();
    queue.show();
  }

  #issued(upload) {
    const others = unfinished.all().filter(({ id }) => id !== upload.id);
    const isOther = this.#id === undefined && others.some(({ name }) => name === this.file.name);
    this.#id = upload.id;
    this.note = isOther ? "Not the file that was left unfinished: its size or date differs." : "";
    showUnfinished();
  }
}

/** All transfers of this page, in order. */
const queue = {
  transfers: [],
  rate: new Rate(),

  add(chosen) {
    for (const file of chosen) {
      const same = ({ file: { name, size, lastModified }, state }) =>
        name === file.name && size === file.size && lastModified === file.lastModified && state !== "done";
      if (!this.transfers.some(same)) this.transfers.push(new Transfer(file));
    }
    this.next();
    this.show();
  },

  remove(transfer) {
    this.transfers = this.transfers.filter((other) => other !== transfer);
    this.next();
    this.show();
    showUnfinished();
  },

  next() {
    const busy = this.transfers.filter(({ state }) => state === "uploading").length;
    const waiting = this.transfers.filter(({ state }) => state === "waiting");
    for (const transfer of waiting.slice(0, Math.max(0, FILES_AT_ONCE - busy))) transfer.start();
  },

  show() {
    const { transfers } = this;
    const has = (...states) => transfers.some(({ state }) => states.includes(state));
    $("transfers").hidden = transfers.length === 0;
    $("pause-all").hidden = !has("waiting", "uploading");
    $("resume-all").hidden = !has("paused") || has("waiting", "uploading");
    $("clear").hidden = !has("done");
    const counted = transfers.filter(({ state }) => state !== "failed");
    const sum = (of) => counted.reduce((total, transfer) => total + of(transfer), 0);
    const [loaded, total] = [sum(({ loaded }) => loaded), sum(({ file }) => file.size)];
    const done = transfers.filter(({ state }) => state === "done").length;
    $("total").value = total > 0 ? loaded / total : Number(done === counted.length);
    const open = transfers.filter((transfer) => transfer.open).length;
    const rate = sum((transfer) => transfer.rate);
    const numbers = open > 0 ? ` · ${progressText({ loaded, total, rate })}` : "";
    $("total-text").textContent = `${done} of ${transfers.length} ${transfers.length === 1 ? "file" : "files"}${numbers}`;
    $("transfers-heading").textContent = open > 0 ? "Uploading" : "Uploaded";
    document.title = open > 0 && total > 0 ? `${Math.floor((100 * loaded) / total)} % · presignd` : "Files · presignd";
  },
};

/** Gives an upload up, at the service and in this browser. */
async function discard(id) {
  let failure;
  try {
    await client.abort(id);
  } catch (error) {
    // Confirmed or settled meanwhile: the list shows as what.
    if (!(error instanceof PresigndError && ["invalid_state", "not_found"].includes(error.code))) failure = error;
  }
  unfinished.forget(id);
  showUnfinished();
  // Before the complaint, which it would take away.
  await files.reload();
  if (failure) complain(failure);
}

function showUnfinished() {
  const running = new Set(queue.transfers.map(({ file }) => `${file.name}/${file.size}`));
  const left = unfinished.all().filter(({ name, size }) => !running.has(`${name}/${size}`));
  $("unfinished").hidden = left.length === 0;
  const rows = left.map(({ id, name, size }) => {
    const row = $("unfinished-row").content.cloneNode(true);
    row.querySelector(".name").textContent = name;
    row.querySelector(".size").textContent = bytes(size);
    row.querySelector(".discard").setAttribute("aria-label", `Cancel ${name}`);
    row.querySelector(".discard").addEventListener("click", () => discard(id));
    return row;
  });
  $("unfinished-list").replaceChildren(...rows);
}

// The list

const STATES = {
  issued: "Not finished",
  inspecting: "Being inspected",
  confirmed: "Ready",
  rejected: "Rejected",
  aborted: "Cancelled",
  expired: "Expired",
};

const thisYear = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "numeric", minute: "numeric" });
const earlier = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

function date(text) {
  const instant = new Date(text);
  return (instant.getFullYear() === new Date().getFullYear() ? thisYear : earlier).format(instant);
}

const files = {
  cursor: undefined,
  /** Only the latest request may change the list. */
  request: 0,
  timer: undefined,

  reload() {
    return this.load(undefined);
  },

  async load(cursor) {
    const request = ++this.request;
    clearTimeout(this.timer);
    try {
      const state = $("state").value || undefined;
      const page = await client.listUploads({ limit: 20, ...(state && { state }), ...(cursor && { cursor }) });
      if (request !== this.request) return;
      const rows = page.uploads.map((upload) => this.row(upload));
      if (cursor) $("upload-list").append(...rows);
      else $("upload-list").replaceChildren(...rows);
      this.cursor = page.next_cursor ?? undefined;
      $("more").hidden = this.cursor === undefined;
      $("uploads-empty").hidden = $("upload-list").childElementCount > 0;
      $("alert").textContent = "";
      this.watch();
    } catch (error) {
      complain(error);
    }
  },

  /** A scanner's verdict comes by itself. */
  watch() {
    if (inspected().length > 0) this.timer = setTimeout(() => this.look(), LOOK_AGAIN);
  },

  /** Looks for verdicts. Only their rows change: people may be at any other, and have more of them shown. */
  async look() {
    const { request } = this;
    try {
      for (const row of inspected()) {
        const upload = await client.getUpload(row.dataset.id);
        if (request !== this.request) return;
        if (upload.state !== "inspecting") row.replaceWith(this.row(upload));
      }
    } catch (error) {
      complain(error);
      if (error.status === 401 || request !== this.request) return;
    }
    // Also after a look that failed: the verdict is still to come.
    this.watch();
  },

  row(upload) {
    const row = $("upload-row").content.cloneNode(true);
    const find = (name) => row.querySelector(name);
    Object.assign(row.firstElementChild.dataset, { id: upload.id, state: upload.state });
    find(".name").textContent = upload.original_file_name;
    find(".badge").textContent = STATES[upload.state] ?? upload.state;
    find(".text").textContent = `${bytes(upload.file_size)} · ${date(upload.created_at)}`;
    const download = find(".download");
    download.hidden = upload.state !== "confirmed";
    download.setAttribute("aria-label", `Download ${upload.original_file_name}`);
    download.addEventListener("click", () => this.download(upload, download));
    const discarding = find(".discard");
    discarding.hidden = upload.state !== "issued";
    discarding.setAttribute("aria-label", `Discard ${upload.original_file_name}`);
    discarding.addEventListener("click", () => discard(upload.id));
    return row;
  },

  async download(upload, button) {
    button.disabled = true;
    try {
      const issued = await client.downloadUrl(upload.id);
      if (needsToken(issued)) {
        // No link can send the token, so the page fetches the file. Browsers keep large blobs on the disk.
        const response = await client.download(upload.id);
        const file = await response.blob().catch((cause) => {
          throw new PresigndError("network_error", "The file broke off", { cause });
        });
        const url = URL.createObjectURL(file);
        follow({ href: url, download: upload.original_file_name });
        setTimeout(() => URL.revokeObjectURL(url), RELEASE_AFTER);
      } else {
        // In a tab of its own: to leave this page ends its uploads, and an error of the store would take its place. Too
        // long after the click, browsers take such a tab for a popup and open none.
        const target = navigator.userActivation?.isActive === false ? "_self" : "_blank";
        follow({ href: issued.url, target, rel: "noopener" });
      }
    } catch (error) {
      complain(error);
    } finally {
      button.disabled = false;
    }
  },
};

/** The rows of the list whose verdict is not there yet. */
function inspected() {
  return [...$("upload-list").querySelectorAll('[data-state="inspecting"]')];
}

/** Follows a link with these attributes. */
function follow(attributes) {
  Object.assign(document.createElement("a"), attributes).click();
}

function complain(error) {
  if (error instanceof PresigndError && error.status === 401) signOut("The token is not valid.");
  else $("alert").textContent = reason(error);
}

// Signing in and out

function signOut(why) {
  session?.removeItem(TOKEN);
  clearTimeout(files.timer);
  for (const transfer of queue.transfers) if (transfer.open && transfer.state !== "paused") transfer.pause();
  showPage(null, why);
}

function showPage(signedIn, why = "") {
  $("sign-in").hidden = signedIn !== null;
  $("app").hidden = signedIn === null;
  $("sign-out").hidden = signedIn === null;
  $("who").textContent = signedIn === null ? "" : sub;
  $("sign-in-error").textContent = why;
  if (signedIn === null) return $("token").focus();
  showUnfinished();
  return files.reload();
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!session) return showPage(null, BLOCKED);
  session.setItem(TOKEN, $("token").value.trim().replace(/^Bearer +/i, ""));
  // From the beginning, as another user perhaps.
  location.reload();
});
$("sign-out").addEventListener("click", () => {
  signOut("");
  location.reload();
});

// What people do

$("files").addEventListener("change", (event) => {
  queue.add(event.target.files);
  // So that choosing the same file once more is a change again.
  event.target.value = "";
});
for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) $("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (!$("app").hidden) queue.add(event.dataTransfer.files);
});
$("pause-all").addEventListener("click", () => {
  for (const transfer of queue.transfers) if (["waiting", "uploading"].includes(transfer.state)) transfer.pause();
});
$("resume-all").addEventListener("click", () => {
  for (const transfer of queue.transfers) if (transfer.state === "paused") transfer.resume();
});
$("clear").addEventListener("click", () => {
  for (const transfer of queue.transfers.filter(({ state }) => state === "done")) transfer.cancel();
});
$("state").addEventListener("change", () => files.reload());
$("refresh").addEventListener("click", () => files.reload());
$("more").addEventListener("click", () => files.load(files.cursor));
addEventListener("beforeunload", (event) => {
  if (queue.transfers.some((transfer) => transfer.open)) event.preventDefault();
});
setInterval(() => {
  for (const transfer of queue.transfers) transfer.tick();
  if (queue.transfers.some((transfer) => transfer.open)) queue.show();
}, REFRESH);

showPage(token, session ? "" : BLOCKED);
