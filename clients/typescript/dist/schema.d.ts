// Generated from src/ by "npm run build". Do not edit.
/** The names that the generated types of the contract go by in this client. */
import type { components } from "./openapi.js";
type Schemas = components["schemas"];
/** An upload. Its `state` tells which further fields there are. */
export type Upload = Schemas["Upload"];
/** An upload that waits for its bytes, and where they go. */
export type UploadGrant = Omit<Schemas["UploadGrant"], "upload"> & {
    upload: Schemas["UploadGrant"]["upload"] | MultipartTarget;
};
/** A file that is sent in parts. */
export interface MultipartTarget {
    method: "MULTIPART";
    part_size: number;
    part_count: number;
    parts_url: string;
    expires_at: string;
}
/** A page of uploads, newest first. */
export type UploadList = Schemas["UploadList"];
/** What became of an upload so far. */
export type UploadState = Schemas["UploadState"];
/** A URL to read a file from. */
export type Download = Schemas["Download"];
/** How the bytes may travel. */
export type UploadMethod = Schemas["UploadMethod"];
/** A failure, as RFC 9457 has it. */
export type Problem = Schemas["Problem"];
/** Where one part of a large file goes. */
export interface SignedPart {
    part_number: number;
    url: string;
    headers: Record<string, string>;
    expires_at: string;
}
/** The parts that the store has. */
export interface PartList {
    part_size: number;
    part_count: number;
    parts: {
        part_number: number;
        size: number;
        etag: string;
    }[];
}
export {};
