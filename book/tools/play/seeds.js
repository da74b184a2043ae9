// Draw seeds one after the other: a dot for each, and the mean of those so far with its interval.
// data: seeds, quantiles (Student's, for two seeds and more), series: name -> a gain of each seed, in points.
const { seeds, quantiles, series } = data;
const names = Object.keys(series);
const [WIDE, LEFT, ROW] = [300, 26, 12];
const HIGH = ROW * (seeds.length + 1);
let order = [], n = 0, gains = series[names[0]];

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
// [mean, half the interval]; of one seed there is no interval
const estimate = (values) => {
  const middle = mean(values), squares = values.reduce((sum, value) => sum + (value - middle) ** 2, 0);
  const k = values.length;
  return [middle, k < 2 ? null : quantiles[k - 2] * Math.sqrt(squares / (k - 1) / k)];
};

const picture = draw("svg", { viewBox: `0 0 340 ${HIGH + 40}`, role: "img" });
const told = spoken();
const another = button("Another seed", () => advance(1));
const rest = button("All of them", () => advance(seeds.length));
const again = button("Start again", () => start());

const shape = (gain, x, y) => {
  const look = { stroke: "currentColor", "stroke-width": 0.5 };
  if (gain > 0) return draw("path", { d: `M ${x - 5} ${y + 4} h 10 l -5 -9 z`, fill: "#0072b2", ...look });
  if (gain < 0) return draw("path", { d: `M ${x - 5} ${y - 4} h 10 l -5 9 z`, fill: "#d55e00", ...look });
  return draw("circle", { cx: x, cy: y, r: 4, fill: "#888888", ...look });
};

const paint = () => {
  const reach = 1.25 * Math.max(1, ...gains.map(Math.abs));
  const x = (value) => LEFT + WIDE / 2 + (WIDE / 2) * Math.max(-1, Math.min(1, value / reach));
  const y = (row) => ROW * (row + 1);
  const drawn = order.slice(0, n).map((i) => gains[i]);
  const marks = drawn.flatMap((gain, row) => {
    const [middle, half] = estimate(drawn.slice(0, row + 1));
    const band = half === null ? [] : [draw("path", { d: `M ${x(middle - half)} ${y(row)} H ${x(middle + half)}`,
      stroke: "#888888", "stroke-opacity": 0.55, "stroke-width": ROW - 4 })];
    const tick = draw("path", { d: `M ${x(middle)} ${y(row) - 5} v 10`, stroke: "currentColor", "stroke-width": 2.5 });
    return [...band, tick, shape(gain, x(gain), y(row))];
  });
  const rows = order.slice(0, n).map((i, row) => draw("text", { x: 0, y: y(row) + 4, "font-size": 10 }, `${seeds[i]}`));
  const whole = Math.floor(reach / 2) || 0.5;
  const axis = [-2 * whole, -whole, 0, whole, 2 * whole].filter((v) => Math.abs(v) <= reach).map((v) =>
    draw("text", { x: x(v), y: HIGH + 18, "text-anchor": "middle" }, v ? signed(v).replace(".0", "") : "0"));
  const zero = draw("path", { d: `M ${x(0)} 0 V ${HIGH + 4}`, stroke: "currentColor", "stroke-dasharray": "3 3" });
  const unit = draw("text", { x: x(0), y: HIGH + 34, "text-anchor": "middle" }, "gain in points, a row for each seed");
  picture.replaceChildren(zero, ...marks, ...rows, ...axis, unit);
  say(drawn);
};

const say = (drawn) => {
  let words = `${seeds.length} seeds lie face down. Before you turn the first: gain or loss?`;
  if (n) {
    const [middle, half] = estimate(drawn), last = drawn[n - 1];
    const count = (is) => drawn.filter(is).length;
    words = `Seed ${seeds[order[n - 1]]}: ${signed(last)} points. Gains so far: ${count((g) => g > 0)}, `
      + `losses: ${count((g) => g < 0)}, neither: ${count((g) => g === 0)}. Mean ${signed(middle)}`;
    const holds = half !== null && Math.abs(middle) <= half;
    words += half === null ? "; one seed has no interval."
      : `, 95 % interval ${signed(middle - half)} to ${signed(middle + half)}, `
        + `${holds ? "with zero in it" : middle > 0 ? "all above zero" : "all below zero"}.`;
  }
  told.textContent = words;
  picture.setAttribute("aria-label", words);
  another.disabled = rest.disabled = n === seeds.length;
};

const advance = (by) => {
  n = Math.min(n + by, seeds.length);
  paint();
};

const start = () => {
  order = seeds.map((_, i) => i);
  for (let i = order.length - 1; i > 0; i--) { // shuffled: every reader has another evening
    const j = Math.floor(Math.random() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  n = 0;
  paint();
};

const which = make("select", {}, ...names.map((name) => make("option", {}, name)));
which.addEventListener("change", () => { gains = series[which.value]; paint(); });
show(make("label", {}, "The gain is ", which), make("div", {}, another, rest, again), told, picture);
start();
