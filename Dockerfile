# One image for broker and operator. The build stage compiles nothing but wheels; the final stage has no pip cache,
# no compiler and no shell scripts of ours.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY broker broker
COPY tiered tiered
COPY crds crds
RUN python -m venv /opt/strandline && /opt/strandline/bin/pip install --no-cache-dir .

FROM python:3.13-slim
LABEL org.opencontainers.image.title="strandline" \
      org.opencontainers.image.description="A Kafka-compatible event log for Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin strandline \
    && install -d -o 10001 -g 10001 /var/lib/strandline
COPY --from=build /opt/strandline /opt/strandline
# Large buffers stay mapped: without this every megabyte pays its page faults again.
ENV PATH=/opt/strandline/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_TRIM_THRESHOLD_=268435456 \
    MALLOC_MMAP_THRESHOLD_=268435456
USER 10001:10001
VOLUME /var/lib/strandline
EXPOSE 9092 10092
ENTRYPOINT ["strandline"]
CMD ["--help"]
