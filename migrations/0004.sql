CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

CREATE TABLE chunks (
    chunk_id INTEGER NOT NULL,
    first_image_id BIGINT NOT NULL,
    n_images INTEGER NOT NULL,
    digest VARCHAR NOT NULL,
    PRIMARY KEY (chunk_id)
);

CREATE TABLE images (
    image_id BIGINT NOT NULL,
    chunk_id INTEGER NOT NULL,
    filename VARCHAR NOT NULL,
    subset VARCHAR NOT NULL,
    PRIMARY KEY (image_id)
);

CREATE TABLE ingests (
    ingest_id INTEGER NOT NULL,
    path VARCHAR NOT NULL,
    checksum VARCHAR NOT NULL,
    n_new INTEGER NOT NULL,
    n_changed INTEGER NOT NULL,
    PRIMARY KEY (ingest_id)
);

CREATE TABLE models (
    model_id VARCHAR NOT NULL,
    stage VARCHAR NOT NULL,
    variant VARCHAR NOT NULL,
    parent_id VARCHAR,
    generation INTEGER NOT NULL,
    partial BOOLEAN NOT NULL,
    path VARCHAR NOT NULL,
    checksum VARCHAR NOT NULL,
    n_bytes BIGINT NOT NULL,
    n_images INTEGER NOT NULL,
    summary JSON NOT NULL,
    PRIMARY KEY (model_id)
);

CREATE TABLE partitions (
    stage VARCHAR NOT NULL,
    variant VARCHAR NOT NULL,
    chunk_id INTEGER NOT NULL,
    payload VARCHAR NOT NULL,
    input_payload VARCHAR NOT NULL,
    path VARCHAR NOT NULL,
    checksum VARCHAR NOT NULL,
    n_bytes BIGINT NOT NULL,
    n_images INTEGER NOT NULL,
    n_descriptors BIGINT NOT NULL,
    dim INTEGER NOT NULL,
    n_clipped BIGINT,
    pruned BOOLEAN NOT NULL,
    origin VARCHAR NOT NULL,
    versions JSON NOT NULL,
    PRIMARY KEY (stage, variant, chunk_id)
);

CREATE TABLE results (
    stage VARCHAR NOT NULL,
    variant VARCHAR NOT NULL,
    chunk_id INTEGER NOT NULL,
    image_id BIGINT NOT NULL,
    status VARCHAR NOT NULL,
    error VARCHAR,
    n_descriptors INTEGER NOT NULL,
    pixels BIGINT
);

CREATE TABLE runs (
    run_id VARCHAR NOT NULL,
    stage VARCHAR NOT NULL,
    variant VARCHAR NOT NULL,
    parameters JSON NOT NULL,
    versions JSON NOT NULL,
    host VARCHAR NOT NULL,
    pid INTEGER NOT NULL,
    workers INTEGER NOT NULL,
    started TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    ended TIMESTAMP WITHOUT TIME ZONE,
    outcome VARCHAR NOT NULL,
    message VARCHAR,
    n_chunks INTEGER NOT NULL,
    n_images INTEGER NOT NULL,
    n_descriptors BIGINT NOT NULL,
    n_bytes BIGINT NOT NULL,
    seconds FLOAT NOT NULL,
    PRIMARY KEY (run_id)
);

CREATE TABLE training_images (
    model_id VARCHAR NOT NULL,
    image_id BIGINT NOT NULL
);

CREATE TABLE variants (
    variant VARCHAR NOT NULL,
    stage VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    parameters JSON NOT NULL,
    reads_variant VARCHAR NOT NULL,
    model_id VARCHAR,
    PRIMARY KEY (variant)
);

INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING alembic_version.version_num;

-- Running upgrade 0001 -> 0002

CREATE TABLE dataset_files (
    path VARCHAR NOT NULL,
    n_bytes BIGINT NOT NULL,
    mtime_ns BIGINT NOT NULL,
    digest VARCHAR NOT NULL,
    PRIMARY KEY (path)
);

UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001';

-- Running upgrade 0002 -> 0003

ALTER TABLE images ADD COLUMN removed_by INTEGER;

UPDATE alembic_version SET version_num='0003' WHERE alembic_version.version_num = '0002';

-- Running upgrade 0003 -> 0004

ALTER TABLE partitions ADD COLUMN etag VARCHAR;

UPDATE alembic_version SET version_num='0004' WHERE alembic_version.version_num = '0003';
