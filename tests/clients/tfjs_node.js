/**
 * Finds objects with plain TensorFlow.js in Node, on its backend in JavaScript:
 * `node tfjs_node.js FOLDER PHOTO ...`, a line of JSON each.
 *
 * FOLDER is the address of model_web. A photo is a file of RGB bytes whose name ends in -WIDTHxHEIGHT.rgb.
 */
const fs = require('fs')
const tf = require('@tensorflow/tfjs')
const { detect } = require('./tfjs_detect.js')

async function main(folder, photos) {
  await tf.setBackend('cpu')
  const model = await tf.loadGraphModel(`${folder}/model.json`)
  const labels = await (await fetch(`${folder}/labels.json`)).json()
  for (const path of photos) {
    const [, width, height] = path.match(/-(\d+)x(\d+)\.rgb$/).map(Number)
    const photo = tf.tensor3d(new Uint8Array(fs.readFileSync(path)), [height, width, 3], 'int32')
    console.log(JSON.stringify(await detect(tf, model, labels, photo)))
  }
}

main(process.argv[2], process.argv.slice(3))
