"""Figures show the given numbers, for few and for many classes."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from coinml.evaluation.evaluate import Evaluation, confused_pairs, evaluate
from coinml.evaluation.intervals import Estimate
from coinml.evaluation.paired import compare
from coinml.figures import comparison, style, training
from coinml.figures import evaluation as evaluation_figures

SIX = tuple(f"Class{letter}" for letter in "ABCDEF")


def answers(classes: int, n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % classes
    proba = rng.dirichlet(np.ones(classes), n)
    proba[np.arange(n), truth] += rng.random(n) * 0.4
    return truth, proba / proba.sum(axis=1, keepdims=True)


def evaluation(*, seed: int = 0, names: tuple[str, ...] = SIX, n: int = 120) -> Evaluation:
    truth, proba = answers(len(names), n, seed=seed)
    return evaluate(truth, proba, names, official_size=n + 30)


def estimates(measured: Evaluation) -> dict[str, Estimate]:
    found = {name: getattr(measured, name) for name in Evaluation.__dataclass_fields__}
    return {name: value for name, value in found.items() if isinstance(value, Estimate)}


def texts(figure: Figure) -> set[str]:
    found = {text.get_text() for axis in figure.axes for text in axis.texts}
    for axis in figure.axes:
        found |= {label.get_text() for label in axis.get_xticklabels() + axis.get_yticklabels()}
        found |= {axis.get_xlabel(), axis.get_ylabel()}
        if axis.get_legend() is not None:
            found |= {text.get_text() for text in axis.get_legend().get_texts()}
    return found


def drawn(figure: Figure, folder: Path) -> tuple[int, int]:
    """Width and height in pixels of the figure's file, which is not a blank sheet."""
    from PIL import Image

    path = folder / "figure.png"
    style.save(figure, path, dpi=100)
    with Image.open(path) as image:
        assert len(image.convert("L").getcolors() or ()) > 10
        return image.size


def test_curves_show_three_metrics_of_train_and_val(tmp_path: Path) -> None:
    epochs = np.arange(1, 9)
    history = pd.DataFrame(
        {"epoch": epochs}
        | {f"{s}_loss": 1 / epochs for s in ("train", "val")}
        | {f"{s}_{m}": epochs / 9 for s in ("train", "val") for m in ("accuracy", "f1_macro")}
    )
    figure = training.curves(history, best_epoch=6)
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss (nats)", "accuracy", "macro-F1"]
    for axis in figure.axes:
        train, val, kept = axis.get_lines()
        assert len(train.get_xdata()) == len(val.get_xdata()) == 8
        assert set(kept.get_xdata()) == {6}
    assert {"train", "val", "kept"} <= texts(figure)
    assert drawn(figure, tmp_path) == (1100, 360)


def test_a_single_epoch_is_drawn(tmp_path: Path) -> None:
    columns = [f"{s}_{m}" for s in ("train", "val") for m in ("loss", "accuracy", "f1_macro")]
    history = pd.DataFrame({"epoch": [1]} | {name: [0.5] for name in columns})
    drawn(training.curves(history, best_epoch=1), tmp_path)


def test_a_confusion_matrix_names_and_counts_its_classes(tmp_path: Path) -> None:
    measured = evaluation()
    figure = evaluation_figures.confusion(measured.confusion, SIX, title="Test")
    panel, bar = figure.axes
    shown = panel.get_images()[0].get_array()
    np.testing.assert_allclose(shown.sum(axis=1), 1)
    assert bar.get_ylabel() == "share of the true class"
    counts = sorted(int(text.get_text()) for text in panel.texts)
    assert counts == sorted(measured.confusion[measured.confusion > 0].tolist())
    assert sum(counts) == 120
    assert set(SIX) <= texts(figure)
    drawn(figure, tmp_path)


@pytest.mark.parametrize("classes", [2, 25, 40, 61])
@pytest.mark.parametrize("name", ["Class", "AClassWithARatherLongName"])
def test_nothing_of_a_confusion_matrix_is_cut_off(tmp_path: Path, classes: int, name: str) -> None:
    from PIL import Image

    names = [f"{name}{i}" for i in range(classes)]
    path = tmp_path / "figure.png"
    style.save(
        evaluation_figures.confusion(np.eye(classes, dtype=np.int64), names, title="Test"), path
    )
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert edge.min() == 255


