// Ten clips, ten answers, and then the reader's confusion matrix beside the network's.
// data: classes, sounds (data: addresses), truth and network (a class of each clip).
const { classes, sounds, truth, network } = data;
const player = make("audio", { controls: "", "aria-label": "the clip to be named" });
const told = spoken();
told.tabIndex = -1; // where the keyboard goes on when the buttons are gone
const choices = make("div", { class: "answers", role: "group", "aria-label": "What is it?" });
const result = make("div");
let mine = [];

const right = (answers) => answers.filter((answer, i) => answer === truth[i]).length;

const confusion = (name, answers) => {
  const head = make("tr", {}, make("td"), ...classes.map((label, k) =>
    make("th", { scope: "col" }, make("abbr", { title: label }, `${k + 1}`))));
  const rows = classes.map((label, row) => make("tr", {}, make("th", { scope: "row" }, `${row + 1} ${label}`),
    ...classes.map((_, column) => {
      const n = truth.filter((t, i) => t === row && answers[i] === column).length;
      const look = n ? { class: row === column ? "right" : "wrong" } : {};
      return make("td", look, n ? `${n}` : "");
    })));
  const caption = make("caption", {}, `${name}: ${right(answers)} of ${truth.length}`);
  return make("table", { class: "confusion" }, caption, make("thead", {}, head), make("tbody", {}, ...rows));
};

const listed = () => {
  const head = make("tr", {}, ...["Clip", "It was", "You said", "The network said"].map((text) =>
    make("th", { scope: "col" }, text)));
  const rows = truth.map((t, i) => {
    const again = button(`${i + 1}`, () => { player.src = sounds[i]; player.play(); });
    again.setAttribute("aria-label", `Hear clip ${i + 1} again`);
    const answers = [mine[i], network[i]].map((a) => make("td", {}, `${a === t ? "✓" : "✗"} ${classes[a]}`));
    return make("tr", {}, make("td", {}, again), make("td", {}, classes[t]), ...answers);
  });
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  return make("div", { tabindex: "0", role: "region", "aria-label": "The ten answers", style: "overflow-x: auto" }, table);
};

const ask = () => {
  player.src = sounds[mine.length];
  told.textContent = `Clip ${mine.length + 1} of ${truth.length}: listen, as often as you like, and name it.`;
};

const finish = () => {
  choices.hidden = true;
  told.textContent = `You named ${right(mine)} of ${truth.length}, the network ${right(network)}. `
    + "Rows say what it was, columns what was answered.";
  const again = button("Once more", start);
  result.append(make("div", { class: "pair" }, confusion("You", mine), confusion("The network", network)), listed(), again);
  told.focus({ preventScroll: true });
};

const answer = (k) => {
  mine.push(k);
  if (mine.length === truth.length) return finish();
  ask();
  player.play().catch(() => {}); // where a browser wants another click first
};

const start = () => {
  mine = [];
  choices.hidden = false;
  result.replaceChildren();
  ask();
};

choices.append(...classes.map((label, k) => button(label, () => answer(k))));
show(told, player, choices, result);
start();
