"""docs/peers.md from the records."""
from benchmarks.peers import records
PATH = records.DOCS / "peers.md"
def render(known): return ""
