"""Several processes that share the rows of each step and sum their gradients.

One process a core is faster than one process of several threads: the model's products are
small. With one process nothing of torch.distributed is touched.
"""

import ctypes
import os
import signal

import torch
import torch.distributed
import torch.multiprocessing

_PR_SET_PDEATHSIG = 1  # of prctl(2)


class Team:
    """This process's place among `count`, and what all of them do together."""

    def __init__(self, rank, count, meeting_file):
        self.rank, self.count = rank, count
        if count > 1:
            torch.distributed.init_process_group(
                "gloo", store=torch.distributed.FileStore(meeting_file, count),
                rank=rank, world_size=count)

    @property
    def leads(self):
        """Whether this is the process that logs and saves."""
        return self.rank == 0

    def own(self, numbered):
        """The part of a step's numbered rows that this process computes."""
        return numbered[self.rank::self.count]

    def total(self, values):
        """The sums over all processes of a list of numbers."""
        if self.count == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(tensor)
        return tensor.tolist()

    def agreed(self, value):
        """The leader's value, a number."""
        return self.total([value if self.leads else 0.0])[0]

    def sum_gradients(self, parameters):
        """In place; every process has gradients of the same parameters."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(part.view_as(gradient))


def run(count, directory, work):
    """Calls work(team) in `count` processes, which meet by a file in `directory`.

    Returns at their end; one that fails ends all. `work` must be picklable."""
    meeting_file = os.path.join(directory, "meeting")
    if os.path.exists(meeting_file):
        os.remove(meeting_file)
    if count == 1:
        work(Team(0, 1, meeting_file))
        return
    torch.multiprocessing.spawn(_process, (count, meeting_file, work), nprocs=count)


def _process(rank, count, meeting_file, work):
    # Who is killed with the first process cannot be told by it: two teams on one state would
    # overwrite each other.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    work(Team(rank, count, meeting_file))
