# Two stages: packages are fetched and checked against the locks' hashes in the first; the second holds no build tools.
FROM python:3.12-slim AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv && python -m venv /opt/tools
COPY requirements.lock requirements-dev.lock ./
RUN /opt/venv/bin/pip install --require-hashes --only-binary :all: -r requirements.lock
# What builds our own package comes from the lock too.
RUN awk '/^setuptools==/ {on = 1} on {print} on && !/\\$/ {exit}' requirements-dev.lock > /tmp/tools.lock \
 && /opt/tools/bin/pip install --require-hashes --only-binary :all: -r /tmp/tools.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY detectors detectors
COPY sinks sinks
COPY flows flows
RUN /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
 && /opt/venv/bin/pip install --no-deps --no-index /tmp/wheel/*.whl

FROM python:3.12-slim
LABEL org.opencontainers.image.title="tidegauge" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 tidegauge \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/tidegauge --shell /usr/sbin/nologin tidegauge \
 && install -d -o 10001 -g 10001 /var/lib/tidegauge
COPY --from=build /opt/venv /opt/venv
COPY deploy/produce_simulation.py /opt/tidegauge/deploy/produce_simulation.py
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /var/lib/tidegauge
VOLUME /var/lib/tidegauge
EXPOSE 9464
ENTRYPOINT ["tidegauge"]
CMD ["--help"]
