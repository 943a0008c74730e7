"use strict";
/* Arrays out of the page, and pictures of them. Nothing here knows what is selected: page.js does. */

/** The named arrays of one utterance: {name: {values, shape}}. */
async function unpack(index, text) {
  const bytes = bytesOf(text);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const kinds = {Float32Array, Int8Array, Uint8Array, Uint16Array};
  const arrays = {};
  let at = 0;
  for (const [name, kind, shape] of index) {
    const values = new kinds[kind](buffer, at, shape.reduce((a, b) => a * b, 1));
    arrays[name] = {values, shape};
    at += Math.ceil(values.byteLength / 4) * 4;
  }
  return arrays;
}

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** 256 colours between the given ones, as [red, green, blue]. */
function ramp(...stops) {
  const colours = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  return Array.from({length: 256}, (_, i) => {
    const place = (i / 255) * (colours.length - 1);
    const low = Math.min(Math.floor(place), colours.length - 2);
    return colours[low].map((value, c) => Math.round(value + (colours[low + 1][c] - value) * (place - low)));
  });
}

const MAGMA = ramp("#000004", "#1c1044", "#4f127b", "#812581", "#b5367a", "#e55964", "#fb8861", "#fec287", "#fcfdbf");
const VIRIDIS = ramp("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725");
const DIVERGING = {
  light: ramp("#2166ac", "#67a9cf", "#d1e5f0", "#f7f7f7", "#fddbc7", "#ef8a62", "#b2182b"),
  dark: ramp("#6fb7ff", "#3f7fc4", "#254a73", "#1b1d20", "#71352a", "#c25a3c", "#ff9b73"),
};

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** A canvas of `columns` x `rows` pixels; `level(column, row)` is a place of the ramp, row 0 at the bottom. */
function picture(columns, rows, colours, level) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let row = 0, at = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, at += 4) {
      const [red, green, blue] = colours[level(column, rows - 1 - row)];
      image.data[at] = red;
      image.data[at + 1] = green;
      image.data[at + 2] = blue;
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** The place i with edges[i] <= time < edges[i + 1], or -1. */
function placeAt(edges, time, from = 0, to = edges.length - 1) {
  if (!(time >= edges[from]) || time > edges[to]) return -1;
  let low = from, high = to - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (edges[middle] <= time) low = middle;
    else high = middle - 1;
  }
  return low - from;
}

/** A context whose unit is a CSS pixel, empty, and its size: {c, width, height, x: seconds -> pixels}. */
function surface(canvas, height, view) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.round(height * scale);
  canvas.style.height = height + "px";
  const c = canvas.getContext("2d");
  c.setTransform(scale, 0, 0, scale, 0, 0);
  return {c, width, height, x: (time) => ((time - view.start) / (view.end - view.start)) * width};
}

/** Columns of a picture at their times. */
function drawColumns({c, width, height, x}, image, edges) {
  c.imageSmoothingEnabled = false;
  for (let i = 0; i < image.width; i++) {
    const left = Math.round(x(edges[i]) * 4) / 4, right = Math.round(x(edges[i + 1]) * 4) / 4;
    if (right < 0 || left > width) continue;
    c.drawImage(image, i, 0, 1, image.height, left, 0, Math.max(right - left, 0.5) + 0.5, height);
  }
}

/** Lowest and highest sample of each pixel. */
function drawWave({c, width, height}, {values, shape: [columns]}, seconds, colour, view) {
  const place = (pixel) => clamp(Math.floor(((view.start + (pixel / width) * (view.end - view.start)) / seconds) * columns), 0, columns - 1);
  const y = (value) => height / 2 - (value / 127) * (height / 2 - 2);
  c.fillStyle = colour;
  for (let pixel = 0; pixel < width; pixel++) {
    let low = 127, high = -127;
    for (let i = place(pixel); i <= Math.max(place(pixel), place(pixel + 1) - 1); i++) {
      low = Math.min(low, values[2 * i]);
      high = Math.max(high, values[2 * i + 1]);
    }
    c.fillRect(pixel, y(high) - 0.5, 1, y(low) - y(high) + 1);
  }
}

