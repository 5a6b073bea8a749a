-- What this backend writes. Plain tables: nothing in them is Syncline's.
CREATE TABLE lists (
    id       text PRIMARY KEY,
    name     text NOT NULL CHECK (name <> ''),
    owner_id text NOT NULL
);
CREATE TABLE todos (
    id       text PRIMARY KEY,
    list_id  text NOT NULL REFERENCES lists ON DELETE CASCADE,
    title    text NOT NULL,
    done     boolean NOT NULL DEFAULT false,
    owner_id text NOT NULL
);

-- Uploads that were applied, so that a repeated one is not applied twice. In a schema of its own: a sync config that takes all
-- tables of `public` would send it, with the ids of all users, to every client.
-- region: applied
CREATE SCHEMA syncline;
CREATE TABLE syncline.applied (
    user_id    text        NOT NULL,
    client_id  text        NOT NULL,
    op_id      bigint      NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(), -- rows older than a few weeks may be deleted
    PRIMARY KEY (user_id, client_id, op_id)
);
-- endregion: applied

-- What is replicated to clients.
CREATE PUBLICATION syncline FOR TABLE lists, todos;
