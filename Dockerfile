# Two stages: the environment is built in one; the other holds it, and nothing that builds.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md streamq_pytest.py ./
COPY lua lua
COPY streamq streamq
RUN python -m venv /opt/streamq \
    && /opt/streamq/bin/pip install --no-cache-dir --no-compile '.[cli,dashboard,otel,processors]' \
    && /opt/streamq/bin/pip uninstall --yes pip \
    && find /opt/streamq -depth -type d \( -name tests -o -name test -o -name __pycache__ \) -path '*/site-packages/*' -exec rm -rf {} +

FROM python:3.13-slim
# /data: owned by the user, so that a volume mounted there is, too.
RUN useradd --create-home --uid 10001 streamq && install -d -o streamq -g streamq /data
COPY --from=build /opt/streamq /opt/streamq
ENV PATH=/opt/streamq/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER streamq
WORKDIR /home/streamq
CMD ["streamq", "worker"]
