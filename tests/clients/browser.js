/**
 * Opens a page in headless Chromium and calls its function `find` for each photo:
 * `node browser.js CHROMIUM PAGE PHOTO ...`, a line of JSON each. PAGE and the photos are addresses.
 */
const { chromium } = require('playwright-core')

async function main(program, address, photos) {
  // Root starts Chromium only without its sandbox. SwiftShader is WebGL without a graphics card.
  const args = ['--no-sandbox', '--enable-unsafe-swiftshader', '--use-angle=swiftshader']
  const browser = await chromium.launch({ executablePath: program, args })
  try {
    const page = await browser.newPage()
    page.on('pageerror', (error) => console.error(error.stack))
    page.on('console', (message) => console.error(message.text()))
    await page.goto(address)
    for (const photo of photos) {
      console.log(JSON.stringify(await page.evaluate((each) => window.find(each), photo)))
    }
  } finally {
    await browser.close()
  }
}

main(...process.argv.slice(2, 4), process.argv.slice(4))
