// The page: a sound comes from a clip, a file or the microphone; it is drawn, and tagged by networks.

const config = JSON.parse(document.getElementById("config").textContent);
const $ = (id) => document.getElementById(id);
const pause = (milliseconds = 0) => new Promise((go) => { setTimeout(go, milliseconds); });
const TIMING = config.spectrograms.timing; // rate in Hz, hop and n_fft in samples
const SHORTEST_UPDATE = 50; // milliseconds: the rest of the time is the drawing's
const LEAST_SECONDS = 0.25; // of sound before the first scores
const MOST_BYTES = 200e6; // of a file that is opened
const FLOOR = 80; // dB shown below the loudest

// Sources of sound: each has its tracks by rate, and says how many seconds have been heard.

class Recording {
  static async open(context, bytes, name, rates) {
    const tracks = {};
    for (const rate of rates) {
      const decoder = new OfflineAudioContext(1, 1, rate);
      const sound = await decoder.decodeAudioData(bytes.slice(0));
      tracks[rate] = new Track(rate, mono(sound));
    }
    return new Recording(context, await context.decodeAudioData(bytes.slice(0)), name, tracks);
  }

  /** One of the page's clips, whose samples are as they were made: a decoder would scale them. */
  static ofClip(context, { samples, label }, rates) {
    const tracks = {};
    for (const rate of rates) tracks[rate] = new Track(rate, atRate(samples, rate));
    const buffer = new AudioBuffer({ length: samples.length, sampleRate: TIMING.rate });
    buffer.copyToChannel(samples, 0);
    return new Recording(context, buffer, spelt(label), tracks);
  }

  constructor(context, buffer, name, tracks) {
    Object.assign(this, { context, name, tracks, duration: buffer.duration });
    this.node = new AudioBufferSourceNode(context, { buffer });
    this.node.connect(context.destination);
    this.started = context.currentTime;
    this.node.start();
  }

  get seconds() { return Math.min(this.context.currentTime - this.started, this.duration); }

  get ended() { return this.seconds >= this.duration; }

  end(rate) { return this.ended ? this.tracks[rate].end : Math.floor(this.seconds * rate); }

  stop() { this.node.stop(); }
}

class Microphone {
  static async open(context, rates) {
    // What makes speech clear for a listener takes away what a city sounds like.
    const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: raw });
    const code = `registerProcessor("ear", class extends AudioWorkletProcessor {
      process([channels]) { if (channels[0]) this.port.postMessage(channels[0]); return true; }
    });`;
    // Of a page opened from a folder, Chromium refuses a blob here.
    await context.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(code)}`);
    return new Microphone(context, stream, rates);
  }

  constructor(context, stream, rates) {
    Object.assign(this, { stream, name: "Microphone", duration: Infinity, ended: false });
    this.tracks = Object.fromEntries(rates.map((rate) => [rate, new Track(rate)]));
    const resamplers = rates.map((rate) => new Resampler(context.sampleRate, rate));
    this.node = new AudioWorkletNode(context, "ear", { channelCount: 1, numberOfOutputs: 0 });
    this.node.port.onmessage = ({ data }) => {
      rates.forEach((rate, n) => this.tracks[rate].append(resamplers[n].push(data)));
    };
    this.input = context.createMediaStreamSource(stream);
    this.input.connect(this.node);
  }

  get seconds() {
    return Math.min(...Object.values(this.tracks).map(({ end, rate }) => end / rate));
  }

  end(rate) { return this.tracks[rate].end; }

  stop() {
    this.input.disconnect();
    this.stream.getTracks().forEach((track) => track.stop());
  }
}

/** Bring samples of the page's clips to another rate. */
function atRate(samples, rate) {
  if (rate === TIMING.rate) return samples;
  const resampler = new Resampler(TIMING.rate, rate);
  const tail = new Float32Array(2 * resampler.reach);
  const out = [...resampler.push(samples), ...resampler.push(tail)];
  return Float32Array.from(out.slice(0, Math.round((samples.length * rate) / TIMING.rate)));
}

function mono(sound) {
  const channels = Array.from({ length: sound.numberOfChannels }, (_, n) => sound.getChannelData(n));
  return channels[0].map((_, n) => channels.reduce((sum, x) => sum + x[n], 0) / channels.length);
}

// Pictures

class Picture {
  constructor(name, spec, rows, columns) {
    this.spectrogram = new Spectrogram(rows, TIMING, columns);
    this.lowestPeak = spec.loudest - 50; // or silence would be shown as bright as a sound
    this.peak = this.lowestPeak;
    this.canvas = document.createElement("canvas");
    [this.canvas.width, this.canvas.height] = [columns, rows.n_rows];
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${spec.label} spectrogram of the latest seconds`);
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.image = this.context.createImageData(columns, rows.n_rows);
    this.image.data.fill(255);
    this.heard = made("div", "heard");
    const ticks = Object.entries(spec.ticks).map(([text, share]) => {
      const tick = made("span", "tick", text);
      tick.style.bottom = `${100 * share}%`;
      return tick;
    });
    const picture = made("div", "picture", this.canvas, ...ticks, this.heard);
    const caption = made("figcaption", name, made("b", "", spec.label), made("span", "", "Hz"));
    $("spectrograms").append(made("figure", "spectrogram", caption, picture));
  }

  paint() {
    const { spectrogram, image } = this;
    if (!spectrogram.changed) return;
    const loudest = spectrogram.kept.reduce((a, b) => Math.max(a, b), this.lowestPeak);
    this.peak = Math.max(loudest, this.peak - 0.4);
    for (let row = 0; row < spectrogram.n_rows; row++) {
      for (let column = 0; column < spectrogram.columns; column++) {
        const level = spectrogram.at(spectrogram.columns - 1 - column, row);
        const share = Math.min(Math.max(1 + ((level - this.peak) / FLOOR), 0), 1);
        const from = 3 * Math.round(255 * share);
        const to = 4 * (((spectrogram.n_rows - 1 - row) * spectrogram.columns) + column);
        image.data[to] = config.colours[from];
        image.data[to + 1] = config.colours[from + 1];
        image.data[to + 2] = config.colours[from + 2];
      }
    }
    this.context.putImageData(image, 0, 0);
    spectrogram.changed = false;
  }
}

