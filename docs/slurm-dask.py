"""Run a store on a Dask cluster whose workers are jobs of SLURM: ``python slurm-dask.py STORE [MAXIMUM JOBS]``.

The workers come and go with the queue; the run begins with the first one. Needs ``pip install 'featurestore[dask]'
dask-jobqueue`` in an environment that all nodes see, and the store and the images at the same paths on all of them.
Change the numbers: they are those of one job. For PBS it is ``PBSCluster``, for others see dask-jobqueue.
"""

import sys

from dask_jobqueue import SLURMCluster

from featurestore import FeatureStore

if __name__ == "__main__":
    path, most = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 50
    cluster = SLURMCluster(
        cores=32,  # slots of a job, one process for each
        processes=1,  # Dask workers of a job: one is enough, whatever the number of cores
        memory="64GB",
        walltime="08:00:00",
        # A job ends its worker before SLURM does, so that its tasks are done elsewhere and not begun again and again.
        worker_extra_args=["--lifetime", "470m", "--lifetime-stagger", "5m"],
    )
    try:
        cluster.adapt(minimum_jobs=1, maximum_jobs=most)
        cluster.wait_for_workers(1)  # as long as the queue takes; a run by itself waits for a minute
        FeatureStore(path).run(engine="dask", scheduler=cluster.scheduler_address, quiet=False)
    finally:
        cluster.close()
