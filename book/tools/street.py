"""Ten free recordings from the street, with credits: ``python -m fusionkd_book street``.

They are clips of ESC-50 (Piczak 2015), cut from recordings of freesound.org. The collection as a
whole is CC BY-NC; each of these ten is CC0 or CC BY by its own author, as the collection's list
of licences says.
"""

import csv
import io
from pathlib import Path
from typing import NamedTuple

from fusionkd_lib.datasets.archives import download
from fusionkd_lib.storage import write_text

SITE = "https://raw.githubusercontent.com/karolpiczak/ESC-50"
CREDITS = "credits.csv"
MOST_BYTES = 2**20  # five seconds of 16 bits at 44.1 kHz are 441,044


class Sound(NamedTuple):
    """A clip: what is heard, its file, and whose it is."""

    heard: str
    file: str
    title: str
    author: str
    licence: str
    commit: str  # at which the file was seen; a later version would be another sound

    @property
    def page(self) -> str:
        """The recording that the clip was cut from."""
        return f"https://freesound.org/s/{self.file.split('-')[1]}/"


AT_F2FD956 = "f2fd956acf66ebd9ac7e2110711aa78dd684d042"
AT_7A6760A = "7a6760a5628974888c7bcc0d3277290acfe5ab72"
SOUNDS = (
    Sound(
        "dog", "4-194754-A-0.wav", "Dog Barking in Brussels Street", "qubodup", "CC BY", AT_F2FD956
    ),
    Sound(
        "siren",
        "4-102871-A-42.wav",
        "20100806.stockholm.sirens.wav",
        "dobroide",
        "CC BY",
        AT_7A6760A,
    ),
    Sound(
        "siren", "4-90014-A-42.wav", "police siren perpignan.wav", "thfc140491", "CC BY", AT_F2FD956
    ),
    Sound(
        "car horns",
        "5-180156-A-43.wav",
        "traffic horns city nervous busy.wav",
        "klankbeeld",
        "CC BY",
        AT_F2FD956,
    ),
    Sound(
        "idling truck",
        "3-128160-A-44.wav",
        "Diesel Truck Idling Front.wav",
        "ibirdfilm",
        "CC0",
        AT_F2FD956,
    ),
    Sound(
        "garbage truck", "1-18527-A-44.wav", "garbage_truck.wav", "Corsica_S", "CC BY", AT_F2FD956
    ),
    Sound(
        "wood chipper",
        "5-222524-A-41.wav",
        "wood chipper and chainsaw",
        "Darrenlibrarian",
        "CC0",
        AT_F2FD956,
    ),
    Sound(
        "church bells",
        "3-139109-A-46.wav",
        "All bells ringing at Notre-Dame in Paris",
        "Mxsmanic",
        "CC0",
        AT_7A6760A,
    ),
    Sound(
        "train",
        "3-159445-A-45.wav",
        "Brussels Train Station (Gare de Schaerbeek). Train are passing by without stopping.",
        "felix.blume",
        "CC0",
        AT_7A6760A,
    ),
    Sound(
        "airplane",
        "1-11687-A-47.wav",
        "06-airplane-landing-overhead-zaventem.wav",
        "Bram",
        "CC BY",
        AT_7A6760A,
    ),
)


def fetch(folder: Path, *, site: str = SITE) -> list[Path]:
    """Download those of the ten sounds that are not there yet, and write ``credits.csv``.

    Raises
    ------
    InputError
        Where a sound cannot be reached; what has been downloaded stays.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for sound in SOUNDS:
        url = f"{site}/{sound.commit}/audio/{sound.file}"
        paths.append(Path(download(url, folder, checksum=None, most=MOST_BYTES)))
    write_text(folder / CREDITS, credits_table())
    return paths


def credits_table() -> str:
    """Return whose the sounds are, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "heard", "title", "author", "licence", "page"])
    for sound in SOUNDS:
        writer.writerow(
            [sound.file, sound.heard, sound.title, sound.author, sound.licence, sound.page]
        )
    return text.getvalue()