def test_a_class_without_videos_is_an_empty_row() -> None:
    matrix = np.array([[3, 1], [0, 0]])
    shown = evaluation_figures.confusion(matrix, ("a", "b")).axes[0].get_images()[0].get_array()
    assert shown.tolist() == [[0.75, 0.25], [0.0, 0.0]]


def test_180_classes_fit_into_the_figure(tmp_path: Path) -> None:
    names = tuple(f"Class{i:03}" for i in range(180))
    measured = evaluation(names=names, n=400)
    matrix = evaluation_figures.confusion(measured.confusion, names)
    assert not matrix.axes[0].texts
    assert "predicted (index of the class, sorted by name)" in texts(matrix)
    width, height = drawn(matrix, tmp_path)
    assert max(width, height) <= 1800
    bars = evaluation_figures.per_class(measured.per_class)
    assert len(bars.axes[0].patches) == 60
    assert "best above, worst below" in texts(bars)
    assert drawn(bars, tmp_path)[1] <= 1800


COIN = 180
DOMAINS = {f"ATaskWithARatherLongName{i:03}": f"Domain {i * 7 % 12:02}" for i in range(COIN)}


def test_many_classes_are_grouped_by_domain(tmp_path: Path) -> None:
    names = tuple(DOMAINS)
    matrix = np.diag(np.arange(1, COIN + 1))
    figure = evaluation_figures.confusion(matrix, names, title="Test", domains=DOMAINS)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        f"Domain {i:02} (15)" for i in range(12)
    ]
    assert len(axis.get_lines()) == 22
    assert "predicted (classes by domain, then by name)" in texts(figure)
    # Values on the diagonal stay there.
    assert np.diag(axis.get_images()[0].get_array()).tolist() == [1.0] * COIN
    width, height = drawn(figure, tmp_path)
    assert max(width, height) <= 1800


def test_one_evaluation_has_all_its_figures(tmp_path: Path) -> None:
    few = evaluation_figures.figures_of(evaluation(), SIX)
    assert set(few) == {"per_class", "confusion", "calibration"}
    domains = {name: "Car" if name < "ClassC" else "Drink" for name in SIX}
    assert set(evaluation_figures.figures_of(evaluation(), SIX, domains=domains)) == {
        *few,
        "confusion_domains",
    }
    names = tuple(DOMAINS)
    many = evaluation_figures.figures_of(evaluation(names=names, n=400), names, domains=DOMAINS)
    assert set(many) == {*few, "confusion_domains", "confused_pairs"}
    assert {f"Domain {i:02}" for i in range(12)} <= texts(many["confusion_domains"])
    for figure in many.values():
        width, height = drawn(figure, tmp_path)
        assert max(width, height) <= 1800


def test_calibration_shows_each_bin_and_its_number_of_videos(tmp_path: Path) -> None:
    measured = evaluation(n=300)
    figure = evaluation_figures.calibration(measured, title="Test")
    above, below = figure.axes
    rows = measured.reliability
    curve = above.containers[0].lines[0]
    assert curve.get_xdata().tolist() == rows["score"].tolist()
    assert curve.get_ydata().tolist() == rows["accuracy"].tolist()
    assert [bar.get_height() for bar in below.patches] == rows["videos"].tolist()
    assert f"error {measured.calibration_error:.3f}" in below.get_xlabel()
    drawn(figure, tmp_path)


def test_the_most_confused_pairs_are_named(tmp_path: Path) -> None:
    matrix = np.array([[9, 3, 0], [1, 9, 0], [0, 0, 9]])
    pairs = confused_pairs(matrix, ("tea", "coffee", "x" * 90))
    figure = evaluation_figures.most_confused(pairs)
    assert {"tea → coffee", "coffee → tea", "25%", "10%"} <= texts(figure)
    assert len(figure.axes[0].patches) == 2
    drawn(figure, tmp_path)


