BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0008');
CREATE TABLE calibration (
	index_id INTEGER NOT NULL, 
	"plan" VARCHAR(64) NOT NULL, 
	content TEXT NOT NULL, 
	PRIMARY KEY (index_id), 
	FOREIGN KEY(index_id) REFERENCES label_index (id) ON DELETE CASCADE
);
CREATE TABLE embedding (
	id INTEGER NOT NULL, 
	fingerprint BLOB NOT NULL, 
	encoder_id INTEGER NOT NULL, 
	vector BLOB NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (fingerprint), 
	FOREIGN KEY(encoder_id) REFERENCES encoder (id)
);
INSERT INTO "embedding" VALUES(1,X'8914BC59591A38F23DECBD9636D9EF1F78772C55410141E5D9003272D0486CF8',1,X'0000803F000000000000000000000000');
INSERT INTO "embedding" VALUES(2,X'16451309BA4A6CEF269C9C03A7898EEFB5AAE3084EAB264444B179EEDCD336EA',1,X'000000000000803F0000000000000000');
INSERT INTO "embedding" VALUES(3,X'3C0D6A0783B2C7C7592A80EAC6FC68F457B608C0869CBF244E85E21964000146',1,X'00000000000000000000803F00000000');
CREATE TABLE encoder (
	id INTEGER NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, 
	model_id TEXT, 
	revision TEXT, 
	dim INTEGER NOT NULL, 
	logit_scale FLOAT NOT NULL, 
	logit_bias FLOAT NOT NULL, 
	activation VARCHAR(16) NOT NULL, dtype VARCHAR(16) DEFAULT 'float32' NOT NULL, loaded_fingerprint VARCHAR(64), 
	PRIMARY KEY (id), 
	UNIQUE (fingerprint)
);
INSERT INTO "encoder" VALUES(1,'87c5e6b754670a1c581e7b23146856cf95502ece73b9271555c1c4f372a320ca',NULL,NULL,4,10.0,0.0,'softmax','float32',NULL);
CREATE TABLE label (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	index_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	position INTEGER, 
	embedding_id INTEGER, shown TEXT, 
	UNIQUE (index_id, name), 
	FOREIGN KEY(index_id) REFERENCES label_index (id) ON DELETE CASCADE, 
	FOREIGN KEY(embedding_id) REFERENCES embedding (id)
);
INSERT INTO "label" VALUES(1,1,'cat',0,1,NULL);
INSERT INTO "label" VALUES(2,1,'dog',1,2,NULL);
INSERT INTO "label" VALUES(3,1,'sea',2,3,NULL);
CREATE TABLE label_index (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name VARCHAR(64) NOT NULL, 
	encoder_id INTEGER, 
	templates TEXT NOT NULL, 
	generation INTEGER NOT NULL, 
	labels INTEGER NOT NULL, 
	checksum VARCHAR(64) NOT NULL, 
	created_at FLOAT NOT NULL, 
	updated_at FLOAT NOT NULL, "plan" VARCHAR(64) DEFAULT '' NOT NULL, kind VARCHAR(16) DEFAULT 'flat' NOT NULL, taxonomy VARCHAR(64), names VARCHAR(16) DEFAULT 'mean' NOT NULL, rows INTEGER, 
	UNIQUE (name), 
	FOREIGN KEY(encoder_id) REFERENCES encoder (id)
);
INSERT INTO "label_index" VALUES(1,'things',1,'[]',1,3,'73ca81eccf09e772f129e956e3052753e743631b9fa6e606b4b2b0684f27f10d',1.79555011048258686065e+09,1.79555011051591491702e+09,'b9f0e7da0e60bec2a517684f860271a59173c9e9381553b959d57fc567c23650','flat',NULL,'mean',NULL);
CREATE TABLE label_threshold (
	label_id BIGINT NOT NULL, 
	index_id BIGINT NOT NULL, 
	threshold FLOAT NOT NULL, 
	PRIMARY KEY (label_id)
);
CREATE TABLE other_name (
	label_id INTEGER NOT NULL, 
	place INTEGER NOT NULL, 
	embedding_id INTEGER NOT NULL, 
	PRIMARY KEY (label_id, place), 
	FOREIGN KEY(label_id) REFERENCES label (id) ON DELETE CASCADE, 
	FOREIGN KEY(embedding_id) REFERENCES embedding (id)
);
CREATE TABLE photo (
	id INTEGER NOT NULL, 
	folder TEXT NOT NULL, 
	name TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	mtime_ns BIGINT NOT NULL, 
	content_hash BLOB, 
	problem TEXT, 
	missing_since FLOAT, 
	tags_digest VARCHAR(64) DEFAULT '' NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (folder, name)
);
CREATE TABLE photo_decision (
	photo_id INTEGER NOT NULL, 
	index_id BIGINT NOT NULL, 
	digest BLOB NOT NULL, 
	PRIMARY KEY (photo_id, index_id), 
	FOREIGN KEY(photo_id) REFERENCES photo (id)
);
CREATE TABLE photo_tag (
	photo_id INTEGER NOT NULL, 
	index_id BIGINT NOT NULL, 
	path TEXT NOT NULL, 
	label_id BIGINT, 
	probability FLOAT, 
	run_id VARCHAR(40) NOT NULL, 
	written_by VARCHAR(40), 
	PRIMARY KEY (photo_id, index_id, path), 
	FOREIGN KEY(photo_id) REFERENCES photo (id), 
	FOREIGN KEY(run_id) REFERENCES tag_run (id)
);
CREATE TABLE sidecar (
	path TEXT NOT NULL, 
	photo_id INTEGER NOT NULL, 
	sidecar_for VARCHAR(16) DEFAULT '' NOT NULL, 
	tags_digest VARCHAR(64) NOT NULL, 
	record TEXT, 
	written VARCHAR(64), 
	size BIGINT, 
	mtime_ns BIGINT, 
	intent TEXT, 
	PRIMARY KEY (path), 
	FOREIGN KEY(photo_id) REFERENCES photo (id)
);
CREATE TABLE tag_run (
	id VARCHAR(40) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	index_name VARCHAR(64) NOT NULL, 
	model_id TEXT, 
	taxonomy VARCHAR(64) NOT NULL, 
	settings TEXT NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	counts TEXT DEFAULT '{}' NOT NULL, 
	started_at FLOAT NOT NULL, 
	finished_at FLOAT, 
	PRIMARY KEY (id)
);
CREATE TABLE taxonomy (
	digest VARCHAR(64) NOT NULL, 
	content BLOB NOT NULL, 
	PRIMARY KEY (digest)
);
CREATE TABLE verdict (
	content_hash BLOB NOT NULL, 
	label_id BIGINT NOT NULL, 
	verdict VARCHAR(16) NOT NULL, 
	source VARCHAR(16) NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (content_hash, label_id)
);
CREATE INDEX ix_label_index_id_position ON label (index_id, position);
CREATE INDEX ix_photo_content_hash ON photo (content_hash);
CREATE INDEX ix_tag_run_digest ON tag_run (digest);
CREATE INDEX ix_photo_tag_written_by ON photo_tag (written_by);
CREATE INDEX ix_photo_tag_run_id ON photo_tag (run_id);
CREATE INDEX ix_photo_tag_path ON photo_tag (path);
CREATE INDEX ix_sidecar_photo_id ON sidecar (photo_id);
CREATE INDEX ix_sidecar_written ON sidecar (written);
CREATE INDEX ix_label_threshold_index_id ON label_threshold (index_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('label_index',1);
INSERT INTO "sqlite_sequence" VALUES('label',3);
COMMIT;