/** Return a label as it is read. */
function spelt(label) { return label.replaceAll("_", " "); }

function made(kind, className, ...children) {
  const element = document.createElement(kind);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// What is going on

let ort; // the runtime
let audio; // the one AudioContext, made at the first press of a button
let source = null;
let turn = 0; // counts what was begun: of two sounds that are being opened, the later one is played
let networks = []; // that listen: [{ network, columns: [{ head, title, note, look }] }]
let books = [];
let cells = []; // of the table, by column and class
const pictures = {};
const clips = {}; // by label: { label, samples }
const measured = { updates: 0, milliseconds: [] };

function say(text, isFault = false, place = "status") {
  $(place).textContent = text;
  $(place).classList.toggle("fault", isFault);
}

function rates() { return [...new Set([TIMING.rate, ...networks.map(({ network }) => network.rate)])]; }

function stop() {
  turn += 1;
  source?.stop();
  source = null;
  for (const button of document.querySelectorAll("[aria-pressed=true]")) {
    button.setAttribute("aria-pressed", "false");
  }
  $("meter").textContent = "";
}

/** Listen to a source that a function opens, until it ends or another one is chosen. */
async function listenTo(open, button, fault) {
  const wasPressed = button?.getAttribute("aria-pressed") === "true";
  stop();
  if (wasPressed) {
    say("Stopped.");
    return;
  }
  try {
    const mine = turn;
    audio ??= new AudioContext();
    await audio.resume();
    const opened = await open(audio);
    if (mine !== turn) {
      opened.stop();
      return;
    }
    source = opened;
  } catch {
    say(fault, true);
    return;
  }
  button?.setAttribute("aria-pressed", "true");
  for (const { spectrogram } of Object.values(pictures)) spectrogram.clear();
  say(source.name === "Microphone" ? "Listening to the microphone." : `Playing: ${source.name}.`);
  draw(source);
  await tag(source);
}

function draw(of) {
  if (source !== of) return;
  const [end, { ended }] = [of.end(TIMING.rate), of];
  for (const picture of Object.values(pictures)) {
    picture.spectrogram.advance(of.tracks[TIMING.rate], end, ended);
    picture.paint();
  }
  requestAnimationFrame(() => draw(of));
}

/** Score the latest window again and again. */
async function tag(of) {
  const times = [];
  while (source === of && !of.ended) {
    const begun = performance.now();
    if (of.seconds >= LEAST_SECONDS) {
      for (const { network, columns } of networks) {
        const n = Math.min(network.n_samples, of.end(network.rate));
        const scores = await network.scores(of.tracks[network.rate].slice(of.end(network.rate) - n, n));
        if (source !== of) return;
        $("tags").classList.toggle("filling", n < network.n_samples);
        columns.forEach((column) => show(column, network, scores[column.head]));
        await pause(); // for the drawing
      }
      measured.updates += 1;
      measured.milliseconds.push(performance.now() - begun);
      times.push(performance.now());
      tell(of, times);
    }
    await pause(Math.max(0, SHORTEST_UPDATE - (performance.now() - begun)));
  }
  if (source === of) await conclude(of);
}

function tell(of, times) {
  while (times.length > 30) times.shift();
  const each = (times.at(-1) - times[0]) / (times.length - 1);
  const length = Number.isFinite(of.duration) ? ` of ${of.duration.toFixed(1)}` : "";
  const pace = times.length > 5 ? ` · ${Math.round(1000 / each)} updates a second` : "";
  $("meter").textContent = `${of.seconds.toFixed(1)}${length} s${pace}`;
}

/** Tag a recording that has ended as `fusionkd tag` does. */
async function conclude(of) {
  const told = [];
  for (const { network, columns } of networks) {
    const found = await wholeScores(network, of.tracks[network.rate], () => source === of);
    if (!found) return;
    for (const column of columns) {
      const tags = show(column, network, found[column.head]);
      const names = tags.map((k) => spelt(network.told.labels[k]));
      told.push(`${column.title} (${column.note}) ${names.join(", ") || "nothing"}`);
    }
  }
  $("tags").classList.remove("filling");
  stop();
  say(`The whole of ${of.name}: ${told.join(", ")}.`);
}

async function wholeScores(network, track, goesOn = () => true) {
  const windows = [];
  for (const start of windowStarts(track.end, network.n_samples)) {
    const n = Math.min(network.n_samples, track.end - start);
    windows.push(await network.scores(track.slice(start, n)));
    await pause();
    if (!goesOn()) return null;
  }
  return Object.fromEntries(network.heads.map((head) => (
    [head, joined(windows.map((scores) => scores[head]), network.told.multi_label)])));
}

/** Show the scores of a column, and return the places of its tags. */
function show(column, network, scores) {
  const tags = tagsOf(scores, network.thresholds(column.head), network.told.multi_label);
  scores.forEach((score, k) => {
    const cell = cells[column.place][k];
    cell.dataset.score = score.toFixed(6);
    cell.classList.toggle("tag", tags.includes(k));
    cell.querySelector(".number").textContent = score.toFixed(2);
    cell.querySelector(".fill").style.transform = `scaleX(${score})`;
  });
  return tags;
}

// Networks in the table

function take(chosen) {
  stop();
  networks = chosen;
  const [{ network: { told } }] = chosen;
  const columns = chosen.flatMap((one) => one.columns);
  columns.forEach((column, place) => { column.place = place; });
  const head = made("tr", "", made("th", "", "Class"));
  const foot = made("tr", "", made("th", "", measureOf(told)));
  for (const { network, columns: own } of chosen) {
    for (const column of own) {
      const th = made("th", column.look, column.title, made("small", "", column.note));
      th.scope = "col";
      head.append(th);
      const score = column.head === network.told.head
        ? network.told.score : network.told.score_of?.[column.head];
      foot.append(made("td", "", Number.isFinite(score) ? score.toFixed(2) : "–"));
    }
  }
  cells = columns.map(() => []);
  const rows = told.labels.map((label) => {
    const th = made("th", "", spelt(label));
    th.scope = "row";
    const own = columns.map((column) => {
      const bar = made("span", "bar", made("span", "fill"));
      return made("td", column.look, made("span", "number", "–"), bar);
    });
    own.forEach((cell, place) => cells[place].push(cell));
    return made("tr", "", th, ...own);
  });
  $("tags").tHead.replaceChildren(head);
  $("tags").tBodies[0].replaceChildren(...rows);
  $("tags").tFoot.replaceChildren(foot);
  words(chosen);
}

function measureOf({ metric }) { return `${spelt(metric)} on test clips`; }

function words(chosen) {
  const [{ network: { told, n_samples: size, rate } }] = chosen;
  const view = pictures.logmel.spectrogram.columns * TIMING.hop / TIMING.rate;
  $("window-seconds").textContent = told.window_seconds;
  $("view-seconds").textContent = `${view.toFixed(0)} s ago`;
  for (const { heard } of Object.values(pictures)) {
    heard.style.width = `${100 * Math.min(1, size / rate / view)}%`;
  }
  $("reading").textContent = told.multi_label
    ? "Several classes may be present at once: bold are those whose score reaches their threshold."
    : "Scores of a network sum to one; its tag, the highest, is bold. After a clip has ended, they are the means "
      + "of its windows, as fusionkd tag has them.";
  $("origin").textContent = `Trained on ${told.dataset} (${told.data_status} clips, licence ${told.licence}). ${told.data_note}`;
}

async function ownNetwork(file) {
  stop();
  say(`Opening ${file.name} …`, false, "network-status");
  try {
    if (file.size > MOST_BYTES) throw new Error("too large");
    const network = await Network.open(ort, new Uint8Array(await file.arrayBuffer()));
    const columns = network.heads.map((head) => (
      { head, title: config.labels[head] ?? head, note: "yours", look: head in config.labels ? head : "fused" }));
    take([{ network, columns }]);
  } catch {
    const fault = "is not a whole file of fusionkd export: export it again, or open another";
    say(`${file.name} ${fault}.`, true, "network-status");
    return;
  }
  $("books-networks").hidden = false;
  say(`${file.name} listens now: choose a sound above.`, false, "network-status");
}

function openSound(file) {
  const fault = `${file.name} cannot be read as a sound: open a WAV, MP3, Ogg or FLAC file.`;
  return listenTo(async (context) => {
    if (file.size > MOST_BYTES) throw new Error("too large");
    return Recording.open(context, await file.arrayBuffer(), file.name, rates());
  }, null, fault);
}

// The start

function addClips() {
  for (const { label, id } of config.clips) {
    const samples = Float32Array.from(new Int16Array(bytesOf(id).buffer), (x) => x / 32768);
    clips[label] = { label, samples };
    const button = made("button", "", spelt(label));
    button.type = "button";
    button.dataset.clip = label;
    button.setAttribute("aria-pressed", "false");
    button.disabled = true;
    button.addEventListener("click", () => listenTo(
      async (context) => Recording.ofClip(context, clips[label], rates()), button,
      "This browser cannot play the clip.",
    ));
    $("clips").append(button);
  }
}

function addPictures() {
  const { seconds, rows } = config.spectrograms;
  const spectrum = new PowerSpectrum(TIMING.n_fft);
  const columns = Math.round((seconds * TIMING.rate) / TIMING.hop);
  config.colours = bytesOf("colours");
  for (const [name, spec] of Object.entries(rows)) {
    if (spec.quality) {
      pictures[name] = new Picture(name, spec, new ConstantQRows(spec, TIMING), columns);
    } else {
      const gains = new Float32Array(bytesOf(`gains-${name}`).buffer);
      pictures[name] = new Picture(name, spec, new SummedRows({ ...spec, gains }, TIMING, spectrum), columns);
    }
  }
  $("unheard").textContent = config.unheard;
}

function connect() {
  const open = { "sound-file": openSound, "network-file": ownNetwork };
  $("choose-sound").addEventListener("click", () => $("sound-file").click());
  $("choose-network").addEventListener("click", () => $("network-file").click());
  for (const [id, opener] of Object.entries(open)) {
    $(id).addEventListener("change", ({ target }) => {
      const [file] = target.files;
      target.value = "";
      if (file) opener(file);
    });
  }
  $("books-networks").addEventListener("click", () => {
    take(books);
    $("books-networks").hidden = true;
    say("The book's networks listen again.", false, "network-status");
  });
  $("microphone").setAttribute("aria-pressed", "false");
  $("microphone").addEventListener("click", () => {
    const fault = "The microphone is not allowed or not there: allow it for this page, or open a file.";
    listenTo((context) => Microphone.open(context, rates()), $("microphone"), fault);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const [file] = event.dataTransfer.files;
    if (file && ort) (/\.onnx$/i.test(file.name) ? ownNetwork : openSound)(file);
  });
}

/** Take light or dark from the pages of the book, where a reader chose one there. */
function takeTheme() {
  try {
    const mode = localStorage.getItem("mode");
    if (mode === "light" || mode === "dark") document.documentElement.dataset.theme = mode;
  } catch { /* a browser may forbid it */ }
}

async function start() {
  takeTheme();
  addPictures();
  addClips();
  connect();
  try {
    ort = await startRuntime();
    for (const { id, columns } of config.networks) {
      books.push({ network: await Network.open(ort, bytesOf(id)), columns });
    }
  } catch {
    say("This browser cannot run the networks: use a newer one, with WebAssembly and DecompressionStream.", true);
    return;
  }
  $("runtime-version").textContent = ort.env.versions.web;
  take(books);
  for (const button of document.querySelectorAll("button:disabled")) button.disabled = false;
  say("Ready: choose a clip, open a file, or use the microphone.");
}

const ready = start();
