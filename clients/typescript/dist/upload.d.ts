// Generated from src/ by "npm run build". Do not edit.
import type { Api } from "./api.js";
import type { Upload, UploadGrant, UploadMethod } from "./schema.js";
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
/** Uploads `file` through `api`. */
export declare function upload(api: Api, file: Blob, options: UploadOptions): Promise<Upload>;
