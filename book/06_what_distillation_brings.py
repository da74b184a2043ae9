# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6 · What does distillation bring?
#
# [Chapter 5](05_the_tables.py) compared branches after distillation with branches before, as the paper does. A
# doubter is not satisfied. This chapter tells a study in the order in which a doubter asks: compared with what,
# chosen how, how much of it luck, and how sure? Its [protocol](appendix_protocol.md) was written before its runs.
#
# **You will learn** what a control is and what it costs, how the question is fixed before the answer is known, what
# a seed is worth, how to draw recordings and seeds together, and how to pay for asking four questions.
#
# **You need** a few seconds: everything is read from the committed records of `outputs/reference/`. You should
# know Eq. 2 to 4 ([chapter 4](04_fusion_and_distillation.py)) and the paired interval of chapter 5.
#
# The study's main question is answered; of the questions beside it, some have not run. The chapter says with each part
# what is in, and fills itself as records come in. A *block* is one fold and one seed with all that was trained on it.
# *Pretrained* networks began with ImageNet's weights, those from *scratch* with none.

# %%
import numpy as np
from IPython.display import Markdown, display

from fusionkd_book import exercises, figures, play, study, tuning
from fusionkd_lib import tables
from fusionkd_lib.catalogue import FUSED
from fusionkd_lib.params import load_params
from fusionkd_lib.runs import find_records, project_root

figures.use_style()
reference = project_root() / "outputs" / "reference"
sample = {run.name: run for run in find_records(reference)[0]}
sample = {name: run for name, run in sample.items() if run.params.dataset == "urbansound8k"}
arms = study.read_records()
blocks = {trunk: study.blocks_of(trunk) for trunk in study.ARMS_OF}

# %% tags=["nbval-check-output"]
for trunk, of in (("pretrained", 9), ("scratch", 3)):
    for arm in study.ARMS_OF[trunk]:
        print(f"{trunk}, {arm}: {len(study.answering(blocks[trunk], arm))} of {of} blocks")

# %% [markdown]
# ## Before you look
#
# **Predict**, and write it down. A branch is pretrained, then trained on beside a fused classifier whose answers it
# also imitates. Say that it has got better. How much of the gain is left
#
# 1. if it imitates nobody, and all else stays ($\lambda = 0$)?
# 2. if it is simply trained on, alone, for as long?
#
# ## "Compared with what?"
#
# Between the branch before and the branch after lie three things: a teacher, whose answers are imitated; the fused
# classifier's own loss, whose gradient flows into the trunks; and more training. An *arm* of the study takes one
# away at a time:
#
# | arm | teacher, and its weight | fused classifier's loss | more training |
# |---|---|---|---|
# | before | – | – | – |
# | equal training | – | – | yes |
# | lambda 0 | – | yes | yes |
# | the paper's | logits, 0.01 | yes | yes |
# | chosen | softened scores, 1 | yes | yes |
#
# All arms begin with the same pretrained weights and see the same clips in the same order, varied in the same way. The
# first four rows add one thing each; *chosen* is held against lambda 0 (in the files: `none`), from which it differs in
# the teacher alone.
#
# The networks from scratch have the paper's arm on all three folds. Where the arm with $\lambda = 0$ is there as well,
# each of six cells (three pairs, two branches each) shows what each step added.


# %%
def same_but_lambda(one, other):
    return one.params.replace(kd_weight=other.params.kd_weight) == other.params


taught = [
    run
    for run in sample.values()
    if run.provenance.kind == "fusion" and run.params.trunk == "mobilenet_v2"
]
trios = [  # before, lambda 0, the paper's
    (dict(zip(run.params.representations, run.provenance.parents, strict=True)), control, run)
    for run in taught
    for control in arms.values()
    if not control.params.kd_weight and same_but_lambda(control, run)
]
print(len(taught), "pairs with the paper's distillation,", len(trios), "of them also with lambda 0")

