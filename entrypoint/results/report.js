/*
 * The script of report.html: sortable tables, and the validation photos with a threshold and filters.
 *
 * It does not match boxes. A detection is matched only after those with higher scores, so neither its kind nor the true
 * box that it is about depends on the threshold. Texts from outside become text nodes or attributes, never markup.
 */
'use strict'

// In the order of KINDS in analysis/matching.py.
const KINDS = ['right', 'poor_box', 'wrong_label', 'duplicate', 'ghost', 'both']
const UNIT = 10000
const SVG = 'http://www.w3.org/2000/svg'
// A kind, its words in the counts, for one and for several, and its word on a photo.
const WORDS = {
  right: ['right', 'right', ''],
  missed: ['missed', 'missed', 'missed'],
  ghost: ['without an object', 'without an object', 'no object'],
  wrong_label: ['with a wrong label', 'with a wrong label', 'wrong label'],
  poor_box: ['that fits poorly', 'that fit poorly', 'poor box'],
  both: ['with both errors', 'with both errors', 'poor box, wrong label'],
  duplicate: ['duplicate', 'duplicates', 'duplicate'],
}

/** Returns a score with two decimals, or with one digit if it is very low. */
function inDigits(score) {
  return score < 0.01 ? String(Number(score.toPrecision(1))) : score.toFixed(2)
}

/** Returns a photo with names for what the page's data has in rows. */
function toPhoto([key, width, height, true_, found, source]) {
  return {
    key,
    width,
    height,
    source,
    true: true_.map(([label, ...box]) => ({ label, box })),
    found: found.map(([label, score, kind, about, ...box]) => ({ label, score, kind: KINDS[kind], about, box })),
  }
}

/** Returns what is on a photo at a threshold: [kind, label, box or detection] of each detection and each missed box. */
function judge(photo, threshold) {
  const shown = photo.found.filter((each) => each.score >= threshold)
  const covered = new Set(shown.map((each) => each.about))
  const missed = photo.true.filter((_, index) => !covered.has(index))
  return [
    ...shown.map((each) => [each.kind, each.label, each]),
    ...missed.map((each) => ['missed', each.label, each]),
  ]
}

/** Returns how often each kind occurs; `label` is an index, or -1 for all labels. */
function count(judged, label = -1) {
  const counts = Object.fromEntries(Object.keys(WORDS).map((kind) => [kind, 0]))
  for (const [kind, one] of judged) if (label < 0 || label === one) counts[kind] += 1
  return counts
}

/** Returns whether a photo passes the filters; `kind` is a kind, or `any`, `error` or `none`. */
function passes(photo, judged, kind, label) {
  const ours = judged.filter(([, one]) => label < 0 || label === one)
  const isError = ([each]) => each !== 'right'
  if (kind === 'error') return ours.some(isError)
  if (kind === 'none') return (label < 0 || ours.length > 0) && !ours.some(isError)
  if (kind !== 'any') return ours.some(([each]) => each === kind)
  return label < 0 || ours.length > 0 || photo.true.some((each) => each.label === label)
}

/** Returns counts in words: `35 right, 2 missed`. */
function inWords(counts) {
  const parts = Object.keys(WORDS).filter((kind) => counts[kind] || kind === 'right' || kind === 'missed')
  return parts.map((kind) => `${counts[kind]} ${WORDS[kind][counts[kind] === 1 ? 0 : 1]}`).join(', ')
}

/** Returns a new element of SVG with these attributes. */
function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
  if (text !== undefined) element.textContent = text
  return element
}

/** Draws the boxes of a photo: true boxes dashed, detections solid, with label, score and error. */
function draw(svg, photo, judged, data) {
  for (const old of svg.querySelectorAll('.box')) old.remove()
  const unit = Math.max(photo.width, photo.height) / 100
  const place = (box) => ({
    x: (box[0] * photo.width) / UNIT,
    y: (box[1] * photo.height) / UNIT,
    width: (box[2] * photo.width) / UNIT,
    height: (box[3] * photo.height) / UNIT,
  })
  const frame = (box, colour, width, dash) =>
    shape('rect', { ...place(box), class: 'box', fill: 'none', stroke: colour, 'stroke-width': unit * width, ...dash })
  const write = (box, colour, text, below) => {
    const { x, y, width, height } = place(box)
    // Letters are about 0.6 of the font's size wide. A text that would leave the photo ends at the right side of its box.
    const isCut = x + text.length * unit * 2.6 > photo.width
    const at = isCut ? { x: x + width - unit, 'text-anchor': 'end' } : { x: x + unit }
    const style = { 'font-size': unit * 4.4, 'stroke-width': unit * 0.9, 'paint-order': 'stroke' }
    const font = { ...style, fill: '#fff', stroke: colour, 'font-family': 'sans-serif', class: 'box' }
    return shape('text', { ...at, y: below ? y + height - unit : y + unit * 4.6, ...font }, text)
  }
  const group = document.createDocumentFragment()
  for (const [kind, label, each] of judged) {
    if (kind === 'missed') {
      group.append(write(each.box, '#000', `${data.labels[label]}: missed`, true))
    } else {
      const error = WORDS[kind][2]
      const text = `${data.labels[label]} ${inDigits(each.score)}${error ? `: ${error}` : ''}`
      group.append(frame(each.box, data.colours[label], 1.1, {}), write(each.box, data.colours[label], text, false))
    }
  }
  for (const { box } of photo.true) group.append(frame(box, '#fff', 0.6, { 'stroke-dasharray': unit * 2 }))
  svg.append(group)
}