def test_classes_are_sorted_by_f1_and_show_their_support(tmp_path: Path) -> None:
    measured = evaluation()
    figure = evaluation_figures.per_class(measured.per_class, title="Test, by class")
    (axis,) = figure.axes
    lengths = [bar.get_width() for bar in axis.patches]
    assert lengths == sorted(measured.per_class["f1"], reverse=True)
    names = {label.get_text() for label in axis.get_yticklabels()}
    assert names == {f"{name} (20)" for name in SIX}
    drawn(figure, tmp_path)


def test_a_class_without_test_videos_is_not_drawn() -> None:
    truth, proba = answers(6, 50, seed=3)
    keep = truth != 2
    table = evaluate(truth[keep], proba[keep], SIX).per_class
    assert len(evaluation_figures.per_class(table).axes[0].patches) == 5


def test_heads_are_compared_with_intervals_and_the_paired_test(tmp_path: Path) -> None:
    both = [evaluation(seed=1), evaluation(seed=2)]
    tables = []
    for seed in (1, 2):
        truth, proba = answers(6, 120, seed=seed)
        tables.append(
            pd.DataFrame(
                {
                    "video_id": [str(i) for i in range(120)],
                    "label": truth,
                    "predicted": proba.argmax(axis=1),
                }
            )
        )
    paired = compare(*tables)
    figure = comparison.comparison(
        ["mlp", "svm"], [estimates(e) for e in both], majority_rate=1 / 6, paired=paired
    )
    (axis,) = figure.axes
    heights = [bar.get_height() for bar in axis.patches]
    assert len(heights) == 8
    assert heights[0] == both[0].accuracy.value
    assert heights[4] == both[1].accuracy.value
    assert {"mlp", "svm", "majority class"} <= texts(figure)
    assert f"McNemar p = {paired.mcnemar.p_value:.3g}" in axis.get_xlabel()
    assert "on 120 common videos" in axis.get_xlabel()
    drawn(figure, tmp_path)


@pytest.mark.parametrize("classes", [0, 1, 6, 180])
def test_the_classes_in_which_two_heads_differ(tmp_path: Path, classes: int) -> None:
    rows = [
        {
            "class": f"ATaskWithARatherLongName{i:03}",
            "support": 20,
            "correct_a": 10,
            "correct_b": 10 + i % 9 - 4,
            "difference": i % 9 - 4,
        }
        for i in range(classes)
    ]
    table = pd.DataFrame(rows, columns=["class", "support", "correct_a", "correct_b", "difference"])
    figure = comparison.class_differences(table, ("mlp", "svm"), title="By class")
    (axis,) = figure.axes
    lengths = [bar.get_width() for bar in axis.patches]
    assert len(lengths) == min(40, sum(row["difference"] != 0 for row in rows))
    assert lengths == sorted(lengths, reverse=True)
    if classes == 180:
        assert set(map(abs, lengths)) == {4}
    assert "correct videos of svm minus those of mlp" in axis.get_xlabel()
    drawn(figure, tmp_path)


@pytest.mark.parametrize("count", [1, 3])
def test_one_head_and_three_heads_are_drawn(tmp_path: Path, count: int) -> None:
    names = [f"head{i}" for i in range(count)]
    figure = comparison.comparison(
        names, [estimates(evaluation(seed=i)) for i in range(count)], majority_rate=0.5
    )
    assert len(figure.axes[0].patches) == 4 * count
    drawn(figure, tmp_path)


