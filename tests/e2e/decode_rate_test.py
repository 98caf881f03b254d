"""What scripts/decode_rate.py makes of the times at which streams' tokens came."""

import unittest

import e2e_case  # noqa: F401  finds scripts/
from decode_rate import Streams


def rate(*streams):
    these = Streams(0, [[1] for _ in streams], 2)
    these._times = [list(times) for times in streams]
    return these._rate()


class DecodeRate(unittest.TestCase):
    def test_one_stream(self):
        self.assertAlmostEqual(rate([1, 1.5, 2, 2.5, 3]), 2)

    def test_while_all_are_there(self):
        # From 2 to 10, two a second each; the first one was alone before, and quicker.
        early = [1 + i / 10 for i in range(10)] + [2 + i / 2 for i in range(17)]
        late = [2 + i / 2 for i in range(20)]
        self.assertAlmostEqual(rate(early, late), 4)

    def test_one_after_the_other_is_no_faster_than_each(self):
        self.assertAlmostEqual(rate([i / 10 for i in range(10)],
                                    [1 + i / 10 for i in range(10)]), 10)


if __name__ == "__main__":
    e2e_case.main()
