/**
 * Prints the outputs of model_web in plain TensorFlow.js in Node: `node tfjs_outputs.js FOLDER PHOTO HEIGHT WIDTH`, a
 * line of JSON for scores and one for boxes, each a flat list.
 *
 * FOLDER is the address of model_web. PHOTO is a file of RGB bytes.
 */
const fs = require('fs')
const tf = require('@tensorflow/tfjs')

async function main(folder, path, height, width) {
  await tf.setBackend('cpu')
  const model = await tf.loadGraphModel(`${folder}/model.json`)
  const photo = tf.tensor4d(new Uint8Array(fs.readFileSync(path)), [1, +height, +width, 3], 'int32')
  for (const tensor of await model.executeAsync(photo)) {
    console.log(JSON.stringify(Array.from(await tensor.data())))
  }
}

main(...process.argv.slice(2))
