"""How samples are read ahead. Torch-free; nothing here decides a batch."""

from wfm.config import Config, Count, Device, Natural, Share, how


class LoaderConfig(Config):
    """How a loader reads; all of it `how`: the batches are the same whatever stands here."""

    workers: Natural = how(4)
    """Threads that read and decode ahead: numpy, libav and sockets let others run meanwhile. 0: all is read when it is asked
    for, by one thread."""
    prefetch_bytes: Count = how(64 * 2**20)
    "Most bytes of samples that are being read or wait to be taken; one step may always wait, however large."
    skipped_count: Natural = how(16)
    """So many samples of a run that cannot be read are replaced, whatever their share: each counts once, in however many epochs
    or attempts it is met."""
    skipped_share: Share = how(0.001)
    "Above `skipped_count`, the largest share of the samples drawn so far that may have been replaced before the run ends."
    device: Device = how("cpu")
    "Where batches are put ahead of use."
    pin: bool = how(True)
    "Whether batches go to a GPU by way of pinned memory, beside the work on it."
