/* What is selected, the player, the pointer and the keys. `document.body.dataset` has the state, for tests too. */

const find = (id) => document.getElementById(id);
const data = JSON.parse(find("data").textContent);
const audio = new Audio();
const state = {place: 0, layer: data.layers.length - 1, now: 0, view: {start: 0, end: 1}, stops: {}, pair: null};
let shown = null; // the utterance: its record, its arrays, its pictures
let tracks = [];
const isDark = () => document.documentElement.dataset.theme === "dark";
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name);

function make(tag, options = {}, ...children) {
  const element = Object.assign(document.createElement(tag), options);
  element.append(...children);
  return element;
}

// Utterances ----------------------------------------------------------------------------------------------------------

async function open(place) {
  state.place = clamp(place, 0, data.utterances.length - 1);
  const record = data.utterances[state.place];
  delete document.body.dataset.utterance;
  audio.pause();
  for (const [i, item] of [...find("list").children].entries()) {
    item.firstChild.toggleAttribute("aria-current", i === state.place);
    if (i === state.place) item.scrollIntoView({block: "nearest", inline: "nearest"});
  }
  const arrays = await unpack(record.index, record.data);
  if (data.utterances[state.place] !== record) return; // another one was asked for in the meantime
  if (shown) URL.revokeObjectURL(audio.src);
  shown = {record, arrays, pictures: {}};
  find("trouble").hidden = true;
  audio.src = URL.createObjectURL(new Blob([bytesOf(record.audio[1])], {type: record.audio[0]}));
  audio.playbackRate = speeds[speed];
  find("name").textContent = record.name;
  state.pair = null;
  state.view = {start: 0, end: record.seconds};
  layOut();
  showFacts();
  seek(0);
  document.body.dataset.utterance = record.name;
}

function showFacts() {
  const {record} = shown;
  const facts = [["utterance", record.name], ["duration", record.seconds.toFixed(2) + " s"], ["frames", record.frames],
    ["layers", data.layers.length], ["upstream", data.upstream], ["options", data.options], ["note", data.note]];
  find("facts").replaceChildren(...facts.filter(([, value]) => value !== "").flatMap(([name, value]) =>
    [make("dt", {textContent: name}), make("dd", {textContent: value})]));
}

// Time ----------------------------------------------------------------------------------------------------------------

const speeds = [1, 0.75, 0.5, 0.25];
let speed = 0;

function seek(time) {
  state.now = clamp(time, 0, shown.record.seconds);
  if (audio.readyState > 0) audio.currentTime = state.now;
  showMoment();
}

function showMoment() {
  const {view, now} = state, width = view.end - view.start;
  if (now < view.start || now > view.end) moveView(now < view.start && !audio.paused ? now : now - width * (audio.paused ? 0.5 : 0.05));
  const like = tracks.at(-1);
  like.paint(surface(like.canvas, like.height, state.view));
  drawMatrix();
  movePlayhead();
  const {record, arrays} = shown;
  const at = placeAt(arrays.edges.values, now);
  const parts = [at < 0 ? "" : `frame ${Math.floor((at * record.frames) / (arrays.edges.values.length - 1)) + 1} of ${record.frames}`];
  record.units.forEach(({label}, i) => {
    const unit = placeAt(arrays["unit_edges_" + i].values, now);
    if (unit >= 0) parts.push(`${record.units.length > 1 ? label : "unit"} ${arrays["units_" + i].values[unit]}`);
  });
  tracks.forEach((track) => track.span && parts.push(track.span()));
  find("readout").textContent = parts.filter(Boolean).join(" · ");
  find("clock").textContent = `${now.toFixed(2)} / ${record.seconds.toFixed(2)} s`;
  Object.assign(document.body.dataset, {time: now.toFixed(3), layer: data.layers[state.layer], playing: String(!audio.paused)});
}

function movePlayhead() {
  const {canvas} = tracks[0], {view, now} = state;
  const share = (now - view.start) / (view.end - view.start);
  find("playhead").hidden = share < 0 || share > 1;
  find("playhead").style.transform = `translateX(${canvas.offsetLeft + share * canvas.clientWidth}px)`;
}

function moveView(start, width = state.view.end - state.view.start) {
  const {seconds} = shown.record;
  const span = clamp(width, Math.min(0.1, seconds), seconds);
  const from = clamp(start, 0, seconds - span);
  state.view = {start: from, end: from + span};
  document.body.dataset.view = `${from.toFixed(3)} ${(from + span).toFixed(3)}`;
  draw();
}

/** Shows `factor` times as much, with the given moment where it is. */
function zoom(factor, moment = state.now) {
  const {start, end} = state.view, width = (end - start) * factor;
  moveView(moment - ((moment - start) / (end - start)) * width, width);
}

function setLayer(layer) {
  state.layer = clamp(layer, 0, data.layers.length - 1);
  find("layer").selectedIndex = state.layer;
  draw();
  showMoment();
}

function togglePlay() {
  if (!audio.paused) {
    audio.pause();
    return;
  }
  if (state.now >= shown.record.seconds - 0.01) seek(0);
  audio.play().catch((error) => error.name === "AbortError" || sayMute(error)); // aborted: paused before it began
}

function sayTrouble(text) {
  find("trouble").textContent = text;
  find("trouble").hidden = false;
}

