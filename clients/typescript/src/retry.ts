import { PresigndError } from "./error.js";

/** The longest pause between two attempts that this client chooses by itself, in milliseconds. */
export const LONGEST_PAUSE = 30_000;

/** The longest pause that a server may ask for, in milliseconds. What takes longer fails, and says so. */
const LONGEST_RETRY_AFTER = 300_000;

/** How often and how fast to try again. */
export interface RetryOptions {
  /** Attempts after the first one. */
  retries: number;
  /** The first pause, in milliseconds. It doubles each time. */
  retryDelay: number;
  signal?: AbortSignal | undefined;
}

/** Failures that were tried again often enough, so that whoever called does not multiply the attempts. */
const final = new WeakSet<object>();

/**
 * Calls `attempt` until it succeeds, fails for good, or has failed too often. `attempt` is told how often it has failed.
 *
 * `again` is told every failure, and may name those to try again besides the transient ones.
 */
export async function retry<T>(
  options: RetryOptions,
  attempt: (failures: number) => Promise<T>,
  again: (error: PresigndError, failures: number) => boolean = () => false,
): Promise<T> {
  for (let failures = 0; ; failures++) {
    options.signal?.throwIfAborted();
    try {
      return await attempt(failures);
    } catch (error) {
      if (!(error instanceof PresigndError) || final.has(error)) throw error;
      const asked = (error.retryAfter ?? 0) * 1000;
      const wanted = again(error, failures);
      const helps = (error.transient || wanted) && asked <= LONGEST_RETRY_AFTER;
      if (!helps || failures >= options.retries) {
        final.add(error);
        throw error;
      }
      // On top of what is asked, which may be the same for all clients that failed together.
      await pause(asked + backoff(options.retryDelay, failures), options.signal);
      await online(options.signal);
    }
  }
}

/** Exponential, and at random in the upper half, so that clients which failed together do not come back together. */
function backoff(first: number, failures: number): number {
  return Math.min(LONGEST_PAUSE, first * 2 ** failures) * (0.5 + Math.random() / 2);
}

/** Resolves after `milliseconds`, or rejects when `signal` is aborted. */
export function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return until(signal, (done) => {
    const timer = setTimeout(done, milliseconds);
    return () => clearTimeout(timer);
  });
}

/**
 * Waits while the browser knows that it has no network: attempts in that time would only be used up. Not for ever,
 * because some that say so have one.
 */
async function online(signal: AbortSignal | undefined): Promise<void> {
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

/** A promise that `start` fulfils through its callback. What `start` returns undoes it when `signal` comes first. */
function until(signal: AbortSignal | undefined, start: (done: () => void) => () => void): Promise<void> {
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
