# Two images from one file: `--target api` without torch, `--target worker` with torch's CUDA build.
# The worker needs the NVIDIA container toolkit on the host; torch brings its own CUDA libraries.
FROM python:3.12-slim AS base
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 BONSAI_DATA_DIR=/data
RUN useradd --create-home --uid 1000 bonsai && install --directory --owner bonsai /data
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY api api
COPY bonsai_core bonsai_core
COPY client client
COPY jobs jobs
COPY migrations migrations
COPY worker worker

FROM base AS api
RUN pip install --constraint constraints.txt '.[api,tracing]' \
    && ! python -c 'import torch' 2>/dev/null
USER bonsai
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz')"]
CMD ["uvicorn", "api.app:create_app", "--factory", "--host", "0.0.0.0", "--port", "8000", "--no-access-log", "--timeout-graceful-shutdown", "5"]

FROM base AS worker
RUN pip install --constraint constraints.txt '.[worker,mlflow,tracing]'
USER bonsai
# The worker gives its job back within seconds of this signal, and leaves.
STOPSIGNAL SIGTERM
CMD ["python", "-m", "worker"]
