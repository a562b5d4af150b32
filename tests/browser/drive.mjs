// Opens a page in Chromium, lets it upload, and tells what came of it.
//
//   node drive.mjs PAGE MODULES
//
// PAGE is a script of this folder and MODULES the folder of packages that it is bundled with. The first line of standard
// input is a job: `upload` is what the page is told, and `pauses` are requests to hold back, each by its method, a part
// of its URL and its turn among those. Each line of standard output is JSON: `{"paused": n}` when the pause n has been
// reached, and at the end what the page says. A paused request goes on after a line on standard input; one that is a
// `reload` does not: once the page has kept what it needs, it is loaded again and told to go on.

import { randomBytes } from 'node:crypto'
import { open } from 'node:fs/promises'
import { createServer } from 'node:http'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { build } from 'esbuild'
import { chromium } from 'playwright-core'

const [script, modules] = process.argv.slice(2)
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const nextLine = async () => (await lines.next()).value
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`)

const PAGE =
  '<!doctype html><title>upload</title><input id="files" type="file" multiple><script src="/page.js"></script>'

/** Files of these sizes with random bytes. On a disk, where people have theirs: what a page makes is kept in memory. */
async function made(sizes) {
  const paths = []
  for (const size of sizes) {
    // This script has a folder of its own, which goes with the test.
    const path = join(dirname(process.argv[1]), `file-${paths.length}`)
    const file = await open(path, 'w')
    for (let left = size; left > 0; left -= 1 << 20) await file.write(randomBytes(Math.min(left, 1 << 20)))
    await file.close()
    paths.push(path)
  }
  return paths
}

const job = JSON.parse(await nextLine())
const bundle = await build({
  entryPoints: [script],
  bundle: true,
  format: 'iife',
  nodePaths: [modules],
  logLevel: 'error',
  write: false,
})
const server = createServer((request, response) => {
  const isScript = request.url === '/page.js'
  response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html; charset=utf-8')
  response.end(isScript ? bundle.outputFiles[0].text : PAGE)
})
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
})
try {
  const page = await browser.newPage()
  page.on('console', (message) => process.stderr.write(`page: ${message.text()}\n`))
  page.on('pageerror', (error) => process.stderr.write(`page: ${error.stack}\n`))
  const requests = []
  page.on('response', (response) => {
    const { pathname } = new URL(response.url())
    requests.push({ method: response.request().method(), path: pathname, status: response.status() })
  })
  let goOn
  const reloaded = new Promise((resolve) => (goOn = resolve))
  for (const [number, { method, url, turn, reload }] of (job.pauses ?? []).entries()) {
    let seen = 0
    await page.route(
      (address) => address.href.includes(url),
      async (route) => {
        if (route.request().method() === method && ++seen === turn) {
          if (reload) {
            await page.waitForFunction(() => window.kept())
            await page.reload()
            return goOn(page.evaluate((upload) => window.resume(upload), job.upload))
          }
          say({ paused: number })
          await nextLine()
        }
        await route.continue()
      },
    )
  }
  await page.goto(`http://127.0.0.1:${server.address().port}/`)
  await page.setInputFiles('#files', await made(job.upload.files.map(({ size }) => size)))
  const uploaded = page.evaluate((upload) => window.upload(upload), job.upload)
  const isReloaded = job.pauses?.some(({ reload }) => reload)
  // A page that is loaded again never says what came of the first time.
  if (isReloaded) uploaded.catch(() => {})
  const outcome = await (isReloaded ? reloaded : uploaded)
  // What a page sends when it gives up is not waited for by it.
  while (outcome.cancelled && !requests.some(({ method }) => method === 'DELETE')) await setTimeout(50)
  say({ ...outcome, requests })
} finally {
  await browser.close()
  server.close()
}
process.exit(0)
