/** Finds objects with plain TensorFlow.js, in a browser and in Node, as docs/results.md shows. */

/** Returns [label, score, ymin, xmin, ymax, xmax] of each object; corners are fractions of the photo. */
async function detect(tf, model, labels, photo) {
  const [scores, boxes] = await model.executeAsync(photo.expandDims(0))
  const every = scores.squeeze([0])
  const best = every.max(1)
  const corners = boxes.squeeze([0, 2])
  const kept = await tf.image.nonMaxSuppressionAsync(corners, best, 20, 0.5, 0.3)
  const [indexes, classes, values, sides] = await Promise.all(
    [kept, every.argMax(1), best, corners].map((tensor) => tensor.array())
  )
  return indexes.map((index) => [labels[classes[index]], values[index], ...sides[index]])
}

if (typeof module !== 'undefined') module.exports = { detect }
