# The GPU image. vLLM's wheels bring their own CUDA libraries, so a plain Python image is enough, and the host has
# the driver.
#   docker build -t winnow .
#   docker run --gpus all --ipc=host -p 8000:8000 -e WINNOW_API_KEYS=… -v /path/to/models:/models:ro winnow \
#     --policy /models/Llama-2-7b-chat-hf --safety-rm /models/safety-rm --helpfulness-rm /models/helpfulness-rm
FROM python:3.12-slim-bookworm

# A compiler for the kernels that Triton builds at start-up.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/winnow
COPY pyproject.toml README.md LICENSE ./
COPY clients clients
COPY loadtests loadtests
COPY models models
COPY server server
RUN python -m pip install --no-cache-dir ".[gpu,distill]"

RUN useradd --create-home winnow
USER winnow
WORKDIR /home/winnow

EXPOSE 8000
HEALTHCHECK --start-period=10m CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["winnow", "serve", "--host", "0.0.0.0"]
