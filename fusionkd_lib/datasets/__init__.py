"""Clip tables of the datasets: `urbansound8k`, `sonyc_ust`, and `urban_synth`, made on the spot."""

from fusionkd_lib.datasets.clips import Clips

__all__ = ["Clips"]
