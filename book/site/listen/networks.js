// The networks: ONNX Runtime from this page, a file's metadata, and scores for a window of sound.

/** Return the bytes that the page holds under a name; they are then let go. */
function bytesOf(name) {
  const element = document.getElementById(name);
  const text = atob(element.textContent.trim());
  const bytes = new Uint8Array(text.length);
  for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n);
  element.remove();
  return bytes;
}

async function unpacked(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Start ONNX Runtime from what the page holds: one thread, nothing fetched. */
async function startRuntime() {
  const script = new Blob([bytesOf("runtime")], { type: "text/javascript" });
  const address = URL.createObjectURL(script);
  const ort = await import(address);
  URL.revokeObjectURL(address);
  ort.env.wasm.wasmBinary = (await unpacked(bytesOf("wasm"))).buffer;
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = false;
  ort.env.logLevel = "fatal"; // a fault is told on the page
  return ort;
}

/** Read the fields of a protobuf message as [number, bytes or value]. */
function* fieldsOf(bytes) {
  let at = 0;
  const varint = () => {
    let [value, scale] = [0, 1];
    for (;;) {
      if (at >= bytes.length || scale > 2 ** 63) throw new Error("damaged");
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      scale *= 128;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const [number, kind] = [Math.floor(tag / 8), tag % 8];
    if (kind === 0) {
      yield [number, varint()];
      continue;
    }
    const size = { 1: 8, 2: null, 5: 4 }[kind];
    if (size === undefined) throw new Error("damaged");
    const length = size ?? varint();
    if (at + length > bytes.length) throw new Error("damaged");
    yield [number, bytes.subarray(at, at + length)];
    at += length;
  }
}

const METADATA = 14; // of an ONNX ModelProto: pairs of a key, field 1, and a value, field 2

/** Return the metadata of an ONNX file, of which fusionkd writes each value as JSON. */
function metadataOf(bytes) {
  const text = (value) => new TextDecoder("utf-8", { fatal: true }).decode(value);
  const found = {};
  for (const [number, entry] of fieldsOf(bytes)) {
    if (number !== METADATA) continue;
    const pair = Object.fromEntries(fieldsOf(entry));
    found[text(pair[1])] = JSON.parse(text(pair[2]));
  }
  return found;
}

/** Tell whether metadata are whole: those of a file of `fusionkd export`, version 1. */
function isWhole(told) {
  const { fusionkd, labels, thresholds, head, heads = [], thresholds_of: more = {} } = told;
  const isText = (value) => typeof value === "string" && value.length > 0;
  const fits = (values) => Array.isArray(values) && values.length === labels.length
    && values.every(Number.isFinite);
  return fusionkd === 1 && isText(head) && Array.isArray(labels) && labels.length > 0
    && labels.every(isText) && fits(thresholds) && typeof told.multi_label === "boolean"
    && told.sample_rate >= 1000 && told.sample_rate <= 768000
    && told.window_seconds >= 0.01 && told.window_seconds <= 60
    && Array.isArray(heads) && heads.every((name) => isText(name) && fits(more[name]));
}

/** One ONNX file that can be run: what it tells of itself, and scores by head. */
class Network {
  static async open(ort, bytes) {
    const told = metadataOf(bytes);
    if (!isWhole(told)) throw new Error("not of fusionkd export");
    const session = await ort.InferenceSession.create(bytes, { logSeverityLevel: 4 });
    const network = new Network(ort, told, session);
    const trial = await network.scores(new Float32Array(network.n_samples));
    if (Object.values(trial).some((scores) => scores.length !== told.labels.length)) {
      throw new Error("labels and scores differ in number");
    }
    return network;
  }

  constructor(ort, told, session) {
    Object.assign(this, { ort, told, session, rate: told.sample_rate });
    this.n_samples = Math.round(told.window_seconds * told.sample_rate);
    this.heads = [told.head, ...(told.heads ?? [])];
  }

  thresholds(head) {
    return head === this.told.head ? this.told.thresholds : this.told.thresholds_of[head];
  }

  /** Return head -> (K,) scores in [0, 1] of samples, a window's at most. */
  async scores(samples) {
    const waveform = new this.ort.Tensor("float32", samples, [1, samples.length]);
    const found = await this.session.run({ waveform });
    return Object.fromEntries(this.heads.map((head) => {
      const output = found[head === this.told.head ? "scores" : `scores_${head}`];
      return [head, Array.from(output.data)];
    }));
  }
}

/** Return the starts of the windows that `fusionkd tag` cuts: one after the other, the last aligned. */
function windowStarts(n, size) {
  const starts = [];
  for (let start = 0; start + size <= n; start += size) starts.push(start);
  if (!starts.length) return [0];
  if (n % size) starts.push(n - size);
  return starts;
}

/** Join the scores of windows into a recording's: their mean, or of a multi-label task the maximum. */
function joined(windows, multiLabel) {
  return windows[0].map((_, k) => {
    const values = windows.map((scores) => scores[k]);
    const sum = values.reduce((a, b) => a + b);
    return multiLabel ? Math.max(...values) : sum / values.length;
  });
}

/** Return the places of a row's tags: the likeliest class, or those that reach their threshold. */
function tagsOf(scores, thresholds, multiLabel) {
  const order = [...scores.keys()].sort((a, b) => scores[b] - scores[a]);
  return multiLabel ? order.filter((k) => scores[k] >= thresholds[k]) : order.slice(0, 1);
}
