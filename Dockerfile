# The GPU image. vLLM's wheels bring their own CUDA libraries, so a plain Python image is enough, and the host has
# the driver. Without a command it serves; every other command of `winnow` works as well, `doctor` first.
#   docker build -t winnow .
#   docker run --rm --gpus all winnow doctor
#   docker run --gpus all --ipc=host -p 8000:8000 -e WINNOW_API_KEYS=… -v /path/to/models:/models:ro winnow serve \
#     --policy /models/Llama-2-7b-chat-hf --safety-rm /models/safety-rm --helpfulness-rm /models/helpfulness-rm
FROM python:3.12-slim-bookworm

# Compilers for Triton and Inductor, which build what they generate, in C and C++, at run time.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc g++ libc6-dev && rm -rf /var/lib/apt/lists/*

# The pins are complete, so nothing is resolved. They come before the source, whose changes then download nothing.
WORKDIR /opt/winnow
COPY constraints/gpu.txt constraints/gpu.txt
RUN python -m pip install --no-cache-dir --no-deps -r constraints/gpu.txt

COPY pyproject.toml README.md LICENSE ./
COPY clients clients
COPY loadtests loadtests
COPY models models
COPY server server
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation . && python -m pip check

# The user's number is fixed, so that volumes and an MPS daemon can be given the same one. Compiled kernels and
# downloaded models go to the home folder, which is a volume: writable even if the rest is read-only.
RUN groupadd --gid 1000 winnow && useradd --uid 1000 --gid 1000 --create-home winnow
USER 1000:1000
WORKDIR /home/winnow
VOLUME /home/winnow

# PyTorch's compiler asks for the user's name, which a number given with `--user` does not have. The capabilities are
# those of NVIDIA's own images: without them some runtimes mount nvidia-smi alone.
ENV USER=winnow WINNOW_HOST=0.0.0.0 NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8000
HEALTHCHECK --start-period=10m CMD ["python", "-c", \
    "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["winnow"]
CMD ["serve"]

LABEL org.opencontainers.image.title="Winnow" \
    org.opencontainers.image.description="Serves the best of K answers, behind one OpenAI-compatible endpoint" \
    org.opencontainers.image.version="0.2.0" \
    org.opencontainers.image.licenses="Apache-2.0"
