"""What is held out of training: an eighth of each kind of key, by its hash.

Keys: ("w", word) for tasks on letters, (operator, a, b) for sums, ("cap", country, form)
and ("arch", topic, form) for ways of asking, ("tool", name) for names of functions,
("note", text) for what functions say of themselves at length.
"""

import zlib


def held_out(*key):
    return zlib.crc32("|".join(map(str, key)).encode()) % 8 == 0
