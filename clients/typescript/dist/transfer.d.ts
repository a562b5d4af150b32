// Generated from src/ by "npm run build". Do not edit.
/** Bytes for the store. */
export interface Transfer {
    method: string;
    url: string;
    headers: Record<string, string>;
    body: Blob;
    /** How many bytes of the body come before those of the file. */
    offset: number;
    signal: AbortSignal | undefined;
    /** Milliseconds without any progress after which the transfer is given up. */
    stallTimeout: number;
    /** Is told how many bytes of `body` are on their way. */
    onProgress: (sent: number) => void;
}
/** What the store has answered. */
export interface Answer {
    status: number;
    text: string;
}
/**
 * Sends the body and resolves with whatever the store answers.
 *
 * Rejects with `network_error` where no answer comes, and with the signal's reason when that is aborted.
 */
export declare function send(transfer: Transfer): Promise<Answer>;
/** The bytes of a part of the file. */
export declare function read(part: Blob): Promise<ArrayBuffer>;
