import { Api, type Token, fetchOf } from "./api.js";
import { PresigndError, answerOf, errorOf } from "./error.js";
import { retry } from "./retry.js";
import type { Download, Upload, UploadList, UploadState } from "./schema.js";
import { type UploadOptions, upload } from "./upload.js";

/** Where the service is, and who asks. */
export interface ClientOptions {
  /** Where the service is, such as `https://uploads.example.com`. */
  baseUrl: string;
  /**
   * The user's JSON Web Token, or a function that gives it. The function is asked before every call, and once more with
   * `true` when the service has refused what it gave: then it should get a fresh one. Where it throws, it is asked again
   * with growing pauses, and what it threw becomes the `cause` of a `network_error` in the end.
   */
  token: Token;
  /** How often what has failed is tried again, each time. 5 by default. */
  retries?: number;
  /** The first pause before trying again, in milliseconds; it doubles each time. 500 by default. */
  retryDelay?: number;
}

/** How a file shall be downloaded. */
export interface DownloadOptions {
  /** What a browser shall do with the file: save it (the default) or show it. */
  disposition?: "attachment" | "inline";
  /** The name to save the file under; the original one by default. */
  fileName?: string;
  /** The life of the URL in seconds. It can only shorten what the policy gives. */
  expiresIn?: number;
  signal?: AbortSignal;
}

/** Which uploads to list. */
export interface ListOptions {
  /** Only uploads in this state. */
  state?: UploadState;
  /** The most uploads in a page: 1 to 100, 50 by default. */
  limit?: number;
  /** The `next_cursor` of the page before. */
  cursor?: string;
  signal?: AbortSignal;
}

/**
 * Whether the URL of `download` is good only together with the user's token. Links, `<img>` and `location.href` cannot
 * send one; `PresigndClient.download` does.
 */
export function needsToken({ delivery, uses }: Download): boolean {
  return uses === undefined && delivery !== "url" && delivery !== "cdn";
}

/** A client of presignd. All its methods reject with `PresigndError`, or with the reason of an aborted `signal`. */
export class PresigndClient {
  readonly #api: Api;

  constructor({ baseUrl, token, retries = 5, retryDelay = 500 }: ClientOptions) {
    this.#api = new Api(baseUrl, token, { retries, retryDelay });
  }

  /**
   * Uploads `file` and confirms it. The result is `confirmed`, or `inspecting` where the policy has a scanner look at it
   * first.
   */
  upload(file: Blob, options: UploadOptions = {}): Promise<Upload> {
    return upload(this.#api, file, options);
  }

  /**
   * A URL to read a confirmed upload from: for a link, `location.href`, or an `<img>`. It is good for a short while. One
   * that `needsToken` is for `download` alone.
   */
  downloadUrl(id: string, { disposition, fileName, expiresIn, signal }: DownloadOptions = {}): Promise<Download> {
    const body = { upload_id: id, disposition, file_name: fileName, expires_in: expiresIn };
    return this.#api.call("POST", "/api/v1/downloads", { body, signal });
  }

  /** The bytes of a confirmed upload, as a response: `.blob()`, `.text()`, or `.body` to stream it. */
  download(id: string, options: DownloadOptions = {}): Promise<Response> {
    const { signal } = options;
    const attempt = async () => {
      const download = await this.downloadUrl(id, options);
      const response = await this.#open(download, signal);
      if (response.ok) return response;
      if (response.headers.get("content-type")?.startsWith("application/problem+json")) throw await errorOf(response);
      throw new PresigndError("storage_error", `The store has answered ${response.status}`, response);
    };
    // A URL that ran out on the way is refused, and the next attempt has a fresh one.
    const refused = (error: PresigndError, failures: number) => error.status === 403 && failures === 0;
    return retry({ ...this.#api.retries, signal }, attempt, refused);
  }

  async #open(download: Download, signal: AbortSignal | undefined): Promise<Response> {
    const { upload_id, delivery, url, uses } = download;
    // Asked for where this client asks for everything: the token goes nowhere else, whatever the URL names.
    if (needsToken(download)) return this.#api.open(`/api/v1/files/${upload_id}${new URL(url).search}`, signal);
    if (uses === undefined || delivery !== "url") return fetchOf("The store", url, signal);
    // In JSON: had a redirect led from one origin to another, no CORS rule of the store would know this page.
    const redeemed = await fetchOf("The service", url, signal, { accept: "application/json" });
    if (!redeemed.ok) return redeemed;
    return fetchOf("The store", (await answerOf<Download>(redeemed, signal)).url, signal);
  }

  /** One of the caller's uploads. */
  getUpload(id: string, { signal }: { signal?: AbortSignal } = {}): Promise<Upload> {
    return this.#api.call("GET", `/api/v1/uploads/${encodeURIComponent(id)}`, { signal });
  }

  /** The caller's uploads, newest first, a page at a time. */
  listUploads({ state, limit, cursor, signal }: ListOptions = {}): Promise<UploadList> {
    const given = Object.entries({ state, limit, cursor }).filter(([, value]) => value !== undefined);
    const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
    return this.#api.call("GET", `/api/v1/uploads?${query}`, { signal });
  }

  /** Gives an upload up for good, and has removed what is in the store of it. */
  abort(id: string, { signal }: { signal?: AbortSignal } = {}): Promise<Upload> {
    return this.#api.call("DELETE", `/api/v1/uploads/${encodeURIComponent(id)}`, { signal });
  }
}