function sayMute(error) {
  sayTrouble(`This browser does not play the sound (${shown.record.audio[0]}): ${error.message}`);
}

function follow() {
  if (audio.paused) return;
  state.now = clamp(audio.currentTime, 0, shown.record.seconds);
  showMoment();
  requestAnimationFrame(follow);
}

function showPlaying() {
  find("play").textContent = audio.paused ? "▶" : "❚❚";
  find("play").setAttribute("aria-label", audio.paused ? "play" : "pause");
  document.body.dataset.playing = String(!audio.paused);
}

audio.addEventListener("play", () => (showPlaying(), follow()));
audio.addEventListener("pause", () => (showPlaying(), showMoment()));
audio.addEventListener("loadedmetadata", () => (audio.currentTime = state.now));
audio.addEventListener("ended", () => seek(shown.record.seconds));
audio.addEventListener("error", () => sayMute(audio.error));

// Pointer and keys ----------------------------------------------------------------------------------------------------

const momentAt = (event) => {
  const box = tracks[0].canvas.getBoundingClientRect();
  return state.view.start + ((event.clientX - box.left) / box.width) * (state.view.end - state.view.start);
};
const fingers = new Map();
const spread = () => Math.abs([...fingers.values()].reduce((a, b) => a - b));

find("tracks").addEventListener("pointerdown", (event) => {
  const track = tracks.find(({canvas}) => canvas === event.target);
  if (!track || event.button) return;
  event.preventDefault();
  event.target.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, event.clientX);
  const box = track.canvas.getBoundingClientRect();
  if (track.pressed && fingers.size === 1) track.pressed((event.clientY - box.top) / box.height);
  if (fingers.size === 1) seek(momentAt(event));
});
find("tracks").addEventListener("pointermove", (event) => {
  if (!fingers.has(event.pointerId)) return;
  const before = fingers.size === 2 ? spread() : 0;
  fingers.set(event.pointerId, event.clientX);
  if (fingers.size === 1) seek(momentAt(event));
  else if (fingers.size === 2 && spread() > 10) zoom(before / spread());
});
for (const kind of ["pointerup", "pointercancel"]) find("tracks").addEventListener(kind, (event) => fingers.delete(event.pointerId));
find("tracks").addEventListener("wheel", (event) => {
  if (event.ctrlKey) zoom(Math.exp(event.deltaY / 200), momentAt(event));
  else if (event.deltaX) moveView(state.view.start + (event.deltaX / 1000) * (state.view.end - state.view.start));
  if (event.ctrlKey || event.deltaX) event.preventDefault();
}, {passive: false});

const slide = (by) => tracks.forEach((track) => track.slide && track.slide(by));
const keys = {
  " ": togglePlay, "[": () => setLayer(state.layer - 1), "]": () => setLayer(state.layer + 1),
  n: () => open(state.place + 1), p: () => open(state.place - 1), ",": () => slide(-1), ".": () => slide(1),
  "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => moveView(0, Infinity),
  Home: () => seek(0), End: () => seek(shown.record.seconds), s: changeSpeed, d: changeTheme, "?": toggleHelp,
};
const moves = {ArrowLeft: -0.1, ArrowRight: 0.1};

document.addEventListener("keydown", (event) => {
  // On many keyboards [ and ] need AltGr, which counts as ctrl and alt, or alt.
  const held = event.metaKey || (event.ctrlKey && !event.getModifierState("AltGraph")) || (event.altKey && event.key in moves);
  if (!shown || held || (find("help").open && event.key !== "?")) return;
  const {tagName} = event.target;
  if (tagName === "BUTTON" && event.key === " ") return; // it presses the button that was reached by keys
  if (event.key in moves && tagName !== "INPUT" && tagName !== "SELECT") seek(state.now + moves[event.key] * (event.shiftKey ? 10 : 1));
  else if (event.key in keys && tagName !== "SELECT") keys[event.key]();
  else return;
  event.preventDefault();
});

// What was pressed by a pointer does not keep the keys for itself.
document.addEventListener("click", (event) => event.detail && event.target.closest("button")?.blur());

function changeSpeed() {
  speed = (speed + 1) % speeds.length;
  audio.playbackRate = speeds[speed];
  find("speed").textContent = speeds[speed] + "×";
}

function changeTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  draw();
}

function toggleHelp() {
  if (find("help").open) find("help").close();
  else find("help").showModal();
}

for (const [id, pressed] of Object.entries({
  play: togglePlay, speed: changeSpeed, theme: changeTheme, "help-button": toggleHelp,
  in: () => zoom(0.5), out: () => zoom(2), whole: () => moveView(0, Infinity),
})) {
  find(id).addEventListener("click", pressed);
}

document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
find("upstream").textContent = data.upstream;
find("source").textContent = data.source;
find("list").append(...data.utterances.map((record, place) => {
  const chosen = make("button", {}, make("span", {textContent: record.name}), make("small", {textContent: record.seconds.toFixed(1) + " s"}));
  chosen.addEventListener("click", () => open(place));
  return make("li", {}, chosen);
}));
if ("DecompressionStream" in window) {
  new ResizeObserver(draw).observe(find("tracks"));
  open(0);
} else {
  sayTrouble("This browser is too old for this page. Browsers since 2023 show it.");
}
