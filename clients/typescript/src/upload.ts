import type { Api, Call } from "./api.js";
import { PresigndError } from "./error.js";
import { LONGEST_PAUSE, pause, retry } from "./retry.js";
import type { SignPartsRequest, SignedParts, Upload, UploadGrant, UploadMethod, UploadedParts } from "./schema.js";
import { type Answer, type Transfer, read, send } from "./transfer.js";

/** How far an upload is, in bytes of the file. */
export interface Progress {
  loaded: number;
  total: number;
}

/** Where unfinished uploads are remembered: `localStorage`, or anything that looks like it. May be asynchronous. */
export interface UploadStore {
  getItem(key: string): string | null | Promise<string | null>;
  setItem(key: string, value: string): void | Promise<void>;
  removeItem(key: string): void | Promise<void>;
}

/** How a file shall be uploaded. */
export interface UploadOptions {
  /** Is told whenever more bytes are on their way. What has to be sent again is taken back. */
  onProgress?: (progress: Progress) => void;
  /**
   * Is told the upload as soon as it is recorded, or taken up again; once more where another has to be begun in its
   * place. Waited for.
   */
  onIssued?: (upload: UploadGrant) => void | Promise<void>;
  /** Stops the upload where it is. With a `store`, the same call goes on from there later. */
  signal?: AbortSignal;
  /**
   * Remembers the upload until it is settled, under the file's name, size, type and date and these options: the way to
   * resume it.
   */
  store?: UploadStore;
  /** The file's name, which a `File` has by itself. */
  name?: string;
  /** The media type; by default the file's own, or what the service guesses from the name. */
  type?: string;
  /** The name of a policy; `default` by default. */
  policy?: string;
  /** How the bytes shall travel; by default the service decides. */
  method?: Exclude<UploadMethod, "credentials">;
  /** Metadata to keep with the file. */
  metadata?: Record<string, string>;
  /**
   * The SHA-256 digest of the file in base64, which store and service then check. Where the policy requires one, it is
   * computed, which takes the file into memory as a whole; of large files, each part has its own.
   */
  checksumSha256?: string;
  /** How many parts of a large file travel at the same time. 4 by default. */
  concurrency?: number;
  /** Milliseconds without any progress after which a transfer is tried again. 60,000 by default. */
  stallTimeout?: number;
}

/** Completing a large file may take the store minutes. */
const COMPLETE_TIMEOUT = 600_000;

/** Uploads `file` through `api`. */
export async function upload(api: Api, file: Blob, options: UploadOptions): Promise<Upload> {
  const name = options.name ?? (file as Partial<File>).name;
  if (!name) throw new TypeError("expected a File, or options.name");
  return new Run(api, file, name, options).finish();
}

/** What an upload's state is remembered under: the same file, picked again, has the same key. */
function keyOf(api: Api, file: Blob, name: string, options: UploadOptions): string {
  const { lastModified = 0 } = file as Partial<File>;
  const { policy = "default", method, metadata = {}, checksumSha256 } = options;
  const of = [api.base, policy, name, file.size, typeOf(file, options), lastModified];
  // What was promised for one purpose must not be found for another.
  const wishes = [method, checksumSha256, Object.entries(metadata).sort()];
  return `presignd:${JSON.stringify([...of, ...wishes])}`;
}

/** The media type to promise. Recorders name codecs in it, some after a comma, which no signed header may hold. */
function typeOf(file: Blob, { type = file.type }: UploadOptions): string {
  return type.includes(",") ? type.replace(/;.*/s, "") : type;
}

type SignedPart = SignedParts["parts"][number];

/** One upload on its way. */
class Run {
  readonly #api: Api;
  readonly #file: Blob;
  readonly #name: string;
  readonly #options: UploadOptions;
  readonly #key: string;
  /** Bytes on their way: of each part that is, and of all that have arrived. */
  readonly #sending = new Map<number, number>();
  #arrived = 0;
  /** Signed parts that wait to be sent. */
  readonly #signed = new Map<number, SignedPart>();
  #signing: Promise<void> | undefined;
  #grant!: UploadGrant;

  constructor(api: Api, file: Blob, name: string, options: UploadOptions) {
    this.#api = api;
    this.#file = file;
    this.#name = name;
    this.#options = options;
    this.#key = keyOf(api, file, name, options);
  }

