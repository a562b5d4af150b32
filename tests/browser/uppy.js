// A page that uploads with Uppy, of whichever version it is bundled with.

import AwsS3 from '@uppy/aws-s3'
import Uppy from '@uppy/core'
import { chosenFile, sha256 } from './files.js'

/** What `signRequest` of docs/CLIENTS.md is. */
function signer(uppy, { url, authorization, sized }) {
  return async (request) => {
    const file = sized ? uppy.getFile(request.key) : undefined
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(authorization ? { authorization } : {}) },
      body: JSON.stringify({ ...request, size: file?.size, fileName: file?.name }),
    })
    if (!response.ok) throw new Error(await response.text())
    return response.json()
  }
}

/** Uploads `files`, cancels at `cancelAt` bytes, and tries what failed `retries` times again. */
window.upload = async ({ options, sign, files, cancelAt = Infinity, retries = 0 }) => {
  const uppy = new Uppy({ autoProceed: false })
  const more = sign
    ? { signRequest: signer(uppy, sign), ...(sign.sized ? { generateObjectKey: (file) => file.id } : {}) }
    : {}
  uppy.use(AwsS3, { ...options, ...more })
  const outcomes = new Map()
  for (const [index, { name, type, size }] of files.entries()) {
    const data = chosenFile(index, name, type)
    uppy.addFile({ name, type, data })
    outcomes.set(name, { name, size, sha256: await sha256(data), errors: [] })
  }
  uppy.on('upload-success', (file, response) => Object.assign(outcomes.get(file.name), response.body))
  uppy.on('upload-error', (file, error) => outcomes.get(file.name).errors.push(error.message))
  let cancelled = false
  uppy.on('upload-progress', (_, { bytesUploaded }) => {
    if (bytesUploaded >= cancelAt && !cancelled) {
      cancelled = true
      uppy.cancelAll()
    }
  })
  await uppy.upload()
  for (let left = retries; left > 0 && uppy.getFiles().some((file) => file.error); left -= 1) await uppy.retryAll()
  return { cancelled, files: [...outcomes.values()] }
}
