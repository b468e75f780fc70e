# One image for the collector (with or without the embedded engine) and the dashboards.
FROM python:3.13-slim

RUN useradd --create-home --uid 10001 loopscope && install -d -o loopscope -g loopscope /data
WORKDIR /app
COPY requirements.runtime.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.runtime.lock
COPY pyproject.toml README.md CHANGELOG.md ./
COPY schemas ./schemas
COPY instrumentation ./instrumentation
COPY collector ./collector
COPY dashboards ./dashboards
RUN pip install --no-cache-dir --no-deps .

USER loopscope
ENV LOOPSCOPE_DATA_DIR=/data PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 4318 8123 8501
ENTRYPOINT ["loopscope"]
# Beyond loopback nothing listens without keys: LOOPSCOPE_INGEST_KEYS and LOOPSCOPE_READ_KEYS must be given.
CMD ["up", "--bind", "0.0.0.0"]