  async finish(): Promise<Upload> {
    this.#options.signal?.throwIfAborted();
    try {
      const upload = (await this.#resume()) ?? (await this.#run(await this.#issue(), false));
      await this.#forget();
      this.#arrived = this.#file.size;
      this.#report();
      return upload;
    } catch (error) {
      if (isOver(error)) await this.#forget();
      throw error;
    }
  }

  async #issue(): Promise<UploadGrant> {
    const { policy, method, metadata, checksumSha256 } = this.#options;
    const body = {
      original_file_name: this.#name,
      file_size: this.#file.size,
      file_type: typeOf(this.#file, this.#options),
      policy,
      method,
      metadata,
      checksum_sha256: checksumSha256,
    };
    // With a key, because a repeated attempt has to find the upload of an earlier one whose answer was lost.
    const ask = (more = {}) =>
      this.#post<UploadGrant>("", { body: { ...body, ...more }, headers: { "idempotency-key": randomKey() } });
    return ask().catch(async (error: unknown) => {
      const isRequired = error instanceof PresigndError && error.fields.some(({ field }) => field === "checksum_sha256");
      if (!isRequired || checksumSha256) throw error;
      return ask({ checksum_sha256: await sha256(this.#file) });
    });
  }

  /** The remembered upload, taken up again; or none, when there is none, or nothing is left of it to go on with. */
  async #resume(): Promise<Upload | undefined> {
    const remembered = await attempted(() => this.#options.store?.getItem(this.#key));
    const id = remembered && idIn(remembered);
    if (!id) return undefined;
    const upload = await this.#takeUp(id);
    if (!upload) await this.#forget();
    return upload;
  }

  async #takeUp(id: string): Promise<Upload | undefined> {
    let grant: UploadGrant;
    try {
      grant = await this.#post<UploadGrant>(`/${id}/renew`);
    } catch (error) {
      if (!isOver(error)) throw error;
      if (error.code !== "invalid_state") return undefined;
      const upload = await this.#get<Upload>(`/${id}`);
      return upload.state === "confirmed" || upload.state === "inspecting" ? upload : undefined;
    }
    // Begun anew only where it was lost before. What else ends it from here on, somebody has decided just now.
    return this.#run(grant, true).catch(unless("parts_gone", "method_unsupported"));
  }

  /** Takes an upload, new or `resumed`, to its end. */
  async #run(grant: UploadGrant, resumed: boolean): Promise<Upload> {
    this.#grant = grant;
    this.#arrived = 0;
    if (grant.upload.method === "CREDENTIALS") {
      // Best effort: left alone, it expires.
      await this.#call("DELETE", `/${grant.id}`).catch(() => {});
      throw unsupported();
    }
    await this.#remember();
    await this.#options.onIssued?.(grant);
    return this.#sendAndConfirm(resumed);
  }

  async #remember(): Promise<void> {
    const { id, confirm_until: until } = this.#grant;
    const remembered: Remembered = { id, name: this.#name, size: this.#file.size, until };
    // Full, or blocked: what is not remembered cannot be gone on with later, but it can be sent now.
    await attempted(() => this.#options.store?.setItem(this.#key, JSON.stringify(remembered)));
  }

  async #forget(): Promise<void> {
    // What stays is forgotten when it is tried again, and an upload that has ended well has not failed for that.
    await attempted(() => this.#options.store?.removeItem(this.#key));
  }

  async #sendAndConfirm(resumed: boolean): Promise<Upload> {
    const { method } = this.#grant.upload;
    for (let round = 0; ; round++) {
      const again = resumed || round > 0;
      // A file that travels as a whole may have arrived before this call: only the store knows.
      if (again && method !== "MULTIPART") {
        const confirmed = await this.#confirm(0).catch(unless("upload_incomplete"));
        if (confirmed) return confirmed;
      }
      // Confirmed meanwhile, on the word of the store, or put together by a call that broke off: confirming once more
      // tells what became of it.
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
  async #confirm(patience: number): Promise<Upload> {
    let left = patience;
    // While another call puts the parts together, a store may show neither them nor the file.
    const unseen = this.#grant.upload.method === "MULTIPART" ? "parts_gone" : "upload_incomplete";
    // A call whose answer did not come may be at it still, for as long as it may take.
    let atItUntil = 0;
    const again = ({ code, status }: PresigndError) => {
      if ([0, 408, 504].includes(status)) atItUntil = Date.now() + COMPLETE_TIMEOUT;
      return code === unseen && left-- > 0;
    };
    const { id, callback } = this.#grant;
    const ask = (more: Call = {}) =>
      this.#post<Upload>(`/${id}/complete`, { timeout: COMPLETE_TIMEOUT, again, ...more });
    const isUnanswered = (error: unknown) => error instanceof PresigndError && [0, 401].includes(error.status);
    for (;;) {
      try {
        return await ask().catch((error: unknown) => {
          // The user's session may have ended over a long upload. What was granted is enough to confirm it.
          if (!isUnanswered(error)) throw error;
          const headers = { "x-callback-token": callback.token };
          return ask({ anonymous: true, headers }).catch((other: unknown) => {
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
  async #sendWhole(): Promise<Upload | undefined> {
    let confirmed: Upload | undefined;
    await this.#transfer(0, async (failures, isAnswered) => {
      // All may have arrived, and only the answer been lost: asking is cheaper than sending it again.
      if (!isAnswered) confirmed = await this.#confirm(0).catch(unless("upload_incomplete"));
      if (confirmed) return undefined;
      // What failed may have been refused without an answer that a browser shows: expired, or from another network.
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
  async #sendParts(again: boolean): Promise<undefined> {
    const target = this.#grant.upload;
    if (target.method !== "MULTIPART") return;
    const pending = new Set(Array.from({ length: target.part_count }, (_, index) => index + 1));
    this.#arrived = 0;
    this.#signed.clear();
    if (again) {
      const { parts } = await this.#get<UploadedParts>(`/${this.#grant.id}/parts`);
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
          ...(await this.#part(number, pending)),
          method: "PUT",
          body,
          offset: 0,
        }));
      }
    };
    // After a failure no part is begun; those under way may end, and need not be sent again later.
    const workers = Array.from({ length: this.#concurrency }, () => worker().finally(() => pending.clear()));
    await Promise.allSettled(workers);
    await Promise.all(workers);
  }

  /** Where part `number` goes. Signs the next few with it. */
  async #part(number: number, pending: Set<number>): Promise<SignedPart> {
    for (;;) {
      const part = this.#signed.get(number);
      // Handed out once: another attempt needs a fresh one, because this one may be why it failed.
      if (this.#signed.delete(number) && part) return part;
      // No more than begin at about the same time: on a slow line, the URLs of later ones would end before their turn.
      this.#signing ??= this.#sign(number, [...pending].slice(0, this.#concurrency - 1)).finally(() => (this.#signing = undefined));
      await this.#signing;
    }
  }

  get #concurrency(): number {
    return this.#options.concurrency ?? 4;
  }

  /** The bytes of part `number`. */
  #piece(number: number): Blob {
    const target = this.#grant.upload;
    const size = target.method === "MULTIPART" ? target.part_size : 0;
    return this.#file.slice((number - 1) * size, number * size);
  }

  async #sign(number: number, next: number[]): Promise<void> {
    const target = this.#grant.upload;
    const body: SignPartsRequest = { part_numbers: [number, ...next] };
    if (target.method === "MULTIPART" && target.part_checksums) {
      // Only this one, because each has to be read for it.
      body.part_numbers = [number];
      body.checksums_sha256 = { [number]: await sha256(this.#piece(number)) };
    }
    const ask = () => this.#post<SignedParts>(`/${this.#grant.id}/parts`, { body });
    const { parts } = await ask().catch(async (error: unknown) => {
      unless("network_changed", "renew_required")(error);
      await this.#renew();
      return ask();
    });
    for (const part of parts) this.#signed.set(part.part_number, part);
  }

  async #renew(): Promise<void> {
    this.#grant = await this.#post<UploadGrant>(`/${this.#grant.id}/renew`);
    this.#signed.clear();
    await this.#remember();
  }

  /** Sends what `prepare` describes until the store has taken it, or there is nothing more to send. */
  async #transfer(
    number: number,
    prepare: (failures: number, isAnswered: boolean) => Promise<Prepared | undefined>,
  ): Promise<void> {
    const { signal, stallTimeout = 60_000 } = this.#options;
    // Whether the store has answered the attempt before, if there was one.
    let isAnswered = true;
    const attempt = async (failures: number) => {
      const prepared = await prepare(failures, isAnswered);
      if (!prepared) return;
      const size = number > 0 ? prepared.body.size : this.#file.size;
      const onProgress = (sent: number) => {
        this.#sending.set(number, Math.min(size, Math.max(0, sent - prepared.offset)));
        this.#report();
      };
      try {
        isAnswered = false;
        const answer = await send({ ...prepared, signal, stallTimeout, onProgress });
        isAnswered = true;
        // 412: the object is there, so an earlier attempt has arrived, and only its answer was lost.
        if (answer.status >= 300 && answer.status !== 412) throw refusal(answer, number > 0);
        this.#arrived += size;
      } finally {
        this.#sending.delete(number);
        this.#report();
      }
    };
    await retry({ ...this.#api.retries, signal }, attempt, mayPass);
  }

  #report(): void {
    const loaded = [...this.#sending.values()].reduce((sum, sent) => sum + sent, this.#arrived);
    this.#options.onProgress?.({ loaded, total: this.#file.size });
  }

  #get<T>(path: string): Promise<T> {
    return this.#call("GET", path);
  }

  #post<T>(path: string, call?: Call): Promise<T> {
    return this.#call("POST", path, call);
  }

  #call<T>(method: string, path: string, call?: Call): Promise<T> {
    return this.#api.call(method, `/api/v1/uploads${path}`, { ...call, signal: this.#options.signal });
  }
}

/** A body, and where it goes. */
type Prepared = Pick<Transfer, "method" | "url" | "headers" | "body" | "offset">;

/** What a store keeps of an unfinished upload: enough to go on, and to tell people which file it was. */
interface Remembered {
  id: string;
  name: string;
  size: number;
  /** When nothing is left to go on with any more, unless it is renewed before. */
  until: string;
}

/** The id in what a store gave back, for a path; none, where something else has written there. */
function idIn(remembered: string): string | undefined {
  try {
    const { id } = JSON.parse(remembered) as Partial<Remembered>;
    return id && encodeURIComponent(id);
  } catch {
    return undefined;
  }
}

/** Whether the service has said that nothing is left of the upload to go on with. */
function isOver(error: unknown): error is PresigndError {
  const codes = [
    "not_found",
    "invalid_state",
    "parts_gone",
    "policy_withdrawn",
    "policy_refused",
    "upload_expired",
    "upload_mismatch",
    "revoked",
  ];
  return error instanceof PresigndError && codes.includes(error.code);
}

/** What a grant of credentials ends in: they are for clients that sign for themselves. */
function unsupported(): PresigndError {
  return new PresigndError("method_unsupported", "The policy has files sent with credentials, which this client cannot");
}

/**
 * Whether a refusal of the store may not come again. A URL that ran out, or is of another network, is refused, and the
 * next attempt has a fresh one; when that is refused as well, the reason is another. 409 is another write to the same key
 * at the same moment.
 */
function mayPass({ code, status, detail }: PresigndError, failures: number): boolean {
  if (code !== "storage_error") return false;
  // AWS says with 400 that the session has ended that the URL was signed with.
  if (status === 403 || detail === "ExpiredToken") return failures < 2;
  return status === 409 || detail === "RequestTimeout";
}

/** Rethrows every error that has none of these codes. */
function unless(...codes: string[]): (error: unknown) => undefined {
  return (error) => {
    if (error instanceof PresigndError && codes.includes(error.code)) return undefined;
    throw error;
  };
}

/**
 * `multipart/form-data` (RFC 7578) with the file last. As one Blob and not as `FormData`, so that Node, too, can stream
 * it and tell how far it is.
 */
function formOf(fields: Record<string, string>, file: Blob): { body: Blob; type: string; offset: number } {
  const boundary = `presignd-${randomKey()}`;
  const head = (name: string, more = "") =>
    `--${boundary}\r\nContent-Disposition: form-data; name="${name}"${more}\r\n\r\n`;
  const before = new Blob([
    ...Object.entries(fields).map(([name, value]) => `${head(name)}${value}\r\n`),
    head("file", '; filename="file"'),
  ]);
  const body = new Blob([before, file, `\r\n--${boundary}--\r\n`]);
  return { body, type: `multipart/form-data; boundary=${boundary}`, offset: before.size };
}

/** What the store's answer means. Its text is XML, of which the code is the only thing that is not about this request. */
function refusal({ status, text }: Answer, isPart: boolean): PresigndError {
  const detail = /<Code>(\w+)<\/Code>/.exec(text)?.[1];
  // Put together or given up by another call: the service knows which.
  if (isPart && detail === "NoSuchUpload") return new PresigndError("parts_gone", "The store has no parts of it any more");
  return new PresigndError("storage_error", `The store has answered ${status}`, { status, detail });
}

/** The SHA-256 digest in base64. */
async function sha256(blob: Blob): Promise<string> {
  if (!crypto.subtle) throw new PresigndError("digest_unavailable", "Browsers compute digests only on pages that came by HTTPS");
  // All of it has to be in memory at once.
  if (blob.size >= 2 ** 31) throw new PresigndError("digest_unavailable", "Browsers compute digests of less than 2 GiB: give checksumSha256");
  const digest = await crypto.subtle.digest("SHA-256", await read(blob));
  return btoa(String.fromCharCode(...new Uint8Array(digest)));
}

/** 128 random bits. `crypto.randomUUID` is missing from pages that came by plain HTTP. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What `step` gives, or nothing where it fails. */
async function attempted<T>(step: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await step();
  } catch {
    return undefined;
  }
}
