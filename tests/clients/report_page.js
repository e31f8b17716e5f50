/**
 * Opens a page in headless Chromium and prints what it does, as one document of JSON:
 * `node report_page.js CHROMIUM PAGE SCORES [FOLDER]`. SCORES are thresholds for the controls of report.html, divided by
 * commas; without them a page is only looked at. FOLDER gets screenshots.
 */
const { readFileSync } = require('fs')
const { pathToFileURL } = require('url')
const { chromium } = require('playwright-core')

const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')
const WIDTHS = [390, 820, 1280]

/** Returns the problems of the page at a width, in light or dark mode. */
async function inspect(browser, address, width, colorScheme, folder) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, reducedMotion: 'reduce' })
  const page = await context.newPage()
  const complaints = []
  const requests = []
  page.on('pageerror', (error) => complaints.push(String(error.stack)))
  page.on('console', (message) => complaints.push(message.text()))
  page.on('request', (request) => {
    if (!request.url().startsWith('data:') && request.url() !== address) requests.push(request.url())
  })
  await page.goto(address)
  await page.waitForTimeout(300)
  for (const part of ['', '#validation']) {
    if (folder && part) await page.locator(part).scrollIntoViewIfNeeded()
    if (folder && part) await page.evaluate((id) => document.querySelector(id).scrollIntoView(), part)
    if (folder) await page.waitForTimeout(500)
    if (folder) await page.screenshot({ path: `${folder}/${width}-${colorScheme}${part.replace('#', '-')}.png` })
  }
  if (folder) await page.screenshot({ path: `${folder}/${width}-${colorScheme}-whole.png`, fullPage: true })
  await page.evaluate(() => document.querySelectorAll('details').forEach((each) => (each.open = true)))
  await page.evaluate(AXE)
  const { violations } = await page.evaluate(() => window.axe.run())
  const tooWide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.length}, ${nodes[0].html.slice(0, 200)} ${nodes[0].failureSummary}`)
  await context.close()
  return { width, colorScheme, complaints, requests, violations: found, tooWide }
}

/** Returns the names of the parts of the page that are wider than a sheet of A4 with margins of a centimetre. */
async function print(browser, address, folder) {
  const page = await browser.newPage({ viewport: { width: 718, height: 1047 } })
  await page.goto(address)
  await page.emulateMedia({ media: 'print' })
  await page.evaluate(() => dispatchEvent(new Event('beforeprint')))
  await page.waitForTimeout(300)
  if (folder) await page.screenshot({ path: `${folder}/paper.png`, fullPage: true })
  const tooWide = await page.evaluate(() =>
    [document.documentElement, ...document.querySelectorAll('.panel')]
      .filter((each) => each.scrollWidth > each.clientWidth)
      .map((each) => each.getAttribute('aria-label') || each.textContent.trim().slice(0, 40))
  )
  await page.close()
  return tooWide
}

/** Returns what threshold, filters and sorting do. */
async function use(browser, address, scores) {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } })
  await page.goto(address)
  await page.locator('#controls').scrollIntoViewIfNeeded()
  await page.evaluate(() => document.querySelector('#validation').scrollIntoView())
  await page.waitForTimeout(300)
  const read = async () => ({
    counts: JSON.parse(await page.locator('#counts').getAttribute('data-counts')),
    words: await page.locator('#counts').textContent(),
    shown: await page.locator('#photos figure:not([hidden]) figcaption').allTextContents(),
    boxes: await page.locator('#photos figure:not([hidden]) rect.box:not([stroke-dasharray])').count(),
  })
  const set = async (score) => {
    await page.locator('#score').evaluate((slider, value) => {
      slider.value = value
      slider.dispatchEvent(new Event('input', { bubbles: true }))
    }, score)
    await page.waitForTimeout(200)
  }
  const lowest = Number(await page.locator('#score').getAttribute('min'))
  const result = { lowest, first: await read(), scores: {}, kinds: {}, labels: {}, sorted: {} }
  for (const score of scores) {
    await set(score)
    result.scores[score] = await read()
  }
  for (const kind of await page.locator('#kind option').evaluateAll((all) => all.map((each) => each.value))) {
    await page.locator('#kind').selectOption(kind)
    await page.waitForTimeout(200)
    result.kinds[kind] = await read()
  }
  await page.locator('#kind').selectOption('any')
  for (const label of await page.locator('#label option').allTextContents()) {
    await page.locator('#label').selectOption({ label })
    await page.waitForTimeout(200)
    result.labels[label] = await read()
  }
  await page.locator('#label').selectOption('-1')
  await page.locator('#score').focus()
  await page.keyboard.press('ArrowLeft')
  await page.waitForTimeout(200)
  result.byKey = await page.locator('#score-shown').textContent()
  await page.getByRole('button', { name: 'Use the recommended score' }).press('Enter')
  await page.waitForTimeout(200)
  result.reset = await read()
  for (const name of ['AP', 'Label']) {
    const header = page.locator('table.sortable thead th').filter({ hasText: new RegExp(`^${name}$`) })
    for (const press of ['Enter', 'Space']) {
      await header.getByRole('button').press(press)
      const rows = await page.locator('table.sortable tbody tr').evaluateAll((all) =>
        all.map((row) => [...row.cells].map((cell) => cell.textContent.trim()))
      )
      const order = await header.getAttribute('aria-sort')
      result.sorted[`${name} ${order}`] = rows
    }
  }
  await page.close()
  return result
}

async function main(program, path, scores, folder) {
  // Root starts Chromium only without its sandbox.
  const browser = await chromium.launch({ executablePath: program, args: ['--no-sandbox'] })
  const address = String(pathToFileURL(path))
  try {
    const looks = []
    for (const width of WIDTHS) {
      for (const scheme of ['light', 'dark']) looks.push(await inspect(browser, address, width, scheme, folder))
    }
    const used = scores ? await use(browser, address, scores.split(',').map(Number)) : null
    console.log(JSON.stringify({ looks, used, tooWideForPaper: await print(browser, address, folder) }))
  } finally {
    await browser.close()
  }
}

main(...process.argv.slice(2))
