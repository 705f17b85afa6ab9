# Every target prepares what it needs; see environment/README.md for how.
ENTER := environment/enter
PYTEST := python3 -m pytest
IMAGE := fem-dnn
# A deadlock between ranks shall end as a failure (seconds; Open MPI and MPICH know the name).
export MPIEXEC_TIMEOUT ?= 900

.NOTPARALLEL:
.PHONY: help demo test test-mpi test-serial lint docker clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## train a network on handwritten digits; pictures at the end
	$(ENTER) fem-dnn demo digits

test: test-mpi test-serial ## run all tests: on two MPI ranks, then serially

test-mpi: ## run the tests that ranks can share, on two of them
	$(ENTER) mpirun -n 2 $(PYTEST) -q -x --color=no -m mpi

test-serial: ## run all tests on one rank, on as many cores as there are up to 4
	OMP_NUM_THREADS=1 $(ENTER) $(PYTEST) -q -n auto --maxprocesses 4 --dist worksteal -m "not alone"
	$(ENTER) $(PYTEST) -q -m alone

lint: ## check style (ruff) and types (mypy)
	$(ENTER) ruff check .
	$(ENTER) mypy

docker: ## build the container image, with docker, podman or buildah; DOCKER_OPTIONS are passed on
	@for engine in docker podman buildah; do \
		if $$engine info >/dev/null 2>&1; then \
			set -x; exec $$engine build $(DOCKER_OPTIONS) --tag $(IMAGE) .; \
		fi; \
	done; echo "make docker: neither docker nor podman nor buildah works here" >&2; exit 1

clean: ## remove caches and results from the checkout (not the environment)
	rm -rf results build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
