// Sound as it comes, and its spectrograms, with the numbers of fusionkd_lib.representations: frame t
// is centred on sample t * hop, with zeros before the first sample and after the last.

/** Samples at one rate. Of a stream that goes on for hours the latest are kept. */
class Track {
  constructor(rate, samples = new Float32Array(0)) {
    this.rate = rate;
    this.kept = samples;
    this.first = 0; // the place in the stream of the first sample that is kept
    this.end = samples.length;
  }

  append(samples, most = 30 * this.rate) {
    if (this.end - this.first + samples.length > this.kept.length) {
      const start = Math.max(this.first, this.end - most);
      const kept = new Float32Array(2 * most + samples.length);
      kept.set(this.kept.subarray(start - this.first, this.end - this.first));
      [this.kept, this.first] = [kept, start];
    }
    this.kept.set(samples, this.end - this.first);
    this.end += samples.length;
  }

  /** Return n samples from a place on, zeros where there are none. */
  slice(start, n) {
    const out = new Float32Array(n);
    const from = Math.max(start, this.first);
    const to = Math.min(start + n, this.end);
    if (from < to) out.set(this.kept.subarray(from - this.first, to - this.first), from - start);
    return out;
  }
}

/** Brings a stream from one rate to another, block by block: a low pass of windowed sines. */
class Resampler {
  constructor(from, to, zeroCrossings = 16) {
    Object.assign(this, { from, to });
    this.cutoff = Math.min(1, to / from) * 0.94; // of the lower Nyquist frequency
    this.reach = Math.ceil(zeroCrossings / this.cutoff);
    this.held = new Float32Array(this.reach); // as if silence had come before
    this.first = -this.reach; // place in the stream of the first sample that is held
    this.next = 0; // sample of the output, which lies at next * from / to
    this.kernels = new Map(); // by what is left of a place beside whole samples
  }

  push(block) {
    const input = new Float32Array(this.held.length + block.length);
    input.set(this.held);
    input.set(block, this.held.length);
    const out = [];
    for (;; this.next++) {
      const start = Math.floor((this.next * this.from) / this.to) - this.reach - this.first;
      const kernel = this.kernel((this.next * this.from) % this.to);
      if (start + kernel.length > input.length) {
        const drop = Math.min(start, input.length);
        this.held = input.slice(drop);
        this.first += drop;
        return Float32Array.from(out);
      }
      let sum = 0;
      for (let n = 0; n < kernel.length; n++) sum += input[start + n] * kernel[n];
      out.push(sum);
    }
  }

  kernel(left) {
    if (!this.kernels.has(left)) {
      const { cutoff, reach, to } = this;
      this.kernels.set(left, Float32Array.from({ length: (2 * reach) + 1 }, (_, n) => {
        const x = n - reach - (left / to);
        const hann = 0.5 + (0.5 * Math.cos(Math.PI * Math.max(-1, Math.min(x / reach, 1))));
        const turn = Math.PI * cutoff * x;
        return hann * cutoff * (turn ? Math.sin(turn) / turn : 1);
      }));
    }
    return this.kernels.get(left);
  }
}

/** The power spectrum of frames of 2^m samples under a Hann window, by a Fourier transform. */
class PowerSpectrum {
  constructor(size) {
    this.size = size;
    const turns = Array.from({ length: size }, (_, n) => (2 * Math.PI * n) / size);
    this.cosines = Float64Array.from(turns, Math.cos);
    this.sines = Float64Array.from(turns, Math.sin);
    this.window = Float64Array.from(turns, (turn) => 0.5 - (0.5 * Math.cos(turn)));
    const bits = Math.log2(size);
    this.order = Uint32Array.from(turns, (_, n) => {
      let reversed = 0;
      for (let bit = 0; bit < bits; bit++) reversed |= ((n >> bit) & 1) << (bits - 1 - bit);
      return reversed;
    });
    this.real = new Float64Array(size);
    this.imaginary = new Float64Array(size);
  }

  /** (size,) samples -> (size / 2 + 1,) powers. */
  of(frame) {
    const { size, real, imaginary, cosines, sines } = this;
    for (let n = 0; n < size; n++) real[this.order[n]] = frame[n] * this.window[n];
    imaginary.fill(0);
    for (let half = 1; half < size; half *= 2) {
      for (let first = 0; first < size; first += 2 * half) {
        for (let k = 0; k < half; k++) {
          const turn = (k * size) / (2 * half);
          const [a, b] = [first + k, first + k + half];
          const re = (real[b] * cosines[turn]) + (imaginary[b] * sines[turn]);
          const im = (imaginary[b] * cosines[turn]) - (real[b] * sines[turn]);
          [real[b], imaginary[b]] = [real[a] - re, imaginary[a] - im];
          [real[a], imaginary[a]] = [real[a] + re, imaginary[a] + im];
        }
      }
    }
    return Float64Array.from({ length: (size / 2) + 1 }, (_, k) => real[k] ** 2 + imaginary[k] ** 2);
  }
}

