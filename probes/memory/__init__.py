"""One file per probe about what a model knows by rote: sequences it was trained on, against fresh ones of their source.

Memory is scored where context cannot help. A sequence that begins to repeat itself (the lab's do) can be copied from
there on by a model that remembers nothing, so scores are taken over the tokens before that point: the first block.
Where a sequence does not repeat itself the first block is the whole of it.
"""
