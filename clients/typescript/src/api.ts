import { PresigndError, answerOf, errorOf } from "./error.js";
import { type RetryOptions, retry } from "./retry.js";

/**
 * A token, or what gives one. A function is asked before every call, and once more with `true` when the service has
 * refused what it gave.
 */
export type Token = string | ((refused: boolean) => string | Promise<string>);

/** How long an answer may take, in milliseconds. */
const TIMEOUT = 30_000;

/** One call of the service. */
export interface Call {
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
  /** How long an answer may take, in milliseconds. */
  timeout?: number;
  /** Without the user's token: what the headers hold is enough. */
  anonymous?: boolean;
  /** Names failures to try again besides those that are transient. */
  again?: (error: PresigndError) => boolean;
}

/** The service's API: authenticated JSON, repeated where that may help. */
export class Api {
  readonly base: string;
  readonly retries: Omit<RetryOptions, "signal">;
  readonly #token: Token;

  constructor(base: string, token: Token, retries: Omit<RetryOptions, "signal">) {
    this.base = base.replace(/\/+$/, "");
    this.#token = token;
    this.retries = retries;
  }

  /** The answer to `method` on `path`. Only for what may be repeated. */
  async call<T>(method: string, path: string, call: Call = {}): Promise<T> {
    const ask = (authorization?: string) => this.#ask(method, path, call, authorization);
    const attempt = async () => {
      const response = await (call.anonymous ? ask() : this.#authorized(ask, call.signal));
      if (!response.ok) throw await errorOf(response);
      return answerOf<T>(response);
    };
    return retry({ ...this.retries, signal: call.signal }, attempt, call.again);
  }

  /** The answer to a GET of `path`, whatever it is, whose body is still to come. */
  open(path: string, signal?: AbortSignal): Promise<Response> {
    const ask = (authorization: string) => fetchOf("The service", this.base + path, signal, { authorization });
    return this.#authorized(ask, signal);
  }

  /** What `ask` is answered, once more with a fresh token where the service refuses the one at hand. */
  async #authorized(
    ask: (authorization: string) => Promise<Response>,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    const token = this.#token;
    if (typeof token === "string") return ask(`Bearer ${token}`);
    const response = await ask(`Bearer ${await freshOf(token, false, signal)}`);
    if (response.status !== 401) return response;
    await response.body?.cancel();
    return ask(`Bearer ${await freshOf(token, true, signal)}`);
  }

  async #ask(method: string, path: string, call: Call, authorization?: string): Promise<Response> {
    // Whoever listens from now on is not told that it was aborted meanwhile.
    call.signal?.throwIfAborted();
    const cut = new AbortController();
    const abort = () => cut.abort();
    const timer = setTimeout(abort, call.timeout ?? TIMEOUT);
    call.signal?.addEventListener("abort", abort);
    const json = call.body === undefined ? {} : { "content-type": "application/json" };
    try {
      const response = await fetch(this.base + path, {
        method,
        headers: { ...(authorization ? { authorization } : {}), accept: "application/json", ...json, ...call.headers },
        body: call.body === undefined ? null : JSON.stringify(call.body),
        signal: cut.signal,
      });
      // Read within the time: an answer may break off after its head.
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
}

/** What `token` gives. It may have to ask somebody over the same bad network, so that it fails is no reason to give up. */
async function freshOf(
  token: Exclude<Token, string>,
  isRefused: boolean,
  signal: AbortSignal | undefined,
): Promise<string> {
  let stop = () => {};
  try {
    const stopped = new Promise<never>((_, reject) => {
      const aborted = () => reject(signal?.reason);
      signal?.addEventListener("abort", aborted);
      stop = () => signal?.removeEventListener("abort", aborted);
    });
    // As long as it takes: somebody may be asked for a password.
    return await Promise.race([token(isRefused), stopped]);
  } catch (cause) {
    signal?.throwIfAborted();
    throw new PresigndError("network_error", "The token cannot be had", { cause });
  } finally {
    stop();
  }
}

/** The answer of `whom` to a GET of `url`. That none came is an error of this client. */
export async function fetchOf(
  whom: string,
  url: string,
  signal: AbortSignal | undefined,
  headers: Record<string, string> = {},
): Promise<Response> {
  try {
    return await fetch(url, { headers, signal: signal ?? null });
  } catch (cause) {
    signal?.throwIfAborted();
    throw new PresigndError("network_error", `${whom} does not answer`, { cause });
  }
}