# %%
ends = {}  # cell -> accuracies before, with lambda 0, with the paper's; a column per fold
for parents, control, run in trios:
    for name in run.params.representations:
        values = [100 * one.score(name) for one in (sample[parents[name]], control, run)]
        ends.setdefault((run.params.pair, name), []).append(values)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
if ends:
    ax = figures.plt.subplots(figsize=(6, 3.4))[1]
    marks = (("o", "before"), ("s", "lambda 0"), ("D", "the paper's"))
    for y, ((_, name), values) in enumerate(ends.items()):
        means = np.mean(values, axis=0)
        ax.plot(means[[0, 2]], [y, y], color="0.85", zorder=0)
        for (mark, label), x in zip(marks, means, strict=True):
            filled = figures.COLOURS[name] if mark != "D" else "none"
            ax.plot(
                x, y, mark, color=figures.COLOURS[name], mfc=filled, label=label if not y else None
            )
    ax.set_yticks(range(len(ends)), [f"{figures.label(name)}, {pair}" for pair, name in ends])
    ax.set(xlabel="accuracy in %, UrbanSound8K (partial)")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.2), ncols=3)
    figures.sns.despine(ax=ax)
    figures.show(
        ax,
        alt="Six branches: accuracy before, after the joint phase without distillation, and with it",
        caption="**Figure 6.1.** Networks from scratch, the mean over folds. From circle to square: more training "
        "beside a fused classifier. From square to diamond: the paper's distillation.",
    )

# %% tags=["hide-input"] jupyter={"source_hidden": true}
if ends:
    before, without, paper = np.mean([np.mean(values, axis=0) for values in ends.values()], axis=0)
    n_folds = len({run.params.fold for *_, run in trios})
    display(
        Markdown(
            f"Over these cells and {n_folds} fold{'s' * (n_folds > 1)} the branches have {before:.1f} % before, "
            f"{without:.1f} % after the same phase with $\\lambda = 0$ and {paper:.1f} % with the paper's distillation. "
            f"Between before and after lie {paper - before:+.1f} points: **{without - before:+.1f} came without any "
            f"teacher**, {paper - without:+.1f} with it."
        )
    )
else:
    display(Markdown("The arm with lambda 0 has not run yet."))

# %% [markdown]
# The paper compares the circle with the diamond. Whatever lies between circle and square came without a teacher.
#
# How sure is the rest? For each clip, count how many of the six cells name it rightly, with the one distillation and
# with the other: the difference of the two shares is one number per clip. Recordings are drawn with replacement, and
# the mean of the numbers on the drawn clips is noted, again and again. Here by hand, and beside it what the study's own
# function says. (Chapter 5 draws less often, so that its interval for this difference ends a little elsewhere.)


# %%
def cells_of(runs):  # each branch in a pair -> (n,) which clips it names rightly
    cells = [(run, name) for run in runs for name in run.params.representations]
    return {
        (run.params.pair, name): run.scores[name].argmax(1) == run.test.targets
        for run, name in cells
    }


by_fold = {}
for _, control, run in trios:
    by_fold.setdefault(run.params.fold, []).append((control, run))
whole = []
for fold, pairs in sorted(by_fold.items()):
    controls, taught_ones = zip(*pairs, strict=True)
    right = {"none": cells_of(controls), "paper": cells_of(taught_ones)}
    whole.append(study.Block(fold, 0, controls[0].test.groups, right))

# %%
rng = np.random.default_rng(1)


def one_draw():
    means = []
    for block in whole:
        clips_of = {name: np.flatnonzero(block.groups == name) for name in np.unique(block.groups)}
        drawn = rng.choice(list(clips_of), size=len(clips_of))
        rows = np.concatenate([clips_of[name] for name in drawn])
        means.append((block.share("paper") - block.share("none"))[rows].mean())
    return 100 * np.mean(means)  # each fold counts the same


