// Generated from src/ by "npm run build". Do not edit.
import type { Problem } from "./schema.js";
/** A field that breaks a rule. */
export type FieldError = NonNullable<Problem["errors"]>[number];
/**
 * What failed: a code of the service, which its `/docs` explains, or one of this client's own.
 *
 * - `network_error`: no answer came.
 * - `storage_error`: the store refused the bytes; `status` says how.
 * - `unexpected_answer`: something that is not the service has answered, such as a proxy.
 * - `file_unreadable`: the file has changed or gone since it was picked.
 * - `digest_unavailable`: a digest is required, and this page came by plain HTTP, where browsers compute none, or it is
 *   that of 2 GiB or more at once.
 * - `method_unsupported`: the policy has files sent with credentials, which this client does not do.
 */
export type ErrorCode = Problem["code"] | "network_error" | "storage_error" | "unexpected_answer" | "file_unreadable" | "digest_unavailable" | "method_unsupported";
interface Details {
    status?: number;
    detail?: string | undefined;
    fields?: FieldError[] | undefined;
    requestId?: string | undefined;
    retryAfter?: number | undefined;
    cause?: unknown;
}
/** Why a call did not succeed. */
export declare class PresigndError extends Error {
    readonly name = "PresigndError";
    /** Stable, and meant for programs. */
    readonly code: ErrorCode;
    /** The HTTP status of the answer; 0 where there was none. */
    readonly status: number;
    /** What is special about this very failure, for people. */
    readonly detail: string | undefined;
    /** The fields that break rules, each with its rule. */
    readonly fields: FieldError[];
    /** Names the request in the service's log. */
    readonly requestId: string | undefined;
    /** Seconds after which the server wants to be asked again. */
    readonly retryAfter: number | undefined;
    constructor(code: ErrorCode, title: string, details?: Details);
    /** Whether the same request may well succeed later. */
    get transient(): boolean;
}
/** The error that `response`, an answer of the service, is. */
export declare function errorOf(response: Response): Promise<PresigndError>;
/** What `response`, a success, says. A page in the service's place, such as a proxy's, may be a success as well. */
export declare function answerOf<T>(response: Response, signal?: AbortSignal): Promise<T>;
export {};
