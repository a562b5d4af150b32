// Generated from src/ by "npm run build". Do not edit.
import { PresigndError } from "./error.js";
/** The longest pause between two attempts that this client chooses by itself, in milliseconds. */
export declare const LONGEST_PAUSE = 30000;
/** How often and how fast to try again. */
export interface RetryOptions {
    /** Attempts after the first one. */
    retries: number;
    /** The first pause, in milliseconds. It doubles each time. */
    retryDelay: number;
    signal?: AbortSignal | undefined;
}
/**
 * Calls `attempt` until it succeeds, fails for good, or has failed too often. `attempt` is told how often it has failed.
 *
 * `again` is told every failure, and may name those to try again besides the transient ones.
 */
export declare function retry<T>(options: RetryOptions, attempt: (failures: number) => Promise<T>, again?: (error: PresigndError, failures: number) => boolean): Promise<T>;
/** Resolves after `milliseconds`, or rejects when `signal` is aborted. */
export declare function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void>;
