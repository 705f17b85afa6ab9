# docker build -t fem-dnn .
# docker run --rm -v "$PWD":/work fem-dnn solve case.toml
# docker run --rm -v "$PWD":/work --shm-size=1g --entrypoint mpirun fem-dnn -n 2 fem-dnn solve case.toml
FROM debian:trixie-slim

# The lists that environment/prepare installs too.
COPY environment/packages.txt environment/pypi.txt /usr/src/fem-dnn/environment/
RUN apt-get update \
    && sed 's/#.*//' /usr/src/fem-dnn/environment/packages.txt \
       | DEBIAN_FRONTEND=noninteractive xargs apt-get install -y --no-install-recommends \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m pip install --break-system-packages --root-user-action=ignore --no-cache-dir \
        --no-deps --requirement /usr/src/fem-dnn/environment/pypi.txt

COPY . /usr/src/fem-dnn
RUN python3 -m pip install --break-system-packages --root-user-action=ignore --no-cache-dir \
        --no-deps --no-build-isolation /usr/src/fem-dnn

# A home and a working directory that any user can write to, for `docker run --user`.
RUN useradd --create-home fem && mkdir /work && chmod 1777 /home/fem /work
USER fem
WORKDIR /work

# One thread per MPI rank (a serial run may use more: -e OMP_NUM_THREADS=4); ranks talk through
# memory, may outnumber the cores, and are not bound to them.
ENV HOME=/home/fem \
    LANG=C.UTF-8 \
    MPLBACKEND=Agg \
    OMP_NUM_THREADS=1 \
    ADIOS2_ALWAYS_USE_MPI=1 \
    OMPI_ALLOW_RUN_AS_ROOT=1 \
    OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
    OMPI_MCA_mpi_yield_when_idle=1 \
    OMPI_MCA_pml=ob1 \
    OMPI_MCA_btl=self,sm \
    PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe \
    PRTE_MCA_hwloc_default_binding_policy=none

ENTRYPOINT ["fem-dnn"]
CMD ["--help"]
