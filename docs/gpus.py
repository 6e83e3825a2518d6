"""Simulate subtomograms on all GPUs of one machine: a worker for each."""

import torch
from distributed import Client, Nanny, Scheduler, SpecCluster

from tomolab import simulation


def cluster(gpus: int) -> SpecCluster:
    """A worker process for each GPU, which sees no other."""
    here = {"host": "127.0.0.1"}
    workers = {
        gpu: {
            "cls": Nanny,
            "options": here | {"nthreads": 1, "env": {"CUDA_VISIBLE_DEVICES": str(gpu)}},
        }
        for gpu in range(gpus)
    }
    scheduler = {"cls": Scheduler, "options": here | {"dashboard": False, "dashboard_address": "127.0.0.1:0"}}
    return SpecCluster(workers=workers, scheduler=scheduler)


def main() -> None:
    """A hundred thousand subtomograms of two complexes."""
    maps = simulation.load_densities(["tric", "ribosome_70s"], voxel_size=10.0, box=40)
    with cluster(torch.cuda.device_count()) as workers, Client(workers) as client:
        simulation.subtomograms(
            maps, 50_000, imaging=simulation.Imaging(snr=0.1), box=40, seed=1, path="known.zarr", client=client
        )


if __name__ == "__main__":
    main()
