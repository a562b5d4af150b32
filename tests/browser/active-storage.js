// A page that uploads with Active Storage's client.

import { DirectUpload } from '@rails/activestorage'
import { chosenFile, sha256 } from './files.js'

/** Uploads `files` one after the other to the address of a direct upload. */
window.upload = async ({ url, authorization, files }) => {
  const outcomes = []
  for (const [index, { name, type, size }] of files.entries()) {
    const data = chosenFile(index, name, type)
    const delegate = {
      directUploadWillCreateBlobWithXHR(xhr) {
        if (authorization) xhr.setRequestHeader('authorization', authorization)
      },
    }
    const outcome = { name, size, sha256: await sha256(data), errors: [] }
    await new Promise((resolve) => {
      new DirectUpload(data, url, delegate).create((error, blob) => {
        if (error) outcome.errors.push(String(error))
        else Object.assign(outcome, blob)
        resolve()
      })
    })
    outcomes.push(outcome)
  }
  return { cancelled: false, files: outcomes }
}