const decibels = (power) => 10 * Math.log10(Math.max(power, 1e-10));

/** Log-mel or gammatone: sums of an STFT's powers, or of its magnitudes, under gains (F, size / 2 + 1). */
class SummedRows {
  constructor({ n_rows, gains, magnitudes }, { n_fft }, spectrum) {
    Object.assign(this, { n_rows, gains, magnitudes, spectrum, size: n_fft });
    this.reach = new Array(n_rows).fill(n_fft / 2);
  }

  /** Return the levels in dB of rows from..to of the frame whose centre is a sample of a track. */
  levels(track, centre) {
    const powers = this.spectrum.of(track.slice(centre - (this.size / 2), this.size));
    const values = this.magnitudes ? powers.map(Math.sqrt) : powers;
    return Array.from({ length: this.n_rows }, (_, row) => {
      const gains = this.gains.subarray(row * values.length, (row + 1) * values.length);
      let sum = 0;
      for (let k = 0; k < values.length; k++) sum += gains[k] * values[k];
      return decibels(this.magnitudes ? sum ** 2 : sum);
    });
  }
}

/** Constant-Q: each row correlates the sound with a tone of Q cycles under a Hann window. */
class ConstantQRows {
  constructor({ frequencies, quality }, { rate }) {
    this.n_rows = frequencies.length;
    this.kernels = frequencies.map((frequency) => {
      const length = (quality * rate) / frequency;
      const half = Math.ceil(length / 2) - 1;
      const places = Array.from({ length: (2 * half) + 1 }, (_, n) => n - half);
      const hann = (n) => (1 + Math.cos((2 * Math.PI * n) / length)) / Math.sqrt(length);
      const turn = (2 * Math.PI * frequency) / rate;
      return {
        half,
        real: Float32Array.from(places, (n) => hann(n) * Math.cos(turn * n)),
        imaginary: Float32Array.from(places, (n) => hann(n) * Math.sin(turn * n)),
      };
    });
    this.reach = this.kernels.map(({ half }) => half);
  }

  level(track, centre, row) {
    const { half, real, imaginary } = this.kernels[row];
    const samples = track.slice(centre - half, real.length);
    let [re, im] = [0, 0];
    for (let n = 0; n < samples.length; n++) {
      re += samples[n] * real[n];
      im += samples[n] * imaginary[n];
    }
    return decibels(re ** 2 + im ** 2);
  }
}

/** The latest columns of a spectrogram. A row is computed as soon as all of its samples are there. */
class Spectrogram {
  constructor(rows, { hop }, columns) {
    Object.assign(this, { rows, hop, columns, n_rows: rows.n_rows });
    this.kept = new Float32Array(columns * rows.n_rows);
    this.clear();
  }

  clear(first = 0) {
    this.kept.fill(-100);
    this.next = new Array(this.n_rows).fill(first); // frame of each row
    this.latest = first - 1;
    this.changed = true;
  }

  /** Compute what a track allows up to a sample; at its end, also what reaches beyond. */
  advance(track, end, ended = false) {
    const newest = Math.floor(end / this.hop);
    const oldest = Math.max(0, newest - this.columns + 1);
    if (newest - this.latest > this.columns) this.clear(oldest);
    for (this.latest = Math.max(this.latest, -1); this.latest < newest; this.latest++) {
      const at = ((this.latest + 1) % this.columns) * this.n_rows;
      this.kept.fill(-100, at, at + this.n_rows);
      this.changed = true;
    }
    if (this.rows.level) {
      for (let row = 0; row < this.n_rows; row++) {
        this.fill(row, row + 1, end, ended, (centre) => [this.rows.level(track, centre, row)]);
      }
    } else {
      this.fill(0, this.n_rows, end, ended, (centre) => this.rows.levels(track, centre));
    }
  }

  fill(from, to, end, ended, levels) {
    const last = Math.floor((end - (ended ? 0 : this.rows.reach[from])) / this.hop);
    const first = Math.max(this.next[from], this.latest - this.columns + 1);
    for (let frame = first; frame <= last; frame++) {
      this.kept.set(levels(frame * this.hop), ((frame % this.columns) * this.n_rows) + from);
      this.changed = true;
    }
    this.next[from] = Math.max(first, last + 1);
  }

  /** The level in dB of a row, so many columns ago. */
  at(ago, row) {
    const frame = this.latest - ago;
    return frame < 0 ? -100 : this.kept[((frame % this.columns) * this.n_rows) + row];
  }
}

/** A spectrogram of a whole sound, (F, T) as rows, as the library computes it. */
function whole(rows, timing, samples) {
  const columns = 1 + Math.floor(samples.length / timing.hop);
  const spectrogram = new Spectrogram(rows, timing, columns);
  spectrogram.advance(new Track(timing.rate, samples), samples.length, true);
  return Array.from({ length: rows.n_rows }, (_, row) => (
    Array.from({ length: columns }, (_, t) => spectrogram.at(columns - 1 - t, row))));
}
