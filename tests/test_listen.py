"""The page that listens, as it is put together: one file, whose parts are those that went in.

Stubs stand in for ONNX Runtime and for the networks; tests/test_listening.py opens the real page.
"""

import base64
import gzip
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bs4 import BeautifulSoup
from onnx import TensorProto, helper
from test_export import TOLD

from fusionkd_book import listen, web
from fusionkd_lib.datasets import urban_synth
from fusionkd_lib.datasets.urbansound8k import CLASSES
from fusionkd_lib.errors import InputError
from fusionkd_lib.filters import erb_frequencies, gammatone_response, mel_edges, mel_weights

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "book" / "site" / "listen"
RATE, WINDOW = 16000, 0.25
SCRIPT, WASM = b"export const stub = '</script>';", bytes(range(256))


def write_stub(path: Path, head: str, *heads: str) -> None:
    """Write a file that scores every class alike, with the metadata of an exported network."""
    n = len(CLASSES)
    facts = TOLD.model_dump() | {
        **{"labels": CLASSES, "thresholds": (0.5,) * n, "multi_label": False, "head": head},
        **{"sample_rate": RATE, "window_seconds": WINDOW, "heads": heads},
        **{
            "thresholds_of": dict.fromkeys(heads, (0.5,) * n),
            "score_of": dict.fromkeys(heads, 0.5),
        },
    }
    outputs = ["scores", *(f"scores_{name}" for name in heads)]
    value = helper.make_tensor("value", TensorProto.FLOAT, [1, n], np.full(n, 1 / n))
    nodes = [helper.make_node("Constant", [], [output], value=value) for output in outputs]
    floats = TensorProto.FLOAT
    given = [helper.make_tensor_value_info("waveform", floats, ["batch", "samples"])]
    told = [helper.make_tensor_value_info(output, floats, [1, n]) for output in outputs]
    opset = helper.make_opsetid("", 18)
    graph = helper.make_graph(nodes, "stub", given, told)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    helper.set_model_props(model, {key: json.dumps(fact) for key, fact in facts.items()})
    onnx.save(model, path)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> tuple[Path, list[Path]]:
    """Return a folder of stub networks, and the files of a stub runtime."""
    folder = tmp_path_factory.mktemp("weights")
    write_stub(folder / "logmel.onnx", "logmel")
    write_stub(folder / "fused.onnx", "fused", "logmel", "gammatone")
    runtime = [folder / "ort.mjs", folder / "ort.wasm"]
    for path, content in zip(runtime, (SCRIPT, WASM), strict=True):
        path.write_bytes(content)
    return folder, runtime


@pytest.fixture(scope="module")
def page(parts) -> BeautifulSoup:
    return BeautifulSoup(listen.assemble(SOURCES, *parts), "html.parser")


def held(page: BeautifulSoup, name: str) -> bytes:
    return base64.b64decode(page.find(id=name).string)


def config(page: BeautifulSoup) -> dict:
    return json.loads(page.find(id="config").string)


def test_the_page_leads_nowhere_and_loads_nothing(page):
    links = [tag.get(key) for tag in page.find_all() for key in ("src", "href", "action", "data")]
    assert all(link is None or link.startswith("#") for link in links)
    styles = "".join(tag.string for tag in page.find_all("style"))
    assert "url(" not in styles
    assert "@import" not in styles
    (policy,) = page.select("meta[http-equiv=Content-Security-Policy]")
    rules = dict(rule.split(None, 1) for rule in policy["content"].split("; "))
    assert rules["default-src"] == rules["connect-src"] == rules["form-action"] == "'none'"
    assert not any("http" in rule or "*" in rule for rule in rules.values())


def test_the_page_holds_each_networks_bytes_and_the_runtimes(page, parts):
    for name in listen.NETWORKS:
        assert held(page, name) == (parts[0] / f"{name}.onnx").read_bytes()
    assert held(page, "runtime") == SCRIPT
    assert gzip.decompress(held(page, "wasm")) == WASM


def test_the_scripts_and_styles_are_the_sources(page):
    scripts = [tag.string.strip() for tag in page.find_all("script", attrs={"type": None})]
    sources = [SOURCES / name for name in ("spectrograms.js", "networks.js", "listen.js")]
    assert scripts == [path.read_text().strip() for path in sources]
    assert page.style.string.strip() == (SOURCES / "listen.css").read_text().strip()


def test_there_is_a_column_for_each_way_to_learn(page):
    columns = [
        (network["id"], column["head"], column["note"])
        for network in config(page)["networks"]
        for column in network["columns"]
    ]
    assert columns == [
        ("logmel", "logmel", "alone"),
        ("fused", "logmel", "distilled"),
        ("fused", "gammatone", "distilled"),
        ("fused", "fused", "teacher"),
    ]


def test_there_is_a_clip_of_each_class_at_the_networks_rate_and_the_same_each_time(page, parts):
    clips = config(page)["clips"]
    assert [clip["label"] for clip in clips] == list(CLASSES)
    sounds = np.stack([np.frombuffer(held(page, clip["id"]), "<i2") for clip in clips]) / 2**15
    duration = listen.CLIP_WINDOWS * WINDOW
    made = urban_synth.clips(clips_per_class=1, n_folds=3, duration=duration, seed=listen.CLIP_SEED)
    for k, sound in enumerate(sounds):
        assert made.targets[k] == k
        np.testing.assert_allclose(sound, made.read(k, RATE), atol=0.5001 / 2**15)
    again = BeautifulSoup(listen.assemble(SOURCES, *parts), "html.parser")
    assert again == page


def test_the_gains_are_those_of_the_filters(page):
    frequencies = np.fft.rfftfreq(1024, 1 / RATE)
    mel = mel_weights(frequencies, edges=mel_edges(64, fmin=20, fmax=RATE / 2))
    centres = erb_frequencies(64, fmin=20, fmax=RATE / 2)
    response = gammatone_response(frequencies, centres=centres, rate=RATE)
    for name, expected in (("logmel", mel), ("gammatone", np.abs(response) / 1024)):
        gains = np.frombuffer(held(page, f"gains-{name}"), "<f4").reshape(64, -1)
        assert torch.equal(torch.from_numpy(expected).float(), torch.from_numpy(gains.copy()))


def test_a_missing_network_is_told_in_a_sentence(parts, tmp_path):
    with pytest.raises(InputError, match=r"logmel\.onnx: the page that listens needs it"):
        listen.assemble(SOURCES, tmp_path, parts[1])


def test_a_file_without_the_distilled_branches_is_told_in_a_sentence(parts, tmp_path):
    write_stub(tmp_path / "logmel.onnx", "logmel")
    write_stub(tmp_path / "fused.onnx", "fused")
    with pytest.raises(InputError, match=r"fused\.onnx: has no head logmel: .* --head all"):
        listen.assemble(SOURCES, tmp_path, parts[1])


def test_a_page_that_is_too_large_is_not_written(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(web, "vendor", lambda package, folder: parts[1])
    monkeypatch.setattr(listen, "project_root", lambda: tmp_path)
    (tmp_path / "book" / "site").mkdir(parents=True)
    (tmp_path / "book" / "site" / "listen").symlink_to(SOURCES)
    (tmp_path / "book" / "weights").symlink_to(parts[0])
    assert listen.write(tmp_path / "site" / "listen.html").is_file()
    monkeypatch.setattr(listen, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="MB are more than 0"):
        listen.write(tmp_path / "other" / "listen.html")
    assert not (tmp_path / "other").exists()
