// One tag, a threshold that moves, and what it does: the point on the curve, hits, false alarms, misses.
// data: tag, total (clips that have it), ranked ("1" has it, "0" has not, by falling score), and
// points: [threshold, clips said, hits] for each score, from the highest down.
const { tag, total, ranked, points } = data;
const [WIDE, HIGH, LEFT, TOP] = [280, 170, 40, 12];
const x = (recall) => LEFT + WIDE * recall;
const y = (precision) => TOP + HIGH * (1 - precision);
const place = ([, said, hits]) => [x(hits / total), y(hits / said)];
const percent = (part, whole) => `${Math.round((100 * part) / whole)} %`;
const number = (t) => (t < 0.001 ? "below 0.001" : t > 0.9995 ? "above 0.999" : t.toFixed(3));

const text = (at, down, words, anchor = "middle") => draw("text", { x: at, y: down, "text-anchor": anchor }, words);
const line = points.map((point) => place(point).map((v) => v.toFixed(1)).join(" ")).join(" L ");
const dot = draw("circle", { r: 7, fill: "#d55e00", stroke: "#fff", "stroke-width": 2 });
const cross = draw("path", { stroke: "#d55e00", "stroke-dasharray": "4 3", fill: "none" });

// Every clip is a stroke, the highest score on the left: long where the tag is there, short where not.
const step = WIDE / ranked.length;
const strokes = (which, length) => [...ranked].map((c, i) =>
  c === which ? `M ${(LEFT + (i + 0.5) * step).toFixed(1)} 262 v ${-length}` : "").join("");
const rug = [["1", 20, "#0072b2"], ["0", 9, "#888888"]].map(([which, length, colour]) =>
  draw("path", { d: strokes(which, length), stroke: colour, "stroke-width": Math.max(step * 0.7, 0.8) }));
const cut = draw("path", { stroke: "#d55e00", "stroke-width": 2 });

const picture = draw("svg", { viewBox: "0 0 340 284", role: "img" },
  draw("path", { d: `M ${LEFT} ${TOP} V ${TOP + HIGH} H ${LEFT + WIDE}`, stroke: "currentColor", fill: "none" }),
  ...[0, 0.5, 1].flatMap((v) => [text(x(v), TOP + HIGH + 14, `${100 * v} %`), text(LEFT - 4, y(v) + 4, `${100 * v}`, "end")]),
  text(x(0.5), TOP + HIGH + 28, "recall"),
  draw("text", { transform: `translate(10 ${y(0.5)}) rotate(-90)`, "text-anchor": "middle" }, "precision, %"),
  draw("path", { d: `M ${line}`, stroke: "#0072b2", "stroke-width": 2, fill: "none" }),
  cross, dot, ...rug, cut, text(LEFT, 278, "said", "start"), text(LEFT + WIDE, 278, "not said", "end"));

const slider = make("input", { type: "range", min: 0, max: points.length - 1, step: 1 });
const threshold = make("b");
const tiles = { "hits": make("b"), "false alarms": make("b"), "misses": make("b") };
const told = spoken();

const move = () => {
  const [t, said, hits] = points[points.length - 1 - slider.value]; // to the right: stricter
  const [across, down] = place([t, said, hits]);
  const edge = LEFT + said * step;
  for (const [name, value] of [["cx", across], ["cy", down]]) dot.setAttribute(name, value);
  cross.setAttribute("d", `M ${LEFT} ${down} H ${across} V ${TOP + HIGH}`);
  cut.setAttribute("d", `M ${edge} 236 V 268`);
  const counts = { "hits": hits, "false alarms": said - hits, "misses": total - hits };
  for (const [name, n] of Object.entries(counts)) tiles[name].textContent = n;
  threshold.textContent = number(t);
  const words = `precision ${hits} of ${said} = ${percent(hits, said)}, recall ${hits} of ${total} = ${percent(hits, total)}`;
  told.textContent = words;
  slider.setAttribute("aria-valuetext", `${number(t)}: ${words}`);
  picture.setAttribute("aria-label", `Precision and recall of ${tag} at the threshold ${number(t)}: ${words}`);
};

const boxes = Object.entries(tiles).map(([name, value]) => make("div", {}, value, name));
show(make("label", {}, `${tag} is said where its score is at least `, threshold, slider),
  make("div", { class: "tiles" }, ...boxes), told, picture);
const middle = points.findIndex(([t]) => t < 0.5);
slider.value = points.length - 1 - Math.max((middle < 0 ? points.length : middle) - 1, 0);
slider.addEventListener("input", move);
move();
