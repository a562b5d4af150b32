// Opens files in Chromium, and tells what came of it.
//
//   node download.mjs JOB
//
// JOB is JSON: `authorization` goes with every request, `save` are URLs of files that are to be saved, `show` of files that
// are to be shown. One line of JSON comes out.

import { readFile } from 'node:fs/promises'
import { chromium } from 'playwright-core'

const job = JSON.parse(process.argv[2])
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
})
try {
  const context = await browser.newContext({ extraHTTPHeaders: { authorization: job.authorization } })
  const page = await context.newPage()
  const saved = []
  for (const url of job.save) {
    // A page that becomes a download is not gone to, which Playwright reports as a failure.
    const [download] = await Promise.all([page.waitForEvent('download'), page.goto(url).catch(() => {})])
    const bytes = await readFile(await download.path(), 'utf8')
    saved.push({ name: download.suggestedFilename(), bytes })
  }
  const shown = []
  for (const url of job.show) {
    await page.goto(url)
    shown.push({ url: page.url(), text: await page.evaluate(() => document.body.innerText) })
  }
  process.stdout.write(`${JSON.stringify({ saved, shown })}\n`)
} finally {
  await browser.close()
}
