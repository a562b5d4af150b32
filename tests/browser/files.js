// Files as somebody has chosen them, and what tells them apart.

/** The file at `index` among those that were chosen, as one of that name and type. */
export function chosenFile(index, name, type) {
  return new File([document.querySelector('#files').files[index]], name, { type })
}

/** The SHA-256 of a file, in hexadecimal. */
export async function sha256(file) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', await file.arrayBuffer()))
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
