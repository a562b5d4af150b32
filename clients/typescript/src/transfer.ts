import { PresigndError } from "./error.js";

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

type Cuttable = Transfer & { signal: AbortSignal };

/** How much is read from the file at once, in bytes. */
const PIECE = 64 * 1024;

/** Headers that the transport sets from the body, and that browsers do not let scripts set. */
const SET_BY_TRANSPORT = new Set(["content-length", "host"]);

/**
 * Sends the body and resolves with whatever the store answers.
 *
 * Rejects with `network_error` where no answer comes, and with the signal's reason when that is aborted.
 */
export async function send(transfer: Transfer): Promise<Answer> {
  // Only XMLHttpRequest tells a browser how much has been sent.
  const transport = typeof XMLHttpRequest === "undefined" ? sendByFetch : sendByXhr;
  const given = Object.entries(transfer.headers).filter(([name]) => !SET_BY_TRANSPORT.has(name.toLowerCase()));
  const cut = new AbortController();
  const abort = () => cut.abort();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let ended = false;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(abort, transfer.stallTimeout);
  };
  const onProgress = (sent: number) => {
    // A piece may still be read from the file after its transfer has failed.
    if (ended) return;
    alive();
    transfer.onProgress(sent);
  };
  transfer.signal?.throwIfAborted();
  transfer.signal?.addEventListener("abort", abort);
  alive();
  try {
    return await transport({ ...transfer, headers: Object.fromEntries(given), signal: cut.signal, onProgress });
  } catch (cause) {
    transfer.signal?.throwIfAborted();
    // A file that is gone looks like a broken network from here.
    await read(transfer.body.slice(transfer.offset, transfer.offset + 1));
    throw new PresigndError("network_error", "The transfer to the store broke off", { cause });
  } finally {
    ended = true;
    clearTimeout(timer);
    transfer.signal?.removeEventListener("abort", abort);
  }
}

function sendByXhr({ method, url, headers, body, signal, onProgress }: Cuttable): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    signal.addEventListener("abort", () => xhr.abort());
    xhr.open(method, url);
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => onProgress(event.loaded);
    xhr.onload = () => resolve({ status: xhr.status, text: xhr.responseText });
    xhr.onerror = xhr.onabort = () => reject(new Error("no answer"));
    xhr.send(body);
  });
}

/** In Node, where a stream shows how much of it was taken. Its length has to be said, or it would go in chunks. */
async function sendByFetch({ method, url, headers, body, signal, onProgress }: Cuttable): Promise<Answer> {
  let sent = 0;
  // Piece by piece, because the stream of a Blob in memory has it all in one.
  const pieces = {
    async pull(controller: ReadableStreamDefaultController<Uint8Array>) {
      const piece = new Uint8Array(await body.slice(sent, sent + PIECE).arrayBuffer());
      controller.enqueue(piece);
      onProgress((sent += piece.byteLength));
      if (sent >= body.size) controller.close();
    },
  };
  const response = await fetch(url, {
    method,
    headers: { ...headers, "content-length": String(body.size) },
    body: body.size > 0 ? new ReadableStream(pieces, { highWaterMark: 0 }) : body,
    signal,
    // Not in the DOM's types yet, and required for a stream.
    ...{ duplex: "half" },
  });
  return { status: response.status, text: await response.text() };
}

/** The bytes of a part of the file. */
export async function read(part: Blob): Promise<ArrayBuffer> {
  try {
    return await part.arrayBuffer();
  } catch (cause) {
    throw new PresigndError("file_unreadable", "The file has changed or gone since it was picked", { cause });
  }
}
