# cxrreport for a CPU, or for a GPU:
#
#     docker build -t cxrreport .
#     docker build -t cxrreport:cuda --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 .
#     docker run --rm -it -v "$PWD/demo-out:/work/demo-out" cxrreport demo
#     docker run --rm -it --gpus all --shm-size 8g -v "$PWD:/work" cxrreport:cuda train configs/train-mimic-cxr-3b-896.yaml
#
# The default builds of torch bring CUDA. For a smaller image without, pass the index with the CPU builds of PyTorch as
# --build-arg TORCH_INDEX=URL.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# The CUDA bases bring no Python. libgomp is for torch; git tells MLflow the commit of a mounted clone.
# hadolint ignore=DL3008
RUN apt-get update \
    && packages=(git libgomp1) \
    && if ! command -v python3 >/dev/null; then packages+=(python3 python3-venv); fi \
    && apt-get install -y --no-install-recommends "${packages[@]}" \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 reader

ARG TORCH_INDEX=
COPY constraints.txt pyproject.toml README.md LICENSE /src/
COPY configs /src/configs
COPY cxrreport /src/cxrreport
RUN python3 -m venv /opt/cxrreport \
    && if [ -n "${TORCH_INDEX}" ]; then \
        /opt/cxrreport/bin/pip install --no-cache-dir --index-url "${TORCH_INDEX}" "$(grep '^torch==' /src/constraints.txt)"; \
    fi \
    && /opt/cxrreport/bin/pip install --no-cache-dir --constraint /src/constraints.txt /src \
    && rm -rf /src

# hadolint ignore=DL3064
ENV PATH=/opt/cxrreport/bin:$PATH DO_NOT_TRACK=1 TOKENIZERS_PARALLELISM=false
RUN mkdir /work && chown reader /work
USER 10001
WORKDIR /work
ENTRYPOINT ["cxrreport"]
CMD ["--help"]
