"""A trained branch, or the fused network, leaves the project as one ONNX file with a model card."""

from pathlib import Path

from fusionkd_lib.errors import InputError
from fusionkd_lib.exported import SUFFIX, require_tools
from fusionkd_lib.storage import replacing, write_text
from fusionkd_lib.tagging import Tagger


def export(tagger: Tagger, out: Path) -> None:
    """Write a classifier of a run into a file, and its model card beside it.

    Parameters
    ----------
    tagger
        From `tagging.load_tagger`.
    out
        Ends in ``.onnx``; the card has ``.md`` instead.

    Raises
    ------
    InputError
        Where the tools are not installed, or the classifier cannot be exported.
    """
    require_tools()
    from fusionkd_lib.export import onnx_file

    if out.suffix != SUFFIX:
        raise InputError(f"{out}: must end in {SUFFIX}")
    with replacing(out) as partial:
        onnx_file.write(tagger, partial)
    write_text(out.with_suffix(".md"), onnx_file.card(tagger.told, out))
