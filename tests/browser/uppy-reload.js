// A page that uploads with Uppy and its GoldenRetriever, which goes on with what a reload has interrupted.

import AwsS3 from '@uppy/aws-s3'
import Uppy from '@uppy/core'
import GoldenRetriever from '@uppy/golden-retriever'
import { chosenFile, sha256 } from './files.js'

const SENT = 'what was sent'

function uploader(options) {
  const uppy = new Uppy({ id: 'reloaded', autoProceed: false })
  return uppy.use(AwsS3, options).use(GoldenRetriever, { indexedDB: { maxFileSize: 64 << 20 } })
}

function settled(uppy) {
  const errors = []
  uppy.on('upload-error', (file, error) => errors.push(error.message))
  return new Promise((resolve) => {
    uppy.on('complete', ({ successful }) => {
      const { name, size, sha256 } = JSON.parse(sessionStorage.getItem(SENT))
      resolve({ files: [{ name, size, sha256, errors, ...successful[0]?.response.body }] })
    })
  })
}

/** Uploads one file. */
window.upload = async ({ options, files: [{ name, type, size }] }) => {
  const data = chosenFile(0, name, type)
  sessionStorage.setItem(SENT, JSON.stringify({ name, size, sha256: await sha256(data) }))
  const uppy = uploader(options)
  const outcome = settled(uppy)
  uppy.addFile({ name, type, data })
  uppy.upload()
  return outcome
}

/** Whether everything is kept that a reload needs: the bytes, and which upload they belong to. */
window.kept = async () => {
  const answer = (request) =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result)
      request.onerror = () => reject(request.error)
    })
  const { localStorage } = window
  const database = await answer(indexedDB.open('uppy-blobs'))
  try {
    const all = (store) => answer(database.transaction([store]).objectStore(store).getAll())
    const inDatabase = database.objectStoreNames.contains('metadata') ? (await all('metadata')).map(({ metadata }) => metadata) : []
    const notes = [...inDatabase, ...Object.values({ ...localStorage })]
    return (await all('files')).length === 1 && notes.some((note) => note.includes('"s3Multipart":{'))
  } finally {
    database.close()
  }
}

/** Goes on after a reload. */
window.resume = async ({ options }) => {
  const uppy = uploader(options)
  const outcome = settled(uppy)
  await new Promise((resolve) => uppy.on('restored', resolve))
  uppy.emit('restore-confirmed')
  return outcome
}