if whole:
    by_hand = np.quantile([one_draw() for _ in range(500)], [0.025, 0.975])
    seen = study.contrast(whole, "paper", "none")
    display(
        Markdown(
            f"The paper's distillation less lambda 0, from scratch, {len(whole)} fold{'s' * (len(whole) > 1)}, one seed: "
            f"**{seen.points:+.1f}** points, {seen.ends[0]:+.1f} to {seen.ends[1]:+.1f}; by hand {by_hand[0]:+.1f} to "
            f"{by_hand[1]:+.1f}. This comparison is exploratory: it has an interval and no verdict."
        )
    )

# %% [markdown]
# ## "You tried until it fitted"
#
# The paper's distillation weighs little beside the labels ([chapter 4](04_fusion_and_distillation.py)
# shows it). A fair study asks what a *good* distillation brings. But whoever tries eight and reports the best on the
# test clips has measured luck. There are two ways out: choose on validation clips alone, or name one beforehand.
#
# This study had planned the first, and took the second before any of the eight had run: some hundred validation
# recordings cannot tell eight good distillations apart, and to choose would have cost as much as four blocks. The one
# that was named is the one that the field knows best: the softened scores of the fused classifier at $T = 2$ (Hinton
# et al. 2015), at weight 1 after a ramp of two epochs. Its file kept the name `chosen`. It was not new to us: long before,
# single runs of it with other recipes had won more often than lost on test clips of folds 1 and 2, so that fold 3 is
# looked at alone, too. Open is whether another does better. The eight files are kept in `params/study/choosing/`, to be
# explored on validation clips:

# %%
choosing = {run.name: run for run in find_records(tuning.RUNS)[0]}
rows = tuning.rank_distillations(tuning.DISTILLATION.parent, choosing)
display(Markdown(tables.markdown(rows) if rows else "No candidate has all of its runs yet."))

# %% [markdown]
# ## "One seed is one draw"
#
# The seed draws first weights, the order of the clips, and how each is varied. Here are branches alone, with ImageNet's
# weights, trained again with nothing changed but the seed. **Predict:** by how many points does a seed move a branch?

# %%
alone = [
    run
    for run in sample.values()
    if run.provenance.kind == "branch"
    and (run.params.weights, run.params.hop_length) == ("imagenet", 1024)
]
by_cell = {}
for run in alone:
    name = run.params.representations[0]
    by_cell.setdefault((name, run.params.fold), []).append(100 * run.score(name))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ax = figures.plt.subplots(figsize=(6, 3.2))[1]
for y, ((name, _), values) in enumerate(sorted(by_cell.items())):
    ax.plot([min(values), max(values)], [y, y], color=figures.COLOURS[name], alpha=0.4)
    ax.plot(values, [y] * len(values), "o", color=figures.COLOURS[name])
