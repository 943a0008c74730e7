/* The pictures above each other (tracks) and the square of similarities, of the utterance and the layer that page.js chose. */

// Tracks --------------------------------------------------------------------------------------------------------------

function addTrack(label, note, height, paint, pressed) {
  const canvas = make("canvas", {});
  canvas.setAttribute("aria-label", label);
  const small = make("small", {textContent: note});
  find("tracks").append(make("div", {className: "track"}, make("div", {className: "label"}, label, small), canvas));
  tracks.push({canvas, height, paint, pressed, small});
}

function addControls(...children) {
  find("tracks").append(make("div", {className: "controls"}, make("span"), make("div", {}, ...children)));
}

/** A picture that is made once for an utterance. */
function kept(key, build) {
  return (shown.pictures[key] ||= build());
}

function layOut() {
  const {record, arrays} = shown;
  find("tracks").replaceChildren(find("playhead"));
  tracks = [];
  addTrack("time", "", 20, (s) => drawTicks(s, state.view, colour("soft")));
  addTrack("waveform", "", 76, (s) => drawWave(s, arrays.outline, record.seconds, colour("wave"), state.view));
  addTrack("log-mel", "20 Hz to 8 kHz, 70 dB", 130, (s) => {
    drawColumns(s, kept("mel", () => image("mel", MAGMA)), arrays.mel_edges.values);
    drawHertz(s);
  });
  record.units.forEach(({label}, i) => addTrack("units", label, 26, (s) =>
    drawUnits(s, arrays["units_" + i].values, arrays["unit_edges_" + i].values, isDark())));
  record.panels.forEach(addPanel);
  const choice = make("select", {id: "layer", title: "layer ([ and ])"}, ...data.layers.map((name) => make("option", {textContent: name})));
  choice.selectedIndex = state.layer;
  choice.addEventListener("change", () => (setLayer(choice.selectedIndex), choice.blur()));
  addControls(make("b", {textContent: "Layer"}), button("lower", "−", "layer below", () => setLayer(state.layer - 1)), choice,
    button("upper", "+", "layer above", () => setLayer(state.layer + 1)));
  const count = data.layers.length;
  const rowHeight = clamp(Math.round(150 / count), 7, 18);
  if (count > 1) {
    addTrack("norms", "every layer, lowest below, each from its least to its greatest", rowHeight * count, drawNorms,
      (share) => setLayer(count - 1 - Math.floor(share * count)));
  }
  addTrack("norm", "", 60, (s) => {
    const [low, high] = record.norms[state.layer];
    drawSteps(s, row(arrays.norms, state.layer), arrays.edges.values, colour("accent"), null);
    tracks.find((track) => track.canvas === s.c.canvas).small.textContent =
      `of each frame in ${data.layers[state.layer]}, ${low.toPrecision(3)} to ${high.toPrecision(3)}`;
  });
  addTrack("like now", "similarity of each frame to the one at the playhead", 22, drawLikeNow);
  draw();
}

function button(id, text, title, pressed) {
  const made = make("button", {id, textContent: text, title});
  made.setAttribute("aria-label", title);
  made.addEventListener("click", pressed);
  return made;
}

/** Row `index` of an array of two dimensions. */
function row({values, shape}, index) {
  return values.subarray(index * shape[1], (index + 1) * shape[1]);
}

/** A picture of an array (columns, rows). */
function image(name, colours) {
  const {values, shape: [columns, rows]} = shown.arrays[name];
  return picture(columns, rows, colours, (column, place) => values[column * rows + place]);
}

function drawNorms(s) {
  const {values, shape: [count, columns]} = shown.arrays.norms;
  drawColumns(s, kept("norms", () => picture(columns, count, VIRIDIS, (column, place) => values[place * columns + column])), shown.arrays.edges.values);
  const height = s.height / count;
  s.c.strokeStyle = colour("head");
  s.c.lineWidth = 2;
  s.c.strokeRect(1, s.height - (state.layer + 1) * height + 1, s.width - 2, height - 2);
}

function drawLikeNow(s) {
  const {values, edges, side} = matrix();
  const here = placeAt(edges, state.now);
  if (here < 0) return;
  const colours = DIVERGING[isDark() ? "dark" : "light"];
  drawColumns(s, picture(side, 1, colours, (column) => values[here * side + column]), edges);
}

function addPanel(panel, place) {
  const key = "panel_" + place;
  const values = shown.arrays[key].values, edges = (shown.arrays[key + "_edges"] || {}).values;
  if (panel.kind === "steps") {
    addTrack(panel.label, `${panel.legend}; mean ${panel.mean.toFixed(3)}, from 0 to 1`, 56, (s) =>
      drawSteps(s, values, edges, colour("band-2"), colour("band")));
  } else if (panel.kind === "heatmap") {
    addTrack(panel.label, "each dimension from its own mean, ±2.5 standard deviations", 120, (s) =>
      drawColumns(s, kept(key + isDark(), () => image(key, DIVERGING[isDark() ? "dark" : "light"])), edges));
  } else {
    addSpans(panel, place, values);
  }
}

