"""The web book: all that Sphinx builds it from, gathered in one folder by `make site`.

Chapters are the executed copies, and are not run again. Every finished run of the reference folder
is told on a page, to which the rows of the tables lead.
"""

import base64
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat

from fusionkd_book import record_pages
from fusionkd_lib.errors import InputError
from fusionkd_lib.runs import project_root

# npm packages at one version, by the hash of what the registry packed, and the files that are used.
VENDORED = {
    "mathjax@3.2.2": (
        "Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        "package/es5/tex-svg-full.js",
    ),
    "axe-core@4.14.1": (
        "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        "package/axe.min.js",
    ),
    "onnxruntime-web@1.30.0": (
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        "package/dist/ort.wasm.bundle.min.mjs",
        "package/dist/ort-wasm-simd-threaded.wasm",
    ),
}
PAGES = ("book/appendix_protocol.md", "book/appendix_many_runs.md")


def vendor(package: str, folder: Path) -> list[Path]:
    """Return the files of a pinned npm package, fetched and checked once.

    Raises
    ------
    InputError
        Where npm is missing or fails, or the package is not the one that was pinned.
    """
    digest, *members = VENDORED[package]
    paths = [folder / Path(member).name for member in members]
    if all(path.exists() for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as place:
        command = ["npm", "pack", "--silent", "--pack-destination", place, package]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(
                f"{package}: npm could not fetch it: install npm, go online"
            ) from error
        (archive,) = Path(place).iterdir()
        if hashlib.sha512(archive.read_bytes()).digest() != base64.b64decode(digest):
            raise InputError(
                f"{package}: another content than the pinned: update VENDORED on purpose"
            )
        with tarfile.open(archive) as files:
            for member, path in zip(members, paths, strict=True):
                path.write_bytes(files.extractfile(member).read())
    return paths


def gather(folder: Path) -> Path:
    """Put the sources of every page of the web book into a folder, which is made anew."""
    root = project_root()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "book" / "site", folder)
    shutil.copy(*vendor("mathjax@3.2.2", folder.parent / "vendor"), folder / "_static")
    reference = root / "outputs" / "reference"
    shutil.copy(reference / "endpoint.svg", folder)
    for page in PAGES:
        shutil.copy(root / page, folder)
    shutil.copy(root / "params" / "tuning" / "README.md", folder / "appendix_tuning.md")
    linked = record_pages.write([reference, reference / "seeds"], folder / "records")
    executed = root / "outputs" / "executed"
    shutil.copytree(executed / "sounds", folder / "sounds")
    for path in sorted(executed.glob("*.ipynb")):
        notebook = as_page(nbformat.read(path, as_version=4), linked, folder / "pictures")
        nbformat.write(notebook, folder / path.name)
    return folder


def as_page(
    notebook: nbformat.NotebookNode, linked: Mapping[str, str], pictures: Path
) -> nbformat.NotebookNode:
    """Return an executed copy whose links, tables and pictures are those of the web book."""
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../../book/", "](")
        cell.source = cell.source.strip("\n")  # as HTML shows it: where links are looked for
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "hide-input"})
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        for output in cell.get("outputs", []):
            _turn(output, linked, pictures, alt=alt)
    return notebook


def _turn(
    output: nbformat.NotebookNode, linked: Mapping[str, str], pictures: Path, *, alt: str
) -> None:
    """Link the rows of tables, and hand each picture's own alternative text to the page."""
    data = output.get("data", {})
    for block, replacement in linked.items():
        if block in data.get("text/markdown", ""):
            data["text/markdown"] = data["text/markdown"].replace(block, replacement)
    for kind, suffix in (("image/svg+xml", "svg"), ("image/png", "png")):
        if kind in data:
            content = data[kind].encode() if suffix == "svg" else base64.b64decode(data[kind])
            path = pictures / f"{hashlib.sha256(content).hexdigest()[:16]}.{suffix}"
            pictures.mkdir(exist_ok=True)
            path.write_bytes(content)
            alt = output.metadata.get(kind, {}).get("alt", alt)
            output["data"] = {"text/markdown": f"![{alt}]({pictures.name}/{path.name})"}
            return