/** Marks of the log-mel picture: 80 filters, evenly spaced on the mel scale from 20 Hz to 8 kHz. */
function drawHertz({c, height}) {
  const mel = (hertz) => 1127 * Math.log(1 + hertz / 700);
  c.font = "10px system-ui, sans-serif";
  c.textAlign = "left";
  c.textBaseline = "middle";
  for (const [hertz, text] of [[500, "0.5"], [1000, "1"], [2000, "2"], [4000, "4 kHz"]]) {
    const y = height * (1 - ((81 * (mel(hertz) - mel(20))) / (mel(8000) - mel(20)) - 0.5) / 80);
    c.fillStyle = "#000a";
    c.fillRect(0, y - 6, c.measureText(text).width + 12, 12);
    c.fillStyle = "#fff";
    c.fillRect(0, y, 5, 1);
    c.fillText(text, 8, y + 0.5);
  }
}

/** A curve of steps from 0 to 255. */
function drawSteps({c, height, x}, values, edges, stroke, fill) {
  const y = (value) => height - 2 - (value / 255) * (height - 4);
  c.beginPath();
  c.moveTo(x(edges[0]), height);
  for (let i = 0; i < values.length; i++) {
    c.lineTo(x(edges[i]), y(values[i]));
    c.lineTo(x(edges[i + 1]), y(values[i]));
  }
  c.lineTo(x(edges[values.length]), height);
  if (fill) {
    c.fillStyle = fill;
    c.fill();
  }
  c.strokeStyle = stroke;
  c.lineWidth = 1.2;
  c.stroke();
}

/** Bands that alternate in colour, from edge to edge. */
function drawBands({c, width, height, x}, edges, from, count, colours) {
  for (let i = 0; i < count; i++) {
    const left = x(edges[from + i]), right = x(edges[from + i + 1]);
    if (right < 0 || left > width) continue;
    c.fillStyle = colours[i % 2];
    c.fillRect(left, 0, Math.max(right - left - 0.5, 0.5), height);
  }
}

/** The hue of a unit: neighbours in number are far apart in colour. */
const hue = (unit) => (unit * 137.508) % 360;

/** Runs of units as coloured blocks, with their numbers where there is room. */
function drawUnits({c, width, height, x}, units, edges, dark) {
  c.font = "11px system-ui, sans-serif";
  c.textAlign = "center";
  c.textBaseline = "middle";
  for (let i = 0; i < units.length; i++) {
    const left = x(edges[i]), right = x(edges[i + 1]);
    if (right < 0 || left > width) continue;
    c.fillStyle = `hsl(${hue(units[i])} ${dark ? "45% 40%" : "62% 76%"})`;
    c.fillRect(left, 0, Math.max(right - left - 0.5, 0.5), height);
    const text = String(units[i]);
    if (right - left > c.measureText(text).width + 3) {
      c.fillStyle = dark ? "#ffffff" : "#16181a";
      c.fillText(text, (left + right) / 2, height / 2 + 0.5);
    }
  }
}

/** Ticks of time, at most one each 70 pixels. */
function drawTicks({c, width, height, x}, view, colour) {
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120].find((s) => (s / (view.end - view.start)) * width >= 70) || 300;
  c.font = "11px system-ui, sans-serif";
  c.textBaseline = "bottom";
  c.fillStyle = colour;
  for (let n = Math.ceil(view.start / step); n * step <= view.end; n++) {
    const place = x(n * step);
    c.textAlign = place < 12 ? "left" : place > width - 24 ? "right" : "center";
    c.fillText((n * step).toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0) + " s", place, height - 5);
    c.fillRect(Math.min(place, width - 1), height - 4, 1, 4);
  }
}