/** Begin and end of frames; where there are several rows, a slider goes through them. */
function addSpans(panel, place, edges) {
  const told = make("output", {id: "told-" + place});
  const slider = make("input", {type: "range", id: "slider-" + place, min: 0, max: panel.rows.length - 1, step: 1});
  slider.setAttribute("aria-label", panel.label);
  const starts = [];
  panel.rows.reduce((at, {frames}) => (starts.push(at), at + frames + 1), 0);
  const set = (stop) => {
    const chosen = clamp(stop, 0, panel.rows.length - 1);
    state.stops[place] = chosen;
    slider.value = chosen;
    const {label, note} = panel.rows[chosen];
    told.textContent = [label, note].filter(Boolean).join(": ");
    slider.setAttribute("aria-valuetext", told.textContent);
    document.body.dataset.stop = label;
  };
  slider.addEventListener("input", () => {
    set(Number(slider.value));
    draw();
    showMoment();
  });
  set(state.stops[place] ?? panel.first);
  if (panel.rows.length > 1) addControls(slider, told);
  else addControls(told);
  addTrack(panel.label, "begin and end of each", 28, (s) =>
    drawBands(s, edges, starts[state.stops[place]], panel.rows[state.stops[place]].frames, [colour("band-2"), colour("band")]));
  tracks.at(-1).slide = (by) => {
    set(state.stops[place] + by);
    draw();
    showMoment();
  };
  tracks.at(-1).span = () => {
    const from = starts[state.stops[place]], count = panel.rows[state.stops[place]].frames;
    const at = placeAt(edges, state.now, from, from + count);
    return at < 0 ? "" : `segment ${at + 1} of ${count}: ${edges[from + at].toFixed(3)} to ${edges[from + at + 1].toFixed(3)} s`;
  };
}

function draw() {
  if (!shown) return;
  for (const track of tracks) track.paint(surface(track.canvas, track.height, state.view));
  drawMatrix();
  movePlayhead();
}

// The square ----------------------------------------------------------------------------------------------------------

/** The matrix of the layer, of which the page holds the half below the diagonal, row by row. */
function matrix() {
  const edges = shown.arrays.matrix_edges.values, side = edges.length - 1;
  const values = kept("matrix of " + state.layer, () => {
    const half = row(shown.arrays.matrices, state.layer), whole = new Uint8Array(side * side);
    for (let i = 0, at = 0; i < side; i++) {
      for (let j = 0; j <= i; j++, at++) whole[i * side + j] = whole[j * side + i] = half[at];
    }
    return whole;
  });
  return {values, edges, side};
}

function drawMatrix() {
  const {values, edges, side} = matrix();
  const canvas = find("matrix");
  const colours = DIVERGING[isDark() ? "dark" : "light"];
  const made = kept(`matrix ${state.layer} ${isDark()}`, () => picture(side, side, colours, (column, place) => values[place * side + column]));
  const s = surface(canvas, canvas.clientWidth, {start: 0, end: 1});
  s.c.imageSmoothingEnabled = false;
  s.c.drawImage(made, 0, 0, s.width, s.height);
  const here = placeAt(edges, state.now);
  if (here >= 0) {
    s.c.fillStyle = colour("ink");
    s.c.fillRect(((here + 0.5) / side) * s.width - 0.5, 0, 1, s.height);
    s.c.fillRect(0, (1 - (here + 0.5) / side) * s.height - 0.5, s.width, 1);
  }
  find("layer-name").textContent = data.layers[state.layer];
  const scale = find("scale").getContext("2d");
  scale.drawImage(picture(256, 1, colours, (column) => column), 0, 0);
  const [one, other] = state.pair || [here, here];
  const time = (place) => ((edges[place] + edges[place + 1]) / 2).toFixed(2);
  find("pair").textContent = one < 0 ? "" : `${time(one)} s and ${time(other)} s: ${((values[other * side + one] / 255) * 2 - 1).toFixed(2)}`;
}

function pairAt(event) {
  const box = find("matrix").getBoundingClientRect(), side = matrix().side;
  const place = (share) => clamp(Math.floor(share * side), 0, side - 1);
  return [place((event.clientX - box.left) / box.width), place(1 - (event.clientY - box.top) / box.height)];
}

find("matrix").addEventListener("pointermove", (event) => {
  state.pair = pairAt(event);
  drawMatrix();
});
find("matrix").addEventListener("pointerleave", () => {
  state.pair = null;
  drawMatrix();
});
find("matrix").addEventListener("click", (event) => {
  const [place] = pairAt(event), {edges} = matrix();
  seek((edges[place] + edges[place + 1]) / 2);
});

