// Generated from src/ by "npm run build". Do not edit.
/** The names that the generated types of the contract go by in this client. */
import type { components } from "./openapi.js";
type Schemas = components["schemas"];
/** An upload. Its `state` tells which further fields there are. */
export type Upload = Schemas["Upload"];
/** An upload that waits for its bytes, and where they go. */
export type UploadGrant = Schemas["UploadGrant"];
/** A page of uploads, newest first. */
export type UploadList = Schemas["UploadList"];
/** What became of an upload so far. */
export type UploadState = Schemas["UploadState"];
/** How the bytes may travel. */
export type UploadMethod = Schemas["UploadMethod"];
/** Which parts to sign. */
export type SignPartsRequest = Schemas["SignPartsRequest"];
/** Where parts go, each by itself. */
export type SignedParts = Schemas["SignedParts"];
/** The parts that the store has. */
export type UploadedParts = Schemas["UploadedParts"];
/** A URL to read a file from. */
export type Download = Schemas["Download"];
/** A failure, as RFC 9457 has it. */
export type Problem = Schemas["Problem"];
export {};
