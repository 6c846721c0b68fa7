# The shop of examples/shop on celery_ha, as docker-compose.yml and the Kubernetes manifests run it. For an app of your
# own: the same, with your requirements and your code.

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /venv
# What changes seldom comes first: the libraries are one layer, this package another.
RUN /venv/bin/pip install --no-cache-dir "celery[redis]>=5.6" "flower>=2.2" "kazoo>=2.10" "prometheus-client>=0.20" "rich>=13"
COPY pyproject.toml LICENSE ./
COPY celery_ha celery_ha
RUN /venv/bin/pip install --no-cache-dir ".[cli,flower,metrics,zookeeper]"

FROM python:3.13-slim
# Nobody in particular, by number: Kubernetes can see that it is not root.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin shop
COPY --from=build /venv /venv
COPY examples/shop /app
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
# A worker's main process is the container's: what is sent to the one (SIGTERM, SIGKILL) arrives at the other.
CMD ["celery", "-A", "shop", "worker", "-n", "shop@%h", "-Q", "orders,celery", "-l", "INFO"]
