// Generated from src/ by "npm run build". Do not edit.
import { PresigndError } from "./error.js";
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
 * `again` may name failures to try again besides those that are transient.
 */
export declare function retry<T>(options: RetryOptions, attempt: (failures: number) => Promise<T>, again?: (error: PresigndError, failures: number) => boolean): Promise<T>;
