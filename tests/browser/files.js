// Files of random bytes, and what tells them apart.

/** A file of `size` random bytes, made in pieces because a browser gives at most 64 KiB of randomness at once. */
export function randomFile(name, type, size) {
  const pieces = []
  for (let left = size; left > 0; left -= 65536) {
    pieces.push(crypto.getRandomValues(new Uint8Array(Math.min(left, 65536))))
  }
  return new File(pieces, name, { type })
}

/** The SHA-256 of a file, in hexadecimal. */
export async function sha256(file) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', await file.arrayBuffer()))
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
