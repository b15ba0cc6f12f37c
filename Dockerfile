# picoLLM behind its API, on CPU. Build:  docker build -t picollm .
# Run, with a checkpoint from outside:
#   docker run --rm -p 127.0.0.1:8008:8008 -e PICOLLM_API_KEY=... -v "$PWD/runs:/data/runs:ro" picollm
FROM python:3.11 AS wheel
# This image has the compiler for the native kernels, the one that runs does not need it.
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
# picollm/configs is a link to configs.
COPY configs configs
COPY picollm picollm
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
WORKDIR /opt/picollm
# The CPU build of torch is a tenth of the default one; its index has nothing else of what we need.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt ./
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch==$(sed -n 's/^torch==//p' constraints.txt)"
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir -c constraints.txt /wheels/*.whl

RUN useradd --create-home --uid 10001 picollm && mkdir -p /data && chown picollm /data
USER picollm
WORKDIR /data
EXPOSE 8008
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8008/health', timeout=4)"]
STOPSIGNAL SIGTERM
# Inside a container every address is the container's; who may connect is decided by -p, and PICOLLM_API_KEY is needed.
ENTRYPOINT ["picollm", "serve", "--host", "0.0.0.0"]
CMD ["runs/sft"]
