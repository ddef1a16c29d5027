"""Build `data/words.txt.gz` and `data/proper.txt.gz` from Debian's SCOWL lists.

Run once by a maintainer, never by users: `python tools/build_wordlists.py [american-english american-english-large]`
with the Debian packages `wamerican` and `wamerican-large` installed. The licence of the lists stands in
`data/SCOWL-LICENSE.txt` and travels with them.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

DATA = Path(__file__).parent.parent / "src" / "flujo" / "deidentifier" / "data"
DEFAULTS = ["/usr/share/dict/american-english", "/usr/share/dict/american-english-large"]


def read(path: str) -> set[str]:
    """The entries of one list; possessives are left out, because the tokeniser strips them."""
    return {w for w in Path(path).read_text("utf-8").split() if "'" not in w}


def write(name: str, words: set[str]) -> None:
    """One word a line, sorted, gzipped without a time stamp, so that the same input gives the same bytes."""
    raw = "\n".join(sorted(words)).encode()
    (DATA / name).write_bytes(gzip.compress(raw, 9, mtime=0))
    sys.stdout.write(f"{name}: {len(words)} words\n")


def main(common_path: str, large_path: str) -> None:
    """A rare word that is also a proper name ('kelly', 'carter') counts as a name only; a frequent one as both."""
    common, large = read(common_path), read(large_path)
    capitalised = {w.lower() for w in large if w[:1].isupper() and not w.isupper()}
    frequent = {w for w in common if w.islower()}
    words = {w for w in large if w.islower() and len(w) > 1}
    proper = {w for w in capitalised - frequent if len(w) > 2}
    write("words.txt.gz", (words - proper) | frequent)
    write("proper.txt.gz", proper)


if __name__ == "__main__":
    main(*(sys.argv[1:] or DEFAULTS))