def test_the_search_figure_marks_the_chosen_setting(tmp_path: Path) -> None:
    rows = [
        (kernel, gamma, c)
        for kernel, gamma in (("linear", None), ("rbf", 0.1), ("rbf", 1.0))
        for c in (0.01, 1.0, 100.0)
    ]
    search = pd.DataFrame(rows, columns=["kernel", "gamma", "c"])
    search["fit"] = range(1, 10)
    search["val_accuracy"] = [0.2, 0.5, 0.4, 0.3, 0.9, 0.9, 0.1, 0.2, 0.3]
    search["val_f1_macro"] = search["val_accuracy"]
    search["train_accuracy"] = 1.0
    figure = training.svm_search(search)
    over_c, over_gamma = figure.axes
    *lines, chosen = over_c.get_lines()
    # Each has a line for val and one for train.
    assert len(lines) == 2 * 3
    # Of two equally good settings the simpler one is marked, as the search chooses.
    assert (list(chosen.get_xdata()), list(chosen.get_ydata())) == ([1.0], [0.9])
    assert {"linear", "RBF, gamma 0.1/D", "RBF, gamma 1/D", "chosen"} <= texts(figure)
    *lines, chosen = over_gamma.get_lines()
    assert [list(line.get_ydata()) for line in lines[::2]] == [[0.3, 0.1], [0.9, 0.2], [0.9, 0.3]]
    assert (list(chosen.get_xdata()), list(chosen.get_ydata())) == ([0.1], [0.9])
    assert {"RBF, C 0.01", "RBF, C 1", "RBF, C 100"} <= texts(figure)
    drawn(figure, tmp_path)
    linear = training.svm_search(search[search["kernel"] == "linear"])
    assert len(linear.axes) == 1


def test_threads_draw_at_the_same_time(tmp_path: Path) -> None:
    measured, failures = evaluation(), []

    def draw(number: int) -> None:
        try:
            style.save(
                evaluation_figures.confusion(measured.confusion, SIX),
                tmp_path / f"{number}.png",
                dpi=60,
            )
        except Exception as err:
            failures.append(err)

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len({path.read_bytes() for path in tmp_path.glob("*.png")}) == 1
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_the_paths_ending_chooses_the_format_and_svg_keeps_its_text(tmp_path: Path) -> None:
    style.save(evaluation_figures.per_class(evaluation().per_class), tmp_path / "figure.svg")
    assert "ClassA (20)" in (tmp_path / "figure.svg").read_text()


ODD = (
    "Fold a $1_$2 bill",
    "US$ to EU$",
    r"back\slash_^{x} \$5",
    "x" * 300,
    "two\nlines \x1b[31m",
    "turned \u202egpj.exe",
    "煮鸡蛋",
    "Нарезать лук 🧅",
    "한국어 かな",
    "कखग",
    "<b>&\"'`",
)


def test_names_from_outside_are_drawn_as_they_are(tmp_path: Path) -> None:
    """No name is a formula, no box stands for a character, and every format is written."""
    measured = evaluation(names=ODD)
    drawn = evaluation_figures.figures_of(
        measured, ODD, domains=dict.fromkeys(ODD[:5], "a $1_$2") | dict.fromkeys(ODD[5:], "ξ^$")
    )
    drawn["differences"] = comparison.class_differences(
        pd.DataFrame(
            {
                "class": ODD,
                "difference": range(1, len(ODD) + 1),
                "correct_a": 0,
                "correct_b": 9,
                "support": 9,
            }
        ),
        ["mlp", "svm"],
        title=ODD[0],
    )
    with warnings.catch_warnings():
        # Matplotlib warns of each character that no font has.
        warnings.simplefilter("error")
        for name, figure in drawn.items():
            for ending in ("png", "svg", "pdf"):
                style.save(figure, tmp_path / f"{name}.{ending}")
    shown = " ".join(texts(drawn["per_class"]))
    for text in (
        r"Fold a \$1_\$2 bill",
        r"US\$ to EU\$",
        r"back\slash_^{x} \\$5",
        "x" * 33 + "…",
        r"two\nlines \x1b[31m",
        r"turned \u202egpj.exe",
        "煮鸡蛋",
        "Нарезать лук [onion]",
        "한국어 かな",
        "U+0915U+0916U+0917",
    ):
        assert text in shown


def test_a_figure_shows_dollar_signs_and_not_their_escapes(tmp_path: Path) -> None:
    figure = evaluation_figures.per_class(evaluation(names=ODD).per_class)
    style.save(figure, tmp_path / "figure.svg")
    written = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert "Fold a $1_$2 bill" in written
    assert r"back\slash_^{x} \$5" in written
