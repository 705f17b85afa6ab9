"""Newton beside its peers: times to the same accuracy on identical discretised problems.

`python3 -m benchmarks.peers` is what one calls (see `__main__`). Ours runs in our environment
(`export`, `newton`, `our_costs`), the peers in theirs (`worker`, `costs` and `tools/`): these read
the discretised problem from a file (`discrete`) and know nothing of fem_dnn.
"""
