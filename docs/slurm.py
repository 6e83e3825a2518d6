"""Embed a store of subtomograms on GPUs of a SLURM cluster; run it in tmux or a small job, in a folder that all nodes see."""

from dask_jobqueue import SLURMCluster
from distributed import Client

from tomolab import learning, subtomograms


def cluster(interface: str = "ib0") -> SLURMCluster:
    """Jobs of one worker each, with one GPU and eight cores."""
    return SLURMCluster(
        queue="gpu",
        account="cryoem",
        walltime="08:00:00",
        memory="32GB",
        cores=1,  # one task at a time: a second one would only share the GPU
        processes=1,
        job_cpu=8,
        job_extra_directives=["--gres=gpu:1"],
        job_script_prologue=["export OMP_NUM_THREADS=8 MKL_NUM_THREADS=8"],
        worker_extra_args=["--lifetime", "7h50m", "--lifetime-stagger", "5m"],  # hand over before the walltime kills
        log_directory="logs",
        interface=interface,  # the network between the nodes, and no other
        scheduler_options={"dashboard": False, "dashboard_address": None},
    )


def main() -> None:
    """As many jobs as there is work for, at most 16."""
    with cluster() as jobs, Client(jobs) as client:
        jobs.adapt(minimum_jobs=1, maximum_jobs=16)
        boxes = subtomograms.open("subtomograms.zarr")
        learning.embed(learning.load_network("default"), boxes, path="embedding", batch_size=256, client=client)


if __name__ == "__main__":
    main()
