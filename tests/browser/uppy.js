// A page that uploads with Uppy, of whichever version it is bundled with.

import AwsS3 from '@uppy/aws-s3'
import Uppy from '@uppy/core'
import { chosenFile, sha256 } from './files.js'

/** What docs/CLIENTS.md has for `signRequest`: with the sizes of files, whole ones are confirmed by what they came with. */
function signer(uppy, { url, authorization, sized }, confirmations) {
  const callbacks = new Map()
  const confirm = async ({ url, token }) => {
    const response = await fetch(url, { method: 'POST', headers: { 'x-callback-token': token } })
    if (!response.ok) throw new Error(await response.text())
  }
  uppy.on('upload-success', (file) => {
    const callback = callbacks.get(file.id)
    if (callback) confirmations.push(confirm(callback))
  })
  return async (request) => {
    const file = sized ? uppy.getFile(request.key) : undefined
    const response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(authorization ? { authorization } : {}) },
      body: JSON.stringify({ ...request, size: file?.size, fileName: file?.name }),
    })
    if (!response.ok) throw new Error(await response.text())
    const signed = await response.json()
    if (file && signed.callback) callbacks.set(file.id, signed.callback)
    return signed
  }
}

/** What `getCredentials` of docs/CLIENTS.md is: uploads are recorded before Uppy begins, and it gets what they came with. */
function byCredentials(uppy, { url, authorization }) {
  const uploads = new Map()
  const ask = async (path, body) => {
    const headers = { authorization, 'content-type': 'application/json' }
    const response = await fetch(`${url}/api/v1/uploads${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
    if (!response.ok) throw new Error(await response.text())
    return response.json()
  }
  uppy.addPreProcessor(async (fileIDs) => {
    const files = fileIDs.filter((id) => !uploads.has(id)).map((id) => uppy.getFile(id))
    if (files.length === 0) return
    const described = files.map(({ name, size, type }) => ({
      original_file_name: name, file_size: size, file_type: type, method: 'credentials',
    }))
    const { results } = await ask('/batch', { uploads: described })
    results.forEach(({ upload, problem }, index) => {
      if (problem) throw new Error(`${files[index].name}: ${problem.title}`)
      uploads.set(files[index].id, upload)
    })
  })
  return {
    generateObjectKey: (file) => uploads.get(file.id).upload.key,
    async getCredentials() {
      const [[, { id }]] = [...uploads].slice(-1)
      const { credentials, region } = (await ask(`/${id}/renew`, {})).upload
      return { credentials, region }
    },
  }
}

/** Uploads `files`, cancels at `cancelAt` bytes, and tries what failed `retries` times again. */
window.upload = async ({ options, sign, credentials, files, cancelAt = Infinity, retries = 0 }) => {
  const uppy = new Uppy({ autoProceed: false })
  const confirmations = []
  const signed = sign && { signRequest: signer(uppy, sign, confirmations), ...(sign.sized ? { generateObjectKey: (file) => file.id } : {}) }
  const more = signed ?? (credentials ? byCredentials(uppy, credentials) : {})
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
  await Promise.all(confirmations)
  return { cancelled, files: [...outcomes.values()] }
}
