/** A client of presignd for browsers and Node: see the README beside it. */

export { PresigndClient, needsToken } from "./client.js";
export type { ClientOptions, DownloadOptions, ListOptions } from "./client.js";
export { PresigndError } from "./error.js";
export type { ErrorCode, FieldError } from "./error.js";
export type { Progress, UploadOptions, UploadStore } from "./upload.js";
export type { Download, Upload, UploadGrant, UploadList, UploadState } from "./schema.js";
