// Generated from src/ by "npm run build". Do not edit.
import { type Token } from "./api.js";
import type { Download, Upload, UploadList, UploadState } from "./schema.js";
import { type UploadOptions } from "./upload.js";
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
export declare function needsToken({ delivery, uses }: Download): boolean;
/** A client of presignd. All its methods reject with `PresigndError`, or with the reason of an aborted `signal`. */
export declare class PresigndClient {
    #private;
    constructor({ baseUrl, token, retries, retryDelay }: ClientOptions);
    /**
     * Uploads `file` and confirms it. The result is `confirmed`, or `inspecting` where the policy has a scanner look at it
     * first.
     */
    upload(file: Blob, options?: UploadOptions): Promise<Upload>;
    /**
     * A URL to read a confirmed upload from: for a link, `location.href`, or an `<img>`. It is good for a short while. One
     * that `needsToken` is for `download` alone.
     */
    downloadUrl(id: string, { disposition, fileName, expiresIn, signal }?: DownloadOptions): Promise<Download>;
    /** The bytes of a confirmed upload, as a response: `.blob()`, `.text()`, or `.body` to stream it. */
    download(id: string, options?: DownloadOptions): Promise<Response>;
    /** One of the caller's uploads. */
    getUpload(id: string, { signal }?: {
        signal?: AbortSignal;
    }): Promise<Upload>;
    /** The caller's uploads, newest first, a page at a time. */
    listUploads({ state, limit, cursor, signal }?: ListOptions): Promise<UploadList>;
    /** Gives an upload up for good, and has removed what is in the store of it. */
    abort(id: string, { signal }?: {
        signal?: AbortSignal;
    }): Promise<Upload>;
}
