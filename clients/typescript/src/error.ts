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
export type ErrorCode =
  | Problem["code"]
  | "network_error"
  | "storage_error"
  | "unexpected_answer"
  | "file_unreadable"
  | "digest_unavailable"
  | "method_unsupported";

interface Details {
  status?: number;
  detail?: string | undefined;
  fields?: FieldError[] | undefined;
  requestId?: string | undefined;
  retryAfter?: number | undefined;
  cause?: unknown;
}

/** Why a call did not succeed. */
export class PresigndError extends Error {
  override readonly name = "PresigndError";
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

  constructor(code: ErrorCode, title: string, details: Details = {}) {
    const rules = details.fields?.map(({ field, rule }) => `${field}: ${rule}`) ?? [];
    super([title, ...(details.detail ? [details.detail] : []), ...rules].join("; "), { cause: details.cause });
    this.code = code;
    this.status = details.status ?? 0;
    this.detail = details.detail;
    this.fields = details.fields ?? [];
    this.requestId = details.requestId;
    this.retryAfter = details.retryAfter;
  }

  /** Whether the same request may well succeed later. */
  get transient(): boolean {
    return this.code === "network_error" || [408, 429].includes(this.status) || this.status >= 500;
  }
}

/** The error that `response`, an answer of the service, is. */
export async function errorOf(response: Response): Promise<PresigndError> {
  const retryAfter = seconds(response.headers.get("retry-after"));
  const details = { status: response.status, retryAfter };
  try {
    const problem = (await response.json()) as Problem;
    if (problem.code) {
      const { detail, errors: fields, request_id: requestId } = problem;
      return new PresigndError(problem.code, problem.title, { ...details, detail, fields, requestId });
    }
  } catch {
    // Not JSON, so not the service.
  }
  return unexpected(response, details);
}

/** What `response`, a success, says. A page in the service's place, such as a proxy's, may be a success as well. */
export async function answerOf<T>(response: Response, signal?: AbortSignal): Promise<T> {
  try {
    return (await response.json()) as T;
  } catch (cause) {
    signal?.throwIfAborted();
    if (cause instanceof SyntaxError) throw unexpected(response, { status: response.status, cause });
    throw new PresigndError("network_error", "The answer broke off", { cause });
  }
}

function unexpected({ status, headers }: Response, details: Details): PresigndError {
  const requestId = headers.get("x-request-id") ?? undefined;
  const title = `An answer with status ${status} that is not the service's`;
  return new PresigndError("unexpected_answer", title, { ...details, requestId });
}

/** `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date. */
function seconds(value: string | null): number | undefined {
  if (!value) return undefined;
  const number = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return number > 0 ? number : undefined;
}
