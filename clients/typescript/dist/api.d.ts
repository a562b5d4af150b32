// Generated from src/ by "npm run build". Do not edit.
import { PresigndError } from "./error.js";
import { type RetryOptions } from "./retry.js";
/**
 * A token, or what gives one. A function is asked before every call, and once more with `true` when the service has
 * refused what it gave.
 */
export type Token = string | ((refused: boolean) => string | Promise<string>);
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
export declare class Api {
    #private;
    readonly base: string;
    readonly retries: Omit<RetryOptions, "signal">;
    constructor(base: string, token: Token, retries: Omit<RetryOptions, "signal">);
    /** The answer to `method` on `path`. Only for what may be repeated. */
    call<T>(method: string, path: string, call?: Call): Promise<T>;
    /** The answer to a GET of `path`, whatever it is, whose body is still to come. */
    open(path: string, signal?: AbortSignal): Promise<Response>;
}
/** The answer of `whom` to a GET of `url`. That none came is an error of this client. */
export declare function fetchOf(whom: string, url: string, signal: AbortSignal | undefined, headers?: Record<string, string>): Promise<Response>;