/** Returns the card of a photo, still without its picture. */
function makeCard(photo) {
  const figure = document.createElement('figure')
  const svg = shape('svg', { viewBox: `0 0 ${photo.width} ${photo.height}`, role: 'img' })
  svg.style.aspectRatio = `${photo.width} / ${photo.height}`
  const caption = document.createElement('figcaption')
  figure.append(svg, caption)
  return { photo, figure, svg, caption, judged: [], isFilled: false, isFresh: false }
}

/** Puts picture and boxes into a card, if it has not the present ones. */
function fill(card, data) {
  if (!card.isFilled) {
    const { width, height, source } = card.photo
    if (source) card.svg.prepend(shape('image', { href: source, width, height, preserveAspectRatio: 'none' }))
    card.isFilled = true
  }
  if (!card.isFresh) draw(card.svg, card.photo, card.judged, data)
  card.isFresh = true
}

/** Starts the part of the page with the validation photos. */
function startPhotos(data) {
  const [slider, output, kind, label, summary, reset] = ['score', 'score-shown', 'kind', 'label', 'counts', 'reset'].map(
    (id) => document.getElementById(id)
  )
  let threshold = data.threshold
  const photos = document.getElementById('photos')
  const cards = data.photos.map((each) => makeCard(toPhoto(each)))
  const byFigure = new Map(cards.map((card) => [card.figure, card]))
  const near = new Set()
  const observer = new IntersectionObserver(
    (changes) => {
      for (const { target, isIntersecting } of changes) {
        near[isIntersecting ? 'add' : 'delete'](target)
        if (isIntersecting) fill(byFigure.get(target), data)
      }
    },
    { rootMargin: '400px' }
  )
  data.labels.forEach((name, index) => label.add(new Option(name, index)))
  photos.replaceChildren(...cards.map((card) => card.figure))
  for (const card of cards) observer.observe(card.figure)

  const update = () => {
    const chosen = Number(label.value)
    const total = count([])
    let shown = 0
    for (const card of cards) {
      card.judged = judge(card.photo, threshold)
      card.isFresh = false
      const counts = count(card.judged, chosen)
      const isShown = passes(card.photo, card.judged, kind.value, chosen)
      if (card.figure.hidden === isShown) card.figure.hidden = !isShown
      if (isShown) shown += 1
      for (const name of Object.keys(total)) total[name] += counts[name]
      const text = `${card.photo.key}: ${inWords(counts)}`
      if (card.caption.textContent !== text) {
        card.caption.textContent = text
        card.svg.setAttribute('aria-label', text)
      }
    }
    for (const figure of near) if (!figure.hidden) fill(byFigure.get(figure), data)
    output.textContent = inDigits(threshold)
    summary.textContent = `${inWords(total)}. ${shown} of ${cards.length} photos are shown.`
    summary.dataset.counts = JSON.stringify(total)
  }
  let isWaiting = false
  const later = () => {
    if (isWaiting) return
    isWaiting = true
    requestAnimationFrame(() => {
      isWaiting = false
      update()
    })
  }
  slider.addEventListener('input', () => {
    threshold = slider.valueAsNumber
    later()
  })
  for (const each of [kind, label]) each.addEventListener('change', later)
  reset.addEventListener('click', () => {
    threshold = data.threshold
    slider.valueAsNumber = threshold
    later()
  })
  // Paper shows the first photos alone, and these must be there.
  addEventListener('beforeprint', () => cards.slice(0, 12).forEach((card) => fill(card, data)))
  slider.min = data.lowest
  slider.valueAsNumber = threshold
  document.getElementById('controls').hidden = false
  update()
}

/** Makes the headers of a table buttons that sort its rows: numbers with the highest first, texts by the alphabet. */
function makeSortable(table) {
  const body = table.tBodies[0]
  const headers = [...table.tHead.rows[0].cells]
  headers.forEach((header, column) => {
    const button = document.createElement('button')
    button.type = 'button'
    button.textContent = header.textContent
    header.replaceChildren(button)
    button.addEventListener('click', () => {
      const isNumber = header.classList.contains('number')
      const first = isNumber ? 'descending' : 'ascending'
      const order = header.getAttribute('aria-sort') !== first ? first : isNumber ? 'ascending' : 'descending'
      for (const other of headers) other.removeAttribute('aria-sort')
      header.setAttribute('aria-sort', order)
      const sign = order === 'ascending' ? 1 : -1
      const text = (row) => row.cells[column].textContent.trim()
      // A value that is not defined is a dash, and comes last in both orders.
      const compare = (one, other) => {
        if (!isNumber) return sign * text(one).localeCompare(text(other), undefined, { numeric: true })
        const [a, b] = [one, other].map((row) => parseFloat(text(row)))
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b)
        return sign * (a - b)
      }
      body.append(...[...body.rows].sort(compare))
    })
  })
}

document.querySelectorAll('table.sortable').forEach(makeSortable)
const found = document.getElementById('data')
if (found) startPhotos(JSON.parse(found.textContent))