ax.set_yticks(
    range(len(by_cell)), [f"{figures.label(n)}, fold {fold}" for n, fold in sorted(by_cell)]
)
ax.set(xlabel="accuracy in %, UrbanSound8K (partial)")
figures.sns.despine(ax=ax)
figures.show(
    ax,
    alt="For each representation and fold, one dot per seed",
    caption="**Figure 6.2.** A dot is a seed: the same recipe and the same clips, with other luck.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
several = [values for values in by_cell.values() if len(values) > 1]
if several:
    spread = np.sqrt(np.mean([np.var(values, ddof=1) for values in several]))
    widest = max(np.ptp(values) for values in several)
    display(
        Markdown(
            f"Within one fold and representation, seeds spread with a standard deviation of **{spread:.1f} points**; the two "
            f"that lie furthest apart differ by {widest:.1f}. Two single runs of one method differ by up to "
            f"{2 * np.sqrt(2) * spread:.0f} points, nineteen times in twenty."
        )
    )
else:
    display(Markdown("There is one seed of each so far."))

# %% [markdown]
# Draw some yourself. These are seeds of one small pair of urban synth (`params/seeds/twenty.yaml`), all on the same
# clips, shuffled anew for you. The gain of a seed is that of its two branches together. **Predict:** after how many
# will you know its sign? (The pair is trained briefly, on synthesised sounds: it shows what luck does, not what the method
# does.)

# %%
numbers, series = play.gains_by_seed(find_records(reference / "twenty")[0])
play.seeds(numbers, series)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
ax = play.draw_seeds(series)
figures.show(
    ax,
    alt="The gain of each seed as a triangle, upright for a gain and upside down for a loss, and the mean over seeds with its interval",
    caption="**Figure 6.3.** All seeds face up: triangles are upright for gains, upside down for losses. The diamond is their mean, the "
    "bar its interval over seeds.",
)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
wanted = {each.seed for each in load_params(project_root() / "params" / "seeds" / "twenty.yaml")}
display(Markdown(f"{len(numbers)} of {len(wanted)} seeds are in.\n\n{play.tell(series)}"))

# %% [markdown]
# The mean settles slowly: four times the seeds halve its error. The bar knows of seeds alone: all were judged on the same
# recordings, and others might move them all together.
#
# Two remedies: more seeds, and pairs that share a seed. The arms of a block share parents, order and views, so that
# some of a seed's luck cancels in their difference; what does not is drawn together with the recordings.
#
# ## The endpoint
#
# One number was named before the first run of the two arms that it compares: the accuracy of a branch after the joint
# phase with the named distillation, less that after the same phase with $\lambda = 0$; the mean over six cells, then over
# seeds, then over folds. Its interval comes from 10,000 draws of recordings *and* seeds. **Gain** if it lies above zero;
# **no gain worth having** if its upper end lies below 1.5 points; else **open**, with the number of recordings that would
# decide it. If two are met, the first counts. The 1.5 was set by hand: less than what the paper tells of log-mel.

# %%
answer = study.endpoint(blocks["pretrained"])
found = study.answering(blocks["pretrained"], "chosen", "none")
missing = [
    f"fold {fold}, seed {seed}"
    for fold in (1, 2, 3)
    for seed in (0, 1, 2)
    if (fold, seed) not in {(block.fold, block.seed) for block in found}
]
display(
    Markdown(tables.markdown(answer) if answer else "**No block is in yet: there is no verdict.**")
)
told = "; ".join(missing) + ". Until they are in, the verdict is provisional."
display(Markdown("Blocks that are missing: " + (told if missing else "none.")))

# %% tags=["hide-input"] jupyter={"source_hidden": true}
if found:
    figures.show(
        study.picture(found),
        alt="The accuracy of machines and of branches before, after the joint phase, and distilled; "
        "below it what the teacher adds, with its interval",
        caption="**Figure 6.4.** The endpoint. Above: the mean over cells, seeds and folds, with intervals whose overlap "
        "settles nothing: all were judged on the same recordings, whose luck cancels in the difference below. Shaded: a gain too small to be worth having.",
    )

# %% tags=["hide-input"] jupyter={"source_hidden": true}
if found:
    levels = [
        study.mean_over(found, lambda block, arm=arm: block.share(arm)).points
        for arm in (study.BEFORE, "none", "chosen")
    ]
    seen = study.contrast(found, "chosen", "none")
    low, high = seen.ends
    beyond = {True: "ruled out", False: "not ruled out"}
    display(
        Markdown(
            "In words: branches have {:.1f} % after pretraining, {:.1f} % after the joint phase without a teacher, and {:.1f} % "
            "with one. ".format(*levels)
            + f"That the teacher adds {study.WORTH_HAVING} points or more is {beyond[high < study.WORTH_HAVING]} by these "
            f"recordings and seeds, and that it takes as much away is {beyond[low > -study.WORTH_HAVING]}. This is said of softened "
            "scores; the paper's own loss is one of the four questions below."
        )
    )

# %% [markdown]
# The parts of that mean follow: each block, each fold, each branch in its pair. They are exploratory, so that they
# have intervals and no verdict. **Predict:** how many of the six branches will lie on the same side of zero?

# %% tags=["hide-input"] jupyter={"source_hidden": true}
if found:
    parts = {"All": (found, ())}
    for fold in sorted({block.fold for block in found}):
        parts[f"Fold {fold}"] = ([block for block in found if block.fold == fold], ())
    for pair, name in found[0].right["none"]:
        parts[f"{figures.label(name)} in {pair}"] = (found, [(pair, name)])
    seen = [study.contrast(part, "chosen", "none", cells=cells) for part, cells in parts.values()]
    ax = figures.plt.subplots(figsize=(6, 3.8))[1]
    for y, one in enumerate(seen):
        ax.plot(one.ends, [y, y], color="black" if y == 0 else "0.6")
        ax.plot(one.points, y, "D" if y == 0 else "o", color="black" if y == 0 else "0.4")
    for block in found:
        y = list(parts).index(f"Fold {block.fold}")
        ax.plot(
            100 * (block.share("chosen") - block.share("none")).mean(), y + 0.28, "|", color="0.4"
        )
    ax.axvline(0, color="0.4", ls=":")
    ax.axvline(study.WORTH_HAVING, color="0.8", ls="--")
    ax.set_yticks(range(len(parts)), list(parts))
    ax.invert_yaxis()
    ax.set(xlabel="points of accuracy that distillation adds")
    figures.sns.despine(ax=ax)
    figures.show(
        ax,
        alt="The endpoint and its parts, by fold and by branch in a pair, each with its interval",
        caption="**Figure 6.5.** Named distillation less lambda 0. The diamond is the endpoint; strokes below a fold are its "
        "seeds. Dashed: what would be worth having.",
    )
    n_gained = sum(one.points > 0 for one in seen[-6:])
    display(Markdown(f"{n_gained} of six branches lie above zero."))
    for of_fold_3 in [one for part, one in zip(parts, seen, strict=True) if part == "Fold 3"]:
        display(
            Markdown(
                "On fold 3 alone, the only one whose test clips nobody had used to look for a distillation: "
                f"{of_fold_3}."
            )
        )

# %% [markdown]
# ## "You could have counted otherwise"
#
# The rule was fixed, and others would have been as good. These are exploratory: the last column is what the rule would
# say of each, and no verdict. Where it changes, look at why: a part of the recordings tells less than all of them. And no
# way to count mends this: three seeds, drawn with replacement, show on average two thirds of the variance of seeds. Every interval
# here is rather too narrow than too wide.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
if found:
    ways = {
        "As the protocol says": (found, {}),
        "Each recording the same, however many clips were cut from it": (
            [block.by_recording() for block in found],
            {},
        ),
        "Folds 1 and 2": ([block for block in found if block.fold != 3], {}),
        "Fold 3": ([block for block in found if block.fold == 3], {}),
        "Seeds drawn anew for each fold": (found, {"one_draw_of_seeds": False}),
    }
    rows = []
    for what, (part, how) in ways.items():
        one = study.contrast(part, "chosen", "none", **how)
        points, ends = one.told
        verdict = one.verdict.partition(";")[0]
        rows.append(
            {
                "Counted": what,
                "Points": points,
                "95 % interval": ends,
                "The rule would say": verdict,
            }
        )
    display(Markdown(tables.markdown(rows)))

# %% [markdown]
# And what was it worth that the two arms of a block share their parents, their order and their views?


# %%
def accuracies(arm):  # fold and cell -> a number for each seed
    by_cell = {}
    for block in found:
        for cell, right in block.right[arm].items():
            by_cell.setdefault((block.fold, cell), []).append(100 * right.mean())
    return {k: np.array(seeds) for k, seeds in by_cell.items() if len(seeds) > 1}


# %% tags=["hide-input"] jupyter={"source_hidden": true}
if found and accuracies("none"):
    sides = [(accuracies("chosen")[k], without) for k, without in accuracies("none").items()]
    paired = np.sqrt(np.mean([np.var(a - b, ddof=1) for a, b in sides]))
    apart = np.sqrt(np.mean([np.var(a, ddof=1) + np.var(b, ddof=1) for a, b in sides]))
    display(
        Markdown(
            f"From seed to seed, the difference of one branch varies with a standard deviation of **{paired:.1f} "
            f"points**. Had the arms not shared a seed, it would be {apart:.1f}, and the same certainty would cost "
            f"{(apart / paired) ** 2:.1f} times as many runs."
        )
    )

# %% [markdown]
# ## Four more questions, and their price
#
# Does distillation beat equal training? Does it beat the branches as they were? Does the paper's own loss beat lambda 0?
# And does distillation help networks from scratch? Whoever asks four questions finds "significance" in one of them by
# luck four times as easily. A p-value says how often luck alone would show as much. Holm's correction makes the
# questions pay: the smallest is multiplied by four, the next by three, and so on, and none may fall below the one
# before. Below 0.05 the sign of the difference is believed; else the question is open.

# %% tags=["nbval-check-output"]
p = {"a": 0.012, "b": 0.04, "c": 0.03, "d": 0.5}
print({question: round(value, 3) for question, value in study.holm(p).items()})

# %% [markdown]
# Three of the four lie under 0.05 before the correction, and one after it.

# %%
rows = study.secondary(blocks["pretrained"], blocks["scratch"])
display(Markdown(tables.markdown(rows) if rows else "None of the four can be answered yet."))

# %% [markdown]
# ## "Why?"
#
# Whatever the answer, something changed inside. Take twins: two runs of one fold, seed and pair that differ in the
# distillation alone. If the paper's story is true, a branch that imitates the fused classifier should come to give *its*
# answers, the two branches of a pair should come to agree, and the clips that they lose should become the same.
#
# **Predict:** which of the three will move, and which way?


# %%
def is_arm(run, *, kd_weight):
    params = run.params
    usual = run.provenance.kind == "fusion" and params.weights == "imagenet" and params.fused_weight
    return usual and params.kd_weight == kd_weight


def key(run):
    return run.params.fold, run.params.seed, run.params.pair


controls = {key(run): run for run in arms.values() if is_arm(run, kd_weight=0)}
taught = {key(run): run for run in arms.values() if is_arm(run, kd_weight=1)}
twins = [(controls[k], taught[k]) for k in sorted(controls.keys() & taught.keys())]
print(len(twins), "twins")


# %%
def answers_of(run):  # of the branches (2, n), of the fused classifier (n,), the right ones (n,)
    heads = [*run.params.representations, FUSED]
    *branches, fused = (run.scores[head].argmax(1) for head in heads)
    return np.array(branches), fused, run.test.targets


def as_teacher(run):  # (n,) the share of branches that give the fused classifier's answer
    branches, fused, _ = answers_of(run)
    return (branches == fused).mean(0)


def as_each_other(run):
    (one, other), _, _ = answers_of(run)
    return one == other


def one_alone_right(run):
    branches, _, right = answers_of(run)
    return (branches == right).sum(0) == 1


def surprise(run):  # (n,) the mean of -log (to base e: in nats) of the right class's score
    rows = np.arange(len(run.test.targets))
    right = [run.scores[name][rows, run.test.targets] for name in run.params.representations]
    return -np.log(np.maximum(right, 1e-9)).mean(0)


def fused_right(run):
    _, fused, right = answers_of(run)
    return fused == right


def mean_right(run):
    scores = np.mean([run.scores[name] for name in run.params.representations], axis=0)
    return scores.argmax(1) == run.test.targets


# %% [markdown]
# Each of these is a number per clip, as *right* or *wrong* was. So it is a study of its own, with the same draws of
# recordings and seeds.


# %%
def study_of(measure):
    found = {}
    for control, run in twins:
        fold, seed, pair = key(run)
        block = study.Block(fold, seed, run.test.groups, {"none": {}, "chosen": {}})
        right = found.setdefault((fold, seed), block).right
        right["none"][pair], right["chosen"][pair] = measure(control), measure(run)
    return list(found.values())


# %% tags=["hide-input"] jupyter={"source_hidden": true}
measures = {
    "A branch gives its teacher's answer": (as_teacher, 1, " %"),
    "Two branches give one answer": (as_each_other, 1, " %"),
    "One of two branches alone is right": (one_alone_right, 1, " %"),
    "Surprise at the right answer": (surprise, 0.01, " nats"),
    "The fused classifier is right": (fused_right, 1, " %"),
    "The mean of the branches' scores is right": (mean_right, 1, " %"),
}
sides = {"Lambda 0": "none", "Distilled": "chosen"}
rows, moved = [], []
for what, (measure, scale, unit) in measures.items() if twins else ():
    per_clip = study_of(measure)
    one = study.contrast(per_clip, "chosen", "none")
    low, high = (scale * end for end in one.ends)
    digits = 1 if scale == 1 else 2
    row = {"Mean over twins": what}
    for title, arm in sides.items():
        level = study.mean_over(per_clip, lambda block, arm=arm: block.share(arm)).points
        row[title] = f"{scale * level:.{digits}f}{unit}"
    row["Difference"] = f"{scale * one.points:+z.{digits}f}"
    row["95 % interval"] = f"{low:+z.{digits}f} to {high:+z.{digits}f}"
    rows.append(row)
    moved += [f"{what.lower()} ({row['Difference']})"] if low > 0 or high < 0 else []
display(Markdown(tables.markdown(rows) if rows else "No twins yet."))
if rows:
    told = "; ".join(moved) or "none of them"
    display(Markdown(f"Rows whose interval leaves out zero: {told}."))

# %% [markdown]
# Read the last two rows with the first three. To imitate is not to learn: a branch can come closer to its teacher and be no
# more often right. And a committee lives on members that err differently. If distillation makes them err alike, the
# fused classifier, which sees through the same trunks, has less to teach; whether it has, the last two rows say.

# %% [markdown]
# Which classes gain, and which pay? Each dot is one fold, the mean over seeds and branches; the bar is the mean of folds.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
if twins:
    classes = twins[0][0].provenance.classes
    gained = {}  # class -> fold -> points, a number for each twin and branch
    for control, run in twins:
        for name in run.params.representations:
            truth = run.test.targets
            after, before = (one.scores[name].argmax(1) == truth for one in (run, control))
            for k in np.unique(truth):
                change = 100 * (after[truth == k].mean() - before[truth == k].mean())
                of_class = gained.setdefault(classes[k].replace("_", " "), {})
                of_class.setdefault(run.params.fold, []).append(change)
    means = {k: [np.mean(x) for x in by_fold.values()] for k, by_fold in gained.items()}
    order = sorted(means, key=lambda k: np.mean(means[k]))
    ax = figures.plt.subplots(figsize=(6, 3.6))[1]
    ax.barh(order, [np.mean(means[k]) for k in order], color="0.85")
    for k in order:
        ax.plot(means[k], [k] * len(means[k]), "o", color="0.3", ms=4)
    ax.axvline(0, color="0.4", lw=0.8)
    ax.set(xlabel="points of accuracy that distillation adds")
    figures.sns.despine(ax=ax)
    figures.show(
        ax,
        alt="For each class of UrbanSound8K what distillation adds, by fold and on the mean",
        caption="**Figure 6.6.** What the named distillation adds to each class. Where the dots of a class lie on both sides of zero, its "
        "bar says little.",
    )

# %% [markdown]
# And which sounds? Over all seeds, pairs and branches, and all clips that were cut from a recording, take the share of
# right answers with distillation, less the share without. These changed most; each name leads to the recording.

# %% tags=["hide-input"] jupyter={"source_hidden": true}
changes = {}
for control, run in twins:
    for name in run.params.representations:
        after, before = (one.scores[name].argmax(1) == run.test.targets for one in (run, control))
        moved = after.astype(int) - before.astype(int)
        for recording, label, change in zip(run.test.groups, run.test.targets, moved, strict=True):
            changes.setdefault((recording, classes[label]), []).append(change)
ranked = sorted(changes, key=lambda k: (np.mean(changes[k]), k))
rows = [
    {
        "Recording": f"[{recording}](https://freesound.org/s/{recording}/)",
        "Class": label.replace("_", " "),
        "Answers (clips × seeds × cells)": len(changes[recording, label]),
        "Distilled less lambda 0": f"{100 * np.mean(changes[recording, label]):+.0f} points",
    }
    for recording, label in [*ranked[:-4:-1], *ranked[:3]]
]
display(Markdown(tables.markdown(rows) if rows else "No twins yet."))

# %% [markdown]
# Listen to a few, if you like, and beware of patterns: among so many recordings, some move by luck alone.
#
# ## What is open
#
# - Blocks and arms that are missing above. The arms are files in `params/study/`; one command per part runs them,
#   and goes on where it was stopped:
#
# ```
# FUSIONKD_DATA=data fusionkd run params/study/pretrained/*.yaml
# FUSIONKD_DATA=data fusionkd run params/study/scratch/*.yaml
# FUSIONKD_DATA=data fusionkd run params/study/choosing/*.yaml
# ```
#
# - Whether another distillation would do better: one was named.
# - What in a distillation does what. Teachers that know less (their wrong classes permuted, a branch's own average,
#   smoothed labels), other ways to fuse, other weights and temperatures have not run. Nor have the same representation
#   twice, one network as large as the fused one, and the paper exactly as written, its optimiser and schedule too.
# - One fold is held back; nobody has tested a network of this project on its clips.
#
# ## Recap
#
# - "Better after than before" is weak evidence for a teacher. A control that differs in the teacher alone is.
# - The question, the arms, the interval and the verdict are fixed before the first run, or they will fit.
# - A difference of two single runs can be luck alone; pairs that share their luck cancel some of it.
# - Open is an answer, if it says what would close it.
#
# ## Exercises
#
# **1. Holm's correction.** Write it for a list of p-values; the corrected ones come in the order of the list.


# %%
def holm(p_values):  # list of numbers → list of numbers
    ...


exercises.check("6.1", holm)


# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution.
def solution_1(p_values):
    order = np.argsort(p_values)
    stepped = np.sort(p_values) * np.arange(len(p_values), 0, -1)
    corrected = np.minimum(np.maximum.accumulate(stepped), 1)
    return corrected[np.argsort(order)]


exercises.check("6.1", solution_1)

# %% [markdown]
# **2. Equal weight.** One fold has 900 test clips, another 300. An arm gains 2 points on the first and loses 1 on
# the second. What is the mean with equal weight of the folds, and what if each clip counted the same? Answer with the two numbers.

# %%
two_means = ...

exercises.check("6.2", two_means)

# %% tags=["hide-input"] jupyter={"source_hidden": true}
# Solution. The protocol takes the first: a fold is a set of places, not a number of clips.
exercises.check("6.2", [(2 - 1) / 2, (900 * 2 - 300 * 1) / (900 + 300)])

# %% [markdown]
# **3. A control of your own.** The branch could also imitate *itself*, as it was before. What would it show if that
# helped as much as the fused classifier?
#
# <details><summary>Solution</summary>
#
# That the gain needs no second representation: softened answers alone, as a kind of label smoothing, would explain it.
# The paper's story, complementary information that flows from one representation to the other, would then have no
# support from that gain.
#
# </details>
#
# **Next:** [chapter 7](07_on_a_device.py) puts a distilled branch on a device. The [protocol](appendix_protocol.md)
# has the study's fine print.
